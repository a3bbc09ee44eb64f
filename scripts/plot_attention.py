"""Plot where the options' attention goes: over the predicted frames, and in the course of an episode.

Reads `attention.json`; writes one SVG for people, which no other stage reads.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.examination.attention_patterns import read_report
from world_modality.experiment.sections import Figures
from world_modality.experiment.specs import spec_argument
from world_modality.program import existing, run
from world_modality.report.figures import plot_attention, save

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--attention", type=existing, required=True, help="attention.json")
parser.add_argument("--spec", type=spec_argument(Figures), required=True, help="the config's figures (JSON)")
parser.add_argument("--output", type=Path, required=True, help="figure to write (.svg)")


def main() -> None:
    arguments = parser.parse_args()
    with making(arguments.output, __file__, {"attention": arguments.attention}, arguments.spec) as figure:
        save(plot_attention(read_report(arguments.attention), arguments.spec), figure)


if __name__ == "__main__":
    run(main)
