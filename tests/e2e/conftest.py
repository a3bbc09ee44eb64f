"""What a smoke experiment made, as other people publish it; and clones whose pins a test may write."""

import json
import shutil
from pathlib import Path

import pytest

from world_modality.artifacts.files import read_json
from world_modality.artifacts.records import NOT_CONTENT

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def files_of():
    """files_of(FOLDER): {name: bytes}, without what the pipeline added."""

    def files_of(folder):
        paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in NOT_CONTENT]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths}

    return files_of


@pytest.fixture(scope="session")
def as_published(files_of):
    """as_published(RESULTS, DATASET): {(kind, repo_id): {name: bytes}}, by section `me/<section>`."""

    def as_published(results, dataset):
        config = read_json(results / "vlm/config.json")
        config["dtype"] = config["text_config"]["dtype"] = "bfloat16"  # on a hub, the config names a precision
        return {
            ("dataset", "me/demonstrations"): files_of(dataset),
            ("model", "me/encoder"): files_of(results / "encoder"),
            ("model", "me/vlm"): files_of(results / "vlm") | {"config.json": json.dumps(config).encode()},
            ("model", "me/policy"): files_of(results / "ckpt_E0/seed_0"),
        }

    return as_published


@pytest.fixture(scope="session")
def clone_to():
    """clone_to(FOLDER): a copy of the repository, without a pin."""

    def clone_to(folder):
        ignored = shutil.ignore_patterns(".*", "results", "runs", "logs", "out")
        shutil.copytree(REPOSITORY, folder, ignore=ignored)
        (folder / "experiments/commits.yaml").write_text("# Why these.\ncommits: {}\n")
        return folder

    return clone_to
