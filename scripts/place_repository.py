"""Turn what was fetched from the hub into an artifact: a dataset, an encoder, a VLM or a policy, at a pinned commit.

Reads the hub client's cache (the hub itself only if the cache lacks something); writes the folder for later stages.
"""

import argparse
from pathlib import Path

from world_modality.artifacts.provenance import making
from world_modality.data.dataset import load_dataset
from world_modality.data.hub import place
from world_modality.experiment.sections import Repository
from world_modality.experiment.specs import spec_argument
from world_modality.program import run

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--spec", type=spec_argument(Repository), required=True, help="kind, id, commit and files (JSON)")
parser.add_argument("--output", type=Path, required=True, help="folder to write")


def main() -> None:
    repository, output = vars(parser.parse_args()).values()
    with making(output, __file__, {"hub": repository.repo_id}, repository) as folder:
        place(repository, folder)
        if repository.kind == "dataset":
            load_dataset(folder)


if __name__ == "__main__":
    run(main)
