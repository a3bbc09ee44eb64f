"""Pretrain the small V-JEPA 2 on the demonstrations of all cameras, by masked latent prediction.

Reads a V-JEPA 2 folder and a LeRobotDataset; writes a V-JEPA 2 folder of the same format, with `pretraining.json`
next to the weights. It is a separate program so that the untrained encoder remains an artifact to compare with.
"""

import argparse
import dataclasses
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.dataset import load_dataset
from world_modality.experiment.sections import MAX_SEED
from world_modality.latents.pretraining import Pretraining, pretrain
from world_modality.program import existing, run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--encoder", required=True, type=existing, help="V-JEPA 2 folder to start from")
parser.add_argument("--dataset", required=True, help="LeRobotDataset: hub id or folder")
parser.add_argument("--image_keys", required=True, nargs="+", help="cameras to learn from")
parser.add_argument("--temporal_window", type=whole_number(1), default=4, help="frames in one window (4)")
parser.add_argument("--held_out", required=True, type=whole_number(1), help="last episodes of each task, never seen")
parser.add_argument("--steps", required=True, type=whole_number(1), help="number of updates")
parser.add_argument("--batch_size", type=whole_number(1), default=32, help="windows per update (32)")
parser.add_argument("--seed", type=whole_number(0, MAX_SEED), default=0, help="of windows, masks and the predictor (0)")
parser.add_argument("--output", required=True, type=Path, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    spec = Pretraining(
        steps=arguments.steps,
        held_out_per_task=arguments.held_out,
        window=arguments.temporal_window,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )
    inputs = {"encoder": arguments.encoder, "dataset": arguments.dataset}
    settings = dataclasses.asdict(spec) | {"image_keys": arguments.image_keys}
    with making(arguments.output, __file__, inputs, settings, {"pretraining": spec.seed}, foreign=inputs) as folder:
        pretrain(arguments.encoder, load_dataset(arguments.dataset), arguments.image_keys, spec, folder)


if __name__ == "__main__":
    run(main)
