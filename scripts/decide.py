"""Decide: walk the decision tree to its end and say what the numbers are worth.

Reads `pickup.json`, `plan.json`, `fairness.json`, the evaluations of every option in `run` and of those scheduled, the
look at which each of their comparisons stopped, and how well their Prophets predict. Writes `decision.json`
(`decision.tree.Verdict`) and `decision.txt`, whose first line is the token. If the comparison is unfair or incomplete,
it writes nothing.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import write_json, write_text
from world_modality.artifacts.provenance import making
from world_modality.artifacts.records import read_content
from world_modality.decision.evaluations import read_evaluation
from world_modality.decision.looks import Look
from world_modality.decision.tree import Pickup, decide
from world_modality.examination.foresight import read_foresight
from world_modality.experiment.plan import Plan
from world_modality.experiment.specs import DecisionSpec, spec_argument
from world_modality.program import existing, run
from world_modality.report.decision_text import render

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--pickup", type=existing, required=True, help="pickup.json of the checkpoint")
parser.add_argument("--plan", type=existing, required=True, help="plan.json of the checkpoint")
parser.add_argument("--fairness", type=existing, required=True, help="fairness.json of the audit")
parser.add_argument("--looks", type=existing, nargs="+", required=True, help="the last look of each comparison")
parser.add_argument("--evaluations", type=existing, nargs="+", required=True, help="eval_<option>_<task>.json files")
parser.add_argument("--foresights", type=existing, nargs="*", default=[], help="prophet_<option>.json files")
parser.add_argument("--spec", type=spec_argument(DecisionSpec), required=True, help="roles, thresholds, labels (JSON)")
parser.add_argument("--output-json", type=Path, required=True, help="decision.json to write")
parser.add_argument("--output-text", type=Path, required=True, help="decision.txt to write")


def main() -> None:
    arguments = parser.parse_args()
    inputs = {name: getattr(arguments, name) for name in ("pickup", "plan", "fairness", "looks", "evaluations")}
    inputs |= {"foresights": arguments.foresights} if arguments.foresights else {}
    with making(arguments.output_json, __file__, inputs, arguments.spec) as output:
        evaluations = [read_evaluation(path) for path in arguments.evaluations]
        foresights = [read_foresight(path) for path in arguments.foresights]
        pickup, plan = Pickup.read(arguments.pickup), Plan.read(arguments.plan)
        looks = [Look.read(path) for path in arguments.looks]
        fairness = read_content(arguments.fairness)
        verdict = decide(pickup, plan, looks, evaluations, arguments.spec, fairness, foresights)
        write_json(output, verdict.as_json())
    write_text(arguments.output_text, render(verdict))


if __name__ == "__main__":
    run(main)
