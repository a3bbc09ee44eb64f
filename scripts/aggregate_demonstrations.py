"""Join the recordings of all tasks into one LeRobotDataset.

Reads the folders of `record_demonstrations.py`; writes one LeRobotDataset folder, joined by LeRobot itself, with the
recordings' `recording.json` merged into one. Training needs one dataset, but recording writes one folder per task.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.demonstrations import aggregate_tasks
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--parts", type=existing, nargs="+", required=True, help="recordings, in the order of the episodes")
parser.add_argument("--output", type=Path, required=True, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"parts": arguments.parts}) as folder:
        aggregate_tasks(arguments.parts, folder)


if __name__ == "__main__":
    run(main)
