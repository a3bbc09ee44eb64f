"""Judge the pickup tasks: which branch of the decision tree is taken, and which options run next.

Reads the evaluations of every option in `run` on the pickup tasks, and nothing else; writes `pickup.json`
(`world_modality.decision.Pickup`), from which Snakemake's checkpoint learns what is left to do.
"""

import argparse
import sys
from pathlib import Path

from world_modality.comparison import ComparisonError, read_evaluation
from world_modality.decision import judge_pickup, read_spec
from world_modality.provenance import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=Path, nargs="+", required=True, help="eval_<option>_<task>.json files")
    parser.add_argument("--spec", required=True, help="DecisionSpec as JSON")
    parser.add_argument("--output", type=Path, required=True, help="pickup.json to write")
    args = parser.parse_args()
    pickup = judge_pickup([read_evaluation(path) for path in args.evaluations], read_spec(args.spec))
    write_json(args.output, pickup.as_json())


if __name__ == "__main__":
    try:
        main()
    except ComparisonError as error:
        sys.exit(f"judge_pickup: {error}")
