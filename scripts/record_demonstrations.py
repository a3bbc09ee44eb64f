"""Record the scripted expert's demonstrations of one task.

Reads the simulator; writes a LeRobotDataset folder with `recording.json` in it. One task a program, so that tasks are
recorded side by side.
"""

import argparse
from pathlib import Path

from world_modality.config import RecordSpec, spec_argument
from world_modality.demonstrations import record_task
from world_modality.provenance import atomic_path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--task", type=int, required=True, help="task id within the suite")
parser.add_argument("--spec", type=spec_argument(RecordSpec), required=True, help="what to record (JSON)")
parser.add_argument("--output", type=Path, required=True, help="folder to write")

if __name__ == "__main__":
    arguments = parser.parse_args()
    with atomic_path(arguments.output) as folder:
        record_task(arguments.task, arguments.spec, folder)
