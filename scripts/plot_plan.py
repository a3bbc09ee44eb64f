"""Plot which GPU runs which stage when, and say what the budget left out.

Reads `plan.json`; writes one SVG for people, which no other stage reads.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.experiment.plan import Plan
from world_modality.experiment.sections import Figures
from world_modality.experiment.specs import spec_argument
from world_modality.program import existing, run
from world_modality.report.figures import plot_plan, save

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--plan", type=existing, required=True, help="plan.json")
parser.add_argument("--spec", type=spec_argument(Figures), required=True, help="the config's figures (JSON)")
parser.add_argument("--output", type=Path, required=True, help="figure to write (.svg)")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"plan": arguments.plan}, arguments.spec) as figure:
        save(plot_plan(Plan.read(arguments.plan), arguments.spec), figure)


if __name__ == "__main__":
    run(main)
