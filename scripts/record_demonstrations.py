"""Record the scripted expert's demonstrations of one task.

Reads the simulator; writes a LeRobotDataset folder with `recording.json` in it. It records only one task, so that tasks
can be recorded at the same time.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.demonstrations import record_task
from world_modality.experiment.specs import RecordSpec, spec_argument
from world_modality.program import run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--task", type=int, required=True, help="task id within the suite")
parser.add_argument("--spec", type=spec_argument(RecordSpec), required=True, help="what to record (JSON)")
parser.add_argument("--output", type=Path, required=True, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    spec = {"record": arguments.spec.model_dump(mode="json"), "task": arguments.task}
    seeds = {"first_reset": arguments.spec.seed}
    with making(arguments.output, __file__, {}, spec, seeds) as folder:
        record_task(arguments.task, arguments.spec, folder)


if __name__ == "__main__":
    run(main)
