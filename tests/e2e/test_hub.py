"""Dataset, encoder, VLM and policy from a hub's cache, without the hub, at smoke scale; the dataset holds videos.

`test_one_command.py` fetches them from a hub, with a dataset of images.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lerobot.datasets.dataset_tools import convert_image_to_video_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from world_modality.artifacts.files import read_json
from world_modality.artifacts.provenance import read_provenance

SMOKE = Path(__file__).parents[2] / "experiments" / "smoke.yaml"
COMMIT, LATER = "1" * 40, "2" * 40
SECTIONS = ("demonstrations", "encoder", "vlm", "policy")


@pytest.fixture(scope="module")
def dataset(smoke, tmp_path_factory):
    """The demonstrations as videos, a form in which people publish datasets."""
    folder = tmp_path_factory.mktemp("videos") / "dataset"
    images = LeRobotDataset("me/demonstrations", smoke / "results/dataset")
    convert_image_to_video_dataset(images, folder, "me/demonstrations", num_workers=1)
    return folder


@pytest.fixture(scope="module")
def snakemake(dataset, smoke, publish, as_published, clone_to, environment, tmp_path_factory):
    """snakemake(*TARGETS) in its own clone and folder, with a hub that exists only in its client's cache."""
    folder = tmp_path_factory.mktemp("hub").resolve()
    clone, cache = clone_to(folder / "clone"), folder / "cache"
    overlay = folder / "hub.yaml"
    sources = {section: {"source": "hub", "repo_id": f"me/{section}", "revision": "main"} for section in SECTIONS}
    overlay.write_text(yaml.safe_dump(sources))
    for (kind, repo_id), files in as_published(smoke / "results", dataset).items():
        publish(cache, kind, repo_id, COMMIT, files)

    def snakemake(*targets):
        command = [Path(sys.executable).with_name("snakemake"), "--snakefile", clone / "Snakefile", "--cores", "2"]
        command += ["--directory", folder / "run", "--configfile", SMOKE, overlay, "--", *targets]
        hub = environment | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=hub)
        text = ended.stdout + ended.stderr
        assert ended.returncode == 0, text[-8000:]
        return text

    snakemake.folder, snakemake.cache, snakemake.clone = folder, cache, clone
    (folder / "run").mkdir()
    return snakemake


@pytest.fixture(scope="module")
def fetched(snakemake):
    snakemake("fetch")
    return yaml.safe_load((snakemake.clone / "experiments/commits.yaml").read_text())["commits"]


@pytest.fixture(scope="module")
def evaluated(snakemake, fetched):
    """The results of an option with a world modality, trained from the published policy and rolled out."""
    snakemake("results/eval_E2_0.json")
    return snakemake.folder / "run/results"


def test_fetching_pins_each_repository_to_a_commit(fetched):
    assert fetched == {f"me/{section}@main": COMMIT for section in SECTIONS}


def test_what_is_placed_is_what_was_published(evaluated, dataset, smoke, files_of):
    assert files_of(evaluated / "dataset") == files_of(dataset)
    assert files_of(evaluated / "encoder") == files_of(smoke / "results/encoder")
    assert read_json(evaluated / "vlm/config.json") == read_json(smoke / "results/vlm/config.json")
    assert (evaluated / "dataset/videos").is_dir()


def test_a_training_starts_from_the_published_policy_and_records_it(evaluated):
    made = read_provenance(evaluated / "ckpt_E2/seed_0")
    inputs = {ingredient.role: ingredient for ingredient in made.inputs}
    assert inputs["policy"].sha256 == read_provenance(evaluated / "policy").content_sha256


def test_the_trained_option_has_the_processors_of_the_published_policy(evaluated):
    name = "policy_preprocessor_step_5_normalizer_processor.safetensors"
    assert (evaluated / "ckpt_E2/seed_0" / name).read_bytes() == (evaluated / "policy" / name).read_bytes()


def test_the_trained_option_is_rolled_out(evaluated):
    assert len(read_json(evaluated / "eval_E2_0.json")["episodes"]) == 2


def test_a_new_commit_on_the_hub_changes_nothing(evaluated, snakemake, publish):
    publish(snakemake.cache, "model", "me/policy", LATER, {"config.json": b"{}"})
    snakemake("fetch")
    assert "Nothing to be done" in snakemake("results/eval_E2_0.json")


def test_the_cache_is_not_modified(evaluated, snakemake):
    for blob in snakemake.cache.rglob("blobs/*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
