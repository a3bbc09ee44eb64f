"""Measure where an option's attention goes on the frames it was trained on.

Reads the option's checkpoints of every training seed, the demonstrations and the latents of its world cameras; writes
`attention_train_<option>.parquet`: how much attention each predicted frame gets, on each training frame, in each
denoising step and head.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.examination.training_attention import measure_training_attention
from world_modality.program import existing, run, whole_number
from world_modality.training.checkpoint import folders_of

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoints", type=existing, nargs="+", required=True, help="one folder per training seed")
parser.add_argument("--dataset", type=existing, required=True, help="LeRobotDataset folder")
parser.add_argument("--latents", type=existing, nargs="+", required=True, help="a table for each world camera")
parser.add_argument("--frames", type=whole_number(1), default=256, help="training frames to measure on (256)")
parser.add_argument("--actions", type=whole_number(1), required=True, help="how many actions of a chunk are executed")
parser.add_argument("--batch_size", type=whole_number(1), default=32, help="frames per batch (32)")
parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (cpu)")
parser.add_argument("--output", type=Path, required=True, help="Parquet file to write")


def main() -> None:
    arguments = parser.parse_args()
    inputs = {name: getattr(arguments, name) for name in ("checkpoints", "dataset", "latents")}
    roles = inputs | {"vlm": folders_of(arguments.checkpoints[0]).get("vlm")}
    options = {name: getattr(arguments, name) for name in ("frames", "actions", "batch_size", "device")}
    with making(arguments.output, __file__, roles, options, foreign=("dataset", "vlm")) as table:
        measure_training_attention(**inputs, output=table, **options)


if __name__ == "__main__":
    run(main)
