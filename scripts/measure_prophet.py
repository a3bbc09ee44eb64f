"""Measure how well the trained Prophets of one option predict held-out episodes.

Reads a checkpoint per training seed, the latents they were trained on and the dataset; writes `prophet_<option>.json`:
the cosine of prediction and truth by camera and frames ahead, and for comparison those of the last latent and of the
mean change.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import making
from world_modality.data.dataset import load_dataset
from world_modality.examination.prophet_quality import measure_foresight, read_checkpoints
from world_modality.latents.table import LatentTable, join_tables
from world_modality.program import existing, run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoints", type=existing, nargs="+", required=True, help="folder of each training seed")
parser.add_argument("--latents", type=existing, nargs="+", required=True, help="tables, in the order of the cameras")
parser.add_argument("--dataset", type=existing, required=True, help="LeRobotDataset folder")
parser.add_argument("--held_out", type=whole_number(1), required=True, help="last ones of each task, not trained on")
parser.add_argument("--output", type=Path, required=True, help="prophet_<option>.json to write")


def main() -> None:
    arguments = parser.parse_args()
    read_checkpoints(arguments.checkpoints)  # before the latents load, which takes long
    inputs = {"checkpoints": arguments.checkpoints, "latents": arguments.latents, "dataset": arguments.dataset}
    with making(arguments.output, __file__, inputs, {"held_out": arguments.held_out}, foreign=("dataset",)) as output:
        latents = join_tables([LatentTable.open(path) for path in arguments.latents])
        dataset = load_dataset(arguments.dataset)
        write_json(output, measure_foresight(arguments.checkpoints, latents, dataset, arguments.held_out).as_json())


if __name__ == "__main__":
    run(main)
