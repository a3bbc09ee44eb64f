"""Show what an artifact was made from, back to the demonstrations.

    python scripts/tools/show_provenance.py results/eval_E2_0.json
    python scripts/tools/show_provenance.py results/ckpt_E2/seed_0/model.safetensors --full

Reads the records inside the artifacts; writes to the standard output. It marks an input that is gone, or was rebuilt
with other content. It does not check for damage; `verify_results.py` does.
"""

import argparse
import dataclasses
from pathlib import Path

from world_modality.artifacts.files import json_text
from world_modality.artifacts.provenance import read_provenance
from world_modality.program import run
from world_modality.report.lineage import Ancestor, described_by, walk

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("artifact", type=Path, metavar="FILE", help="an artifact, or a file in one")
parser.add_argument("--full", action="store_true", help="print its whole record as JSON: spec, source, versions")


def main() -> None:
    arguments = parser.parse_args()
    if arguments.full:
        print(json_text(dataclasses.asdict(read_provenance(described_by(arguments.artifact)))), end="")
        return
    for step in walk(arguments.artifact):
        print(line(step))


def line(step: Ancestor) -> str:
    ingredient, record = step.ingredient, step.record
    parts = [f"{ingredient.role}: {ingredient.path}" if ingredient.role else ingredient.path]
    parts += [f"content {ingredient.sha256[:12]}"] if ingredient.sha256 else []
    if record:
        parts.append(f"by {record.program}")
        parts += [f"{name} seed {seed}" for name, seed in record.seeds.items()]
    parts += [f"({step.note})"] if step.note else []
    return "  " * step.depth + "  ".join(parts)


if __name__ == "__main__":
    run(main)
