"""Decide: walk the decision tree to its end and say what the numbers are worth.

Reads `pickup.json` and the evaluations of every option in `run` and of those it scheduled; writes `decision.json`
(`world_modality.decision.Verdict`) and `decision.txt`, whose first line is the token. An unfair or incomplete
comparison writes nothing.
"""

import argparse
import sys
from pathlib import Path

from world_modality.comparison import ComparisonError, read_evaluation
from world_modality.decision import decide, read_pickup, read_spec
from world_modality.provenance import write_json, write_text
from world_modality.verdict import render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pickup", type=Path, required=True, help="pickup.json of the checkpoint")
    parser.add_argument("--evaluations", type=Path, nargs="+", required=True, help="eval_<option>_<task>.json files")
    parser.add_argument("--spec", required=True, help="DecisionSpec as JSON")
    parser.add_argument("--output-json", type=Path, required=True, help="decision.json to write")
    parser.add_argument("--output-text", type=Path, required=True, help="decision.txt to write")
    args = parser.parse_args()
    evaluations = [read_evaluation(path) for path in args.evaluations]
    verdict = decide(read_pickup(args.pickup), evaluations, read_spec(args.spec))
    write_json(args.output_json, verdict.as_json())
    write_text(args.output_text, render(verdict))


if __name__ == "__main__":
    try:
        main()
    except ComparisonError as error:
        sys.exit(f"decide: {error}")
