"""Probe encoders: how well their latents locate gripper and objects, compared with raw pixels.

    python scripts/probe_encoder.py --dataset results/dataset --objects results/object_positions.parquet \
        --encoders untrained=results/encoder_untrained pretrained=results/encoder \
        --image_keys front=observation.images.image wrist=observation.images.image2 \
        --held_out 6 --output results/probe.json

Reads a LeRobotDataset, V-JEPA 2 folders and, if there is one, the table of `replay_demonstrations.py`; writes all
numbers as JSON, and prints a table for people to read. It needs no policy, so an encoder can be judged before any
policy is trained.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import making
from world_modality.data.dataset import dataset_fingerprint, load_dataset
from world_modality.data.positions import read_positions
from world_modality.latents.probe import probe_encoders, render
from world_modality.program import existing, run, whole_number


def named(text: str) -> tuple[str, str]:
    """An argparse type: NAME=VALUE."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, value


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", required=True, help="LeRobotDataset: hub id or folder")
parser.add_argument("--encoders", required=True, nargs="+", type=named, help="V-JEPA 2 folders (NAME=FOLDER)")
parser.add_argument("--image_keys", required=True, nargs="+", type=named, help="cameras (CAMERA=KEY)")
parser.add_argument("--objects", type=existing, help="table of object positions (none: only the gripper is probed)")
parser.add_argument("--temporal_window", type=whole_number(1), default=4, help="frames in one window (4)")
parser.add_argument("--held_out", required=True, type=whole_number(1), help="last episodes of each task to judge on")
parser.add_argument("--output", type=Path, required=True, help="probe.json to write")


def main() -> None:
    arguments = parser.parse_args()
    encoders, cameras = dict(arguments.encoders), dict(arguments.image_keys)
    inputs = {"dataset": arguments.dataset, "objects": arguments.objects, "encoders": list(encoders.values())}
    spec = {"window": arguments.temporal_window, "held_out": arguments.held_out, "cameras": cameras}
    spec |= {"encoders": list(encoders)}
    with making(arguments.output, __file__, inputs, spec, foreign=("dataset", "encoders")) as output:
        dataset = load_dataset(arguments.dataset)
        fingerprint = dataset_fingerprint(dataset)
        objects = read_positions(arguments.objects, fingerprint) if arguments.objects else None
        report = probe_encoders(dataset, cameras, encoders, arguments.temporal_window, arguments.held_out, objects)
        write_json(output, report)
    print(render(report), end="")


if __name__ == "__main__":
    run(main)
