"""Judge the pickup tasks: which branch of the decision tree is taken, and which options run next.

Reads the evaluations of every option in `run` on the pickup tasks, and nothing else; writes `pickup.json`
(`world_modality.decision.Pickup`), from which Snakemake's checkpoint learns what is left to do.
"""

import argparse
from pathlib import Path

from world_modality.comparison import read_evaluation
from world_modality.decision import judge_pickup
from world_modality.files import write_json
from world_modality.program import existing, run
from world_modality.provenance import making
from world_modality.specs import JudgeSpec, spec_argument

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--evaluations", type=existing, nargs="+", required=True, help="eval_<option>_<task>.json files")
parser.add_argument("--spec", type=spec_argument(JudgeSpec), required=True, help="the tree's roles and choices (JSON)")
parser.add_argument("--output", type=Path, required=True, help="pickup.json to write")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"evaluations": arguments.evaluations}, arguments.spec) as output:
        pickup = judge_pickup([read_evaluation(path) for path in arguments.evaluations], arguments.spec)
        write_json(output, pickup.as_json())


if __name__ == "__main__":
    run(main)
