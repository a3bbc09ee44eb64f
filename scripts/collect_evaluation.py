"""Join the blocks of rollouts of one option and task into its evaluation.

Reads the blocks and the option's manifest; writes `results/eval_<option>_<task>.json`, which also says where the videos
are, or will be. Refuses an episode of another checkpoint or under another protocol.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.evaluation.episodes import collect_evaluation
from world_modality.experiment.specs import EvaluationSpec, spec_argument
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--task", type=int, required=True, help="task id within the suite")
parser.add_argument("--manifest", type=existing, required=True)
parser.add_argument("--blocks", type=existing, nargs="+", required=True)
parser.add_argument("--videos", type=Path, required=True, help="folder of the task's videos, which need not exist yet")
parser.add_argument("--spec", type=spec_argument(EvaluationSpec), required=True, help="rollout and episodes (JSON)")
parser.add_argument("--output", type=Path, required=True)


def main() -> None:
    arguments = parser.parse_args()
    inputs = {"manifest": arguments.manifest, "blocks": arguments.blocks}
    spec = {"evaluation": arguments.spec.model_dump(mode="json"), "task": arguments.task}
    with making(arguments.output, __file__, inputs, spec) as evaluation:
        collect_evaluation(
            arguments.spec, arguments.task, arguments.manifest, arguments.blocks, arguments.videos, evaluation
        )


if __name__ == "__main__":
    run(main)
