"""Pin each branch or tag that the experiment takes from the hub to its current commit, and fetch everything.

Reads the hub; writes the commits that were not pinned yet, then fills the hub client's cache (`HF_HOME`). A run does
both by itself; this does them apart.
"""

import argparse
import json
from pathlib import Path

from world_modality.data.hub import at, fetch
from world_modality.data.pins import pin
from world_modality.experiment.sections import Repository
from world_modality.program import existing, run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--repositories", type=json.loads, required=True, help="kind, repo_id, revision and files of each")
parser.add_argument("--commits", type=existing, required=True, metavar="YAML", help="the file that pins them")


def main() -> None:
    arguments = parser.parse_args()
    repositories = [Repository.model_validate(repository) for repository in arguments.repositories]
    commits = pin(repositories, Path(arguments.commits))
    for repository in repositories:
        commit = commits.get(repository.name, repository.revision)
        fetch(at(repository, commit))
        print(f"{repository.name:60}  {commit}")
    if not repositories:
        print("this experiment takes nothing from the hub")


if __name__ == "__main__":
    run(main)
