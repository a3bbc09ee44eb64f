"""Fetch what the experiment takes from the hub, and pin each branch or tag to its current commit.

Reads the hub; fills the hub client's cache (`HF_HOME`) and writes the commits that were not pinned yet. Everything
later reads only the cache.
"""

import argparse
import json
from pathlib import Path

from world_modality.data.hub import pin
from world_modality.experiment.sections import Repository
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--repositories", type=json.loads, required=True, help="kind, repo_id, revision and files of each")
parser.add_argument("--commits", type=existing, required=True, metavar="YAML", help="the file that pins them")


def main() -> None:
    arguments = parser.parse_args()
    repositories = [Repository.model_validate(repository) for repository in arguments.repositories]
    for name, commit in pin(repositories, Path(arguments.commits)).items():
        print(f"{name:60}  {commit}")
    if not repositories:
        print("this experiment takes nothing from the hub")


if __name__ == "__main__":
    run(main)
