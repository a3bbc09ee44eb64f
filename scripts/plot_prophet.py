"""Plot how well the Prophets of one or several options predict held-out episodes, by frames ahead.

Reads a `prophet_<option>.json` per option; writes one SVG for people, which no other stage reads.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.examination.foresight import read_foresight
from world_modality.experiment.sections import Figures
from world_modality.experiment.specs import spec_argument
from world_modality.program import existing, run
from world_modality.report.figures import plot_prophet, save

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--foresights", type=existing, nargs="+", required=True, help="prophet_<option>.json files")
parser.add_argument("--spec", type=spec_argument(Figures), required=True, help="the config's figures (JSON)")
parser.add_argument("--output", type=Path, required=True, help="figure to write (.svg)")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"foresights": arguments.foresights}, arguments.spec) as figure:
        save(plot_prophet([read_foresight(path) for path in arguments.foresights], arguments.spec), figure)


if __name__ == "__main__":
    run(main)
