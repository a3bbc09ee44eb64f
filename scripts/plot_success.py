"""Plot the success rate of every option on every task, with Wilson intervals.

Reads `decision.json`; writes one SVG for people, which no other stage reads.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.decision.tree import Verdict
from world_modality.experiment.sections import Figures
from world_modality.experiment.specs import spec_argument
from world_modality.program import existing, run
from world_modality.report.figures import plot_success, save

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--decision", type=existing, required=True, help="decision.json")
parser.add_argument("--spec", type=spec_argument(Figures), required=True, help="the config's figures (JSON)")
parser.add_argument("--output", type=Path, required=True, help="figure to write (.svg)")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"decision": arguments.decision}, arguments.spec) as figure:
        save(plot_success(Verdict.read(arguments.decision), arguments.spec), figure)


if __name__ == "__main__":
    run(main)
