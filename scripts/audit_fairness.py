"""Audit the fairness of the comparison: do the trained artifacts differ only in what defines each option?

Reads the checkpoints and evaluations of every option that the decision compares; writes `fairness.json`, which lists
how each option differs and what all share. If anything else differs, the audit fails and names it, and nothing is
decided.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import making
from world_modality.decision.evaluations import read_evaluation
from world_modality.decision.fairness import audit
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoints", type=existing, nargs="+", required=True, help="folder of each option and seed")
parser.add_argument("--evaluations", type=existing, nargs="+", required=True, help="eval_<option>_<task>.json files")
parser.add_argument("--baseline", required=True, help="option without a world modality")
parser.add_argument("--world", required=True, help="option that the other world options are compared with as well")
parser.add_argument("--output", type=Path, required=True, help="fairness.json to write")


def main() -> None:
    arguments = parser.parse_args()
    inputs = {"checkpoints": arguments.checkpoints, "evaluations": arguments.evaluations}
    spec = {"baseline": arguments.baseline, "world": arguments.world}
    with making(arguments.output, __file__, inputs, spec) as output:
        evaluations = [read_evaluation(path) for path in arguments.evaluations]
        write_json(output, audit(arguments.checkpoints, evaluations, arguments.baseline, arguments.world))


if __name__ == "__main__":
    run(main)
