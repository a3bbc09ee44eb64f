"""Take the demonstrations from the hub instead of recording them.

Reads a dataset by id at a pinned commit; writes the LeRobotDataset folder the later stages read.
"""

import argparse
import shutil
from pathlib import Path

from huggingface_hub import snapshot_download

from world_modality.dataset import load_dataset
from world_modality.program import run
from world_modality.provenance import making

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--repo_id", required=True, help="dataset id on the hub")
parser.add_argument("--revision", required=True, help="commit the dataset is pinned to")
parser.add_argument("--output", type=Path, required=True, help="folder to write")


def main() -> None:
    arguments = parser.parse_args()
    spec = {"repo_id": arguments.repo_id, "revision": arguments.revision}
    with making(arguments.output, __file__, {"hub": arguments.repo_id}, spec) as folder:
        snapshot_download(
            arguments.repo_id, repo_type="dataset", revision=arguments.revision, local_dir=folder, max_workers=8
        )
        shutil.rmtree(folder / ".cache")  # the hub client's own notes, with times in them
        load_dataset(folder)


if __name__ == "__main__":
    run(main)
