"""Plot the success rate of every option on every task, with Wilson intervals.

Reads `decision.json`; writes one SVG or PNG for people, which no other stage reads.
"""

import argparse
from pathlib import Path

from world_modality.decision import Verdict
from world_modality.figures import plot_success, save
from world_modality.provenance import read_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decision", type=Path, required=True, help="decision.json")
    parser.add_argument("--output", type=Path, required=True, help="figure to write (.svg or .png)")
    args = parser.parse_args()
    save(plot_success(Verdict.model_validate(read_json(args.decision))), args.output)


if __name__ == "__main__":
    main()
