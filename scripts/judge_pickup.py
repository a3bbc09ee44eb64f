"""Judge the pickup tasks: which branch of the decision tree is taken, and which options run next.

Reads the look at which the comparison of E2 with E0 stopped, and nothing else. Writes `pickup.json`
(`decision.tree.Pickup`), from which Snakemake's checkpoint learns what is left to do, and `plan.json`
(`experiment.plan.Plan`), which explains the choice: what fits the budget, what does not, and when each stage runs.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import making
from world_modality.decision.looks import Look
from world_modality.decision.tree import judge_pickup, plan_branch
from world_modality.experiment.specs import JudgeSpec, spec_argument
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--look", type=existing, required=True, help="the look that decides the branch")
parser.add_argument("--spec", type=spec_argument(JudgeSpec), required=True, help="the tree, budget and costs (JSON)")
parser.add_argument("--output", type=Path, required=True, help="pickup.json to write")
parser.add_argument("--output-plan", type=Path, required=True, help="plan.json to write")


def main() -> None:
    arguments = parser.parse_args()
    record = (__file__, {"look": arguments.look}, arguments.spec)
    with making(arguments.output, *record) as verdict, making(arguments.output_plan, *record) as planned:
        pickup = judge_pickup(Look.read(arguments.look), arguments.spec)
        plan = plan_branch(pickup.branch, arguments.spec)
        write_json(verdict, pickup.as_json())
        write_json(planned, plan.as_json())
    print("\n".join(plan.summary()))


if __name__ == "__main__":
    run(main)
