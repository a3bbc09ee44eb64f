"""Plot one of the figures that people look at; no other stage reads them.

Reads the artifact that the figure shows (`figures.FIGURES`), one per option for `prophet`; writes one SVG.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.experiment.sections import Figures
from world_modality.experiment.specs import spec_argument
from world_modality.program import existing, run
from world_modality.report.figures import FIGURES, draw, save

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--figure", choices=FIGURES, required=True)
parser.add_argument(
    "--data", type=existing, nargs="+", required=True, help="decision.json, plan.json, attention.json …"
)
parser.add_argument("--spec", type=spec_argument(Figures), required=True, help="the config's figures (JSON)")
parser.add_argument("--output", type=Path, required=True, help="figure to write (.svg)")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"data": arguments.data}, arguments.spec) as figure:
        save(draw(arguments.figure, arguments.data, arguments.spec), figure)


if __name__ == "__main__":
    run(main)
