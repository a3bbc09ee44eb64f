"""Compare where the options' attention goes: does a world modality that predicts the wrist camera attend differently?

Reads the attention tables of several options, in training and at rollout; writes `attention.json`
(`world_modality.examination.attention_patterns.AttentionReport`) and `attention.txt` for people to read.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.files import write_json, write_text
from world_modality.artifacts.provenance import making
from world_modality.examination.attention import AttentionTable
from world_modality.examination.attention_patterns import compare
from world_modality.program import existing, run
from world_modality.report.attention_text import render

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument(
    "--tables", type=existing, nargs="+", required=True, help="attention_<train|rollout>_<option>.parquet"
)
parser.add_argument("--world", required=True, help="option that the wrist option is compared with")
parser.add_argument("--wrist", required=True, help="option whose world modality predicts the wrist camera")
parser.add_argument("--output-json", type=Path, required=True, help="attention.json to write")
parser.add_argument("--output-text", type=Path, required=True, help="attention.txt to write")


def main() -> None:
    arguments = parser.parse_args()
    spec = {"world": arguments.world, "wrist": arguments.wrist}
    with making(arguments.output_json, __file__, {"tables": arguments.tables}, spec) as output:
        report = compare(map(AttentionTable.open, arguments.tables), **spec)
        write_json(output, report.model_dump(mode="json"))
    write_text(arguments.output_text, render(report))


if __name__ == "__main__":
    run(main)
