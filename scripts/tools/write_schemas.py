"""Write the schemas of what people edit and read; `--check` says whether they are current.

Reads the models; writes `config.schema.json`, which tells editors the keys of `config.yaml`, and
`docs/decision.schema.json`, which says what each key of `results/decision.json` means.
"""

import argparse
import json
import sys
from pathlib import Path

from pydantic import BaseModel

from world_modality.decision.tree import Verdict
from world_modality.experiment.config import Experiment

REPOSITORY = Path(__file__).parents[2]
SCHEMAS = {REPOSITORY / "config.schema.json": Experiment, REPOSITORY / "docs" / "decision.schema.json": Verdict}


def schema_text(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    arguments = parser.parse_args()
    stale = [
        path
        for path, model in SCHEMAS.items()
        if not path.exists() or path.read_text(encoding="utf-8") != schema_text(model)
    ]
    for path in stale:
        if arguments.check:
            print(f"{path.relative_to(REPOSITORY)} is out of date: run {Path(__file__).name}", file=sys.stderr)
        else:
            path.write_text(schema_text(SCHEMAS[path]), encoding="utf-8")
    return int(bool(stale) and arguments.check)


if __name__ == "__main__":
    sys.exit(main())
