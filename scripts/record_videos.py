"""Film an option's first success and first failure on a task.

Reads the blocks it was evaluated in with their actions, and repeats the two episodes. Writes a folder of mp4 files and
`films.json`, which says for each video whether it shows the episode as it was evaluated.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.evaluation.films import record_videos
from world_modality.evaluation.init_states import init_states
from world_modality.experiment.specs import RolloutSpec, spec_argument
from world_modality.program import existing, run, whole_number

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--task", type=int, required=True, help="task id within the suite")
parser.add_argument(
    "--blocks", type=existing, nargs="+", required=True, help="the first training seed's blocks of rollouts"
)
parser.add_argument("--actions", type=existing, nargs="+", required=True, help="those of each block, in the same order")
parser.add_argument("--init_states", type=existing, nargs="*", default=[], help="drawn ones (the benchmark's)")
parser.add_argument("--size", type=whole_number(1, 1024), required=True, help="side of the square video [px]")
parser.add_argument("--spec", type=spec_argument(RolloutSpec), required=True, help="protocol and option (JSON)")
parser.add_argument("--output", type=Path, required=True, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    inputs = {"blocks": arguments.blocks, "actions": arguments.actions}
    inputs |= {"init_states": arguments.init_states} if arguments.init_states else {}
    spec = {"rollout": arguments.spec.model_dump(mode="json"), "task": arguments.task, "size": arguments.size}
    with making(arguments.output, __file__, inputs, spec) as folder:
        states = init_states(arguments.spec.protocol.simulation, arguments.task, arguments.init_states)
        record_videos(
            arguments.spec, arguments.task, arguments.blocks, arguments.actions, states, arguments.size, folder
        )


if __name__ == "__main__":
    run(main)
