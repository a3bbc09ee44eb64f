"""Replay the demonstrations in the simulator to learn where the objects were in every frame.

Reads a recorded LeRobotDataset with its `recording.json`; writes a Parquet table of the bowl's and the plate's
positions. Refuses a replay whose states are not exactly the recorded ones. Nothing is rendered.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.positions import write_positions
from world_modality.data.replay import object_positions
from world_modality.program import existing, run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", required=True, type=existing, help="recorded LeRobotDataset")
parser.add_argument("--episodes", type=whole_number(1), help="replay only this many, the last of each task (all)")
parser.add_argument("--output", required=True, type=Path, help="Parquet file to write")


def main() -> None:
    arguments = parser.parse_args()
    spec = {"episodes": arguments.episodes}
    with making(arguments.output, __file__, {"dataset": arguments.dataset}, spec) as table:
        write_positions(object_positions(arguments.dataset, arguments.episodes), table)


if __name__ == "__main__":
    run(main)
