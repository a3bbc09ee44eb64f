"""Write `config.schema.json`, which tells editors the keys of `config.yaml`; `--check` says whether it is current.

Reads the model of the experiment (`world_modality.config`); writes the schema beside `config.yaml`.
"""

import argparse
import json
import sys
from pathlib import Path

from world_modality.config import Experiment

SCHEMA = Path(__file__).parent.parent / "config.schema.json"


def schema_text() -> str:
    return json.dumps(Experiment.model_json_schema(), indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the file is out of date")
    arguments = parser.parse_args()
    if not arguments.check:
        SCHEMA.write_text(schema_text(), encoding="utf-8")
    elif not SCHEMA.exists() or SCHEMA.read_text(encoding="utf-8") != schema_text():
        print(f"{SCHEMA.name} is not what world_modality/config.py says: run {Path(__file__).name}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
