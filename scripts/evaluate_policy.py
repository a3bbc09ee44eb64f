"""Roll out a checkpoint in closed loop from a block of initial states.

Reads a checkpoint (a LeRobot `pretrained_model`); writes one JSON line per episode, the actions taken, and the
attention paid to each predicted frame. An episode depends only on the policy, the task and the initial state, so blocks
may run anywhere and in any order.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.evaluation.blocks import BlockFiles, evaluate_block
from world_modality.evaluation.init_states import init_states
from world_modality.experiment.specs import RolloutSpec, spec_argument
from world_modality.program import existing, run, whole_number
from world_modality.training.checkpoint import folders_of

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoint", type=existing, required=True)
parser.add_argument("--task", type=int, required=True, help="task id within the suite")
parser.add_argument("--seed", type=whole_number(0), required=True, help="training seed of the checkpoint, to record")
parser.add_argument("--first", type=whole_number(0), required=True, help="first initial state of the block")
parser.add_argument("--count", type=whole_number(1), required=True, help="initial states in the block")
parser.add_argument("--init_states", type=existing, nargs="*", default=[], help="drawn ones (the benchmark's)")
parser.add_argument("--spec", type=spec_argument(RolloutSpec), required=True, help="protocol and option (JSON)")
parser.add_argument("--simulators", type=whole_number(1), default=1, help="run at the same time (1); changes no result")
parser.add_argument("--output", type=Path, required=True, help="episodes to write (.jsonl)")
parser.add_argument("--actions", type=Path, required=True, help="actions to write (.parquet)")
parser.add_argument("--attention", type=Path, required=True, help="attention table to write (.parquet)")


def main() -> None:
    arguments = parser.parse_args()
    block = range(arguments.first, arguments.first + arguments.count)
    spec = {"rollout": arguments.spec.model_dump(mode="json"), "task": arguments.task, "init_states": list(block)}
    inputs = {"checkpoint": arguments.checkpoint, **folders_of(arguments.checkpoint)}
    inputs |= {"init_states": arguments.init_states} if arguments.init_states else {}
    seeds, foreign = {"train": arguments.seed}, ("vlm", "encoder")
    record = (__file__, inputs, spec, seeds, foreign)
    with (
        making(arguments.output, *record) as episodes,
        making(arguments.actions, *record) as actions,
        making(arguments.attention, *record) as attention,
    ):
        states = init_states(arguments.spec.protocol.simulation, arguments.task, arguments.init_states)
        evaluate_block(
            arguments.checkpoint,
            arguments.spec,
            arguments.task,
            arguments.seed,
            block,
            states,
            BlockFiles(episodes, actions, attention),
            arguments.simulators,
        )


if __name__ == "__main__":
    run(main)
