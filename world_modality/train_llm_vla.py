"""Train one option of the experiment: SmolVLA, alone or with a world modality, on LeRobot's own components.

    python -m world_modality.train_llm_vla --dataset results/dataset --vlm results/vlm \\
        --image_key observation.images.image2 --wrist_image_key observation.images.image2 \\
        --latents wrist=results/latents_wrist.parquet --encoder results/encoder \\
        --spec SPEC.json --seed 0 --output results/ckpt_A/seed_0

Reads the demonstrations and the world latents; writes a folder that is exactly a LeRobot `pretrained_model`, with a
`training.json` next to the weights that records what they were made from and what was measured on them. `--image_key`
names the camera of the world latents, and must be the camera they were encoded from. `--policy` is a published policy
to start from (see `training.warm_start`). `--training_dir` holds the states of trainings in progress: the same command,
run again, resumes from its own state. `training.loop` does the training itself.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from world_modality import program
from world_modality.artifacts.provenance import making
from world_modality.errors import InputError
from world_modality.experiment.sections import MAX_SEED
from world_modality.experiment.specs import TrainSpec, spec_argument
from world_modality.program import existing, whole_number
from world_modality.training.loop import Running, TrainInputs, remove_state, train


def _camera_path(text: str) -> tuple[str, Path]:
    camera, separator, path = text.partition("=")
    if not separator or camera not in ("front", "wrist") or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not front=PATH or wrist=PATH")
    return camera, existing(path)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=existing, required=True, help="LeRobotDataset folder")
    parser.add_argument("--vlm", type=existing, required=True, help="SmolVLM folder: config, tokenizer, processor")
    parser.add_argument("--encoder", type=existing, help="V-JEPA 2 folder the latents were encoded with")
    parser.add_argument("--latents", type=_camera_path, nargs="*", default=[], metavar="CAMERA=PATH")
    parser.add_argument("--policy", type=existing, help="published smolvla folder to start from, as the spec says")
    keys = "checked against the spec"
    parser.add_argument("--image_key", nargs="*", default=[], help=f"image key of each world camera, {keys}")
    parser.add_argument("--wrist_image_key", default="observation.images.image2", help=f"the wrist camera's, {keys}")
    parser.add_argument("--spec", type=spec_argument(TrainSpec), required=True, help="the option's spec (JSON)")
    seed = whole_number(0, MAX_SEED)
    parser.add_argument("--seed", type=seed, required=True, help="seeds the weights, the data order and the flow noise")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--training_dir", type=Path, help="folder of trainings in progress (next to the output)")
    parser.add_argument("--suite", help="whose tasks will be evaluated; changes no weights")
    tasks = "tasks that will be evaluated, to check that they were demonstrated (none)"
    parser.add_argument("--evaluated", type=whole_number(0), nargs="*", default=[], help=tasks)
    for field in (field for field in dataclasses.fields(Running) if isinstance(field.default, int)):
        text = f"how it runs, not what it makes ({field.default})"
        number = whole_number(1 if field.name == "save_every" else 0)
        parser.add_argument(f"--{field.name}", type=number, default=field.default, help=text)
    parsed = parser.parse_args(arguments)
    parsed.training_dir = parsed.training_dir or parsed.output.with_name(f".{parsed.output.name}.training")
    return parsed


def _check_image_keys(arguments: argparse.Namespace) -> None:
    """Check that the flags people vary by hand agree with the spec."""
    spec = arguments.spec
    wanted = [spec.image_keys[camera] for camera in spec.cameras]
    if arguments.image_key != wanted:
        raise InputError(f"--image_key {arguments.image_key}: option {spec.option} is trained on {wanted}")
    if arguments.wrist_image_key != spec.image_keys["wrist"]:
        raise InputError(f"--wrist_image_key {arguments.wrist_image_key}: the spec says {spec.image_keys['wrist']}")


def main() -> None:
    arguments = parse_arguments()
    _check_image_keys(arguments)
    inputs = TrainInputs(arguments.dataset, arguments.vlm, arguments.encoder, dict(arguments.latents), arguments.policy)
    running = Running(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Running)})
    roles = {"dataset": inputs.dataset, "vlm": inputs.vlm, "encoder": inputs.encoder, "policy": inputs.policy}
    roles |= {f"latents_{camera}": path for camera, path in inputs.latents.items()}
    seeds = {"train": arguments.seed}
    foreign = ("dataset", "vlm", "encoder", "policy")
    with making(arguments.output, __file__, roles, arguments.spec, seeds, foreign) as checkpoint:
        state = train(arguments.spec, inputs, arguments.seed, checkpoint, arguments.training_dir, running)
    remove_state(state)


if __name__ == "__main__":
    program.run(main)
