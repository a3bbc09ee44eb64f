"""Turn what the hub has into an artifact: a dataset, an encoder, a VLM or a policy, at a pinned commit.

Reads the hub client's cache, which it first fills with what it lacks; writes the folder for later stages.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.dataset import load_dataset
from world_modality.data.hub import place
from world_modality.errors import InputError
from world_modality.experiment.sections import Repository, is_commit
from world_modality.experiment.specs import spec_argument
from world_modality.program import run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--spec", type=spec_argument(Repository), required=True, help="kind, id, commit and files (JSON)")
parser.add_argument("--output", type=Path, required=True, help="folder to write")


def main() -> None:
    repository, output = vars(parser.parse_args()).values()
    if not is_commit(repository.revision):
        raise InputError(
            f"{repository.name}: pinned to no commit; `snakemake fetch` pins it in experiments/commits.yaml"
        )
    with making(output, __file__, {"hub": repository.repo_id}, repository) as folder:
        place(repository, folder)
        if repository.kind == "dataset":
            load_dataset(folder)


if __name__ == "__main__":
    run(main)
