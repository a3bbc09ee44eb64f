"""Dataset, encoder, VLM and policy from a hub's cache, without the hub: what full scale does, at smoke scale."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from lerobot.datasets.dataset_tools import convert_image_to_video_dataset
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from world_modality.artifacts.files import read_json
from world_modality.artifacts.provenance import read_provenance
from world_modality.artifacts.records import NOT_CONTENT

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"
COMMIT, LATER = "1" * 40, "2" * 40
SECTIONS = ("demonstrations", "encoder", "vlm", "policy")


def files_of(folder):
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in NOT_CONTENT]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def as_published(vlm):
    """The VLM's files as on a hub: there, the config names a precision."""
    config = read_json(vlm / "config.json")
    config["dtype"] = config["text_config"]["dtype"] = "bfloat16"
    return files_of(vlm) | {"config.json": json.dumps(config).encode()}


@pytest.fixture(scope="module", params=["images", "videos"])
def dataset(request, smoke, tmp_path_factory):
    """A form in which people publish datasets, and the demonstrations in that form."""
    if request.param == "images":
        return request.param, smoke / "results/dataset"
    folder = tmp_path_factory.mktemp("videos") / "dataset"
    images = LeRobotDataset("me/demonstrations", smoke / "results/dataset")
    convert_image_to_video_dataset(images, folder, "me/demonstrations", num_workers=1)
    return request.param, folder


@pytest.fixture(scope="module")
def snakemake(dataset, smoke, publish, environment, tmp_path_factory):
    """snakemake(*TARGETS) in its own clone and folder, with a hub that exists only in its client's cache."""
    folder = tmp_path_factory.mktemp("hub").resolve()
    ignored = shutil.ignore_patterns(".*", "results", "runs", "logs", "out")
    clone = shutil.copytree(REPOSITORY, folder / "clone", ignore=ignored)
    overlay = folder / "hub.yaml"
    sources = {section: {"source": "hub", "repo_id": f"me/{section}", "revision": "main"} for section in SECTIONS}
    overlay.write_text(yaml.safe_dump(sources))
    cache, results = folder / "cache", smoke / "results"
    publish(cache, "dataset", "me/demonstrations", COMMIT, files_of(dataset[1]))
    publish(cache, "model", "me/encoder", COMMIT, files_of(results / "encoder"))
    publish(cache, "model", "me/vlm", COMMIT, as_published(results / "vlm"))
    publish(cache, "model", "me/policy", COMMIT, files_of(results / "ckpt_E0/seed_0"))

    def snakemake(*targets, well=True):
        command = [Path(sys.executable).with_name("snakemake"), "--snakefile", clone / "Snakefile", "--cores", "2"]
        command += ["--directory", folder / "run", "--configfile", SMOKE, overlay, "--", *targets]
        hub = environment | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=hub)
        text = ended.stdout + ended.stderr
        assert (ended.returncode == 0) == well, text[-8000:]
        return text

    snakemake.folder, snakemake.cache, snakemake.clone = folder, cache, clone
    (folder / "run").mkdir()
    return snakemake


@pytest.fixture(scope="module")
def unpinned(snakemake):
    """What Snakemake prints before anything was fetched."""
    return snakemake("results/policy", well=False)


@pytest.fixture(scope="module")
def fetched(snakemake, unpinned):
    snakemake("fetch")
    return yaml.safe_load((snakemake.clone / "experiments/commits.yaml").read_text())["commits"]


@pytest.fixture(scope="module")
def evaluated(snakemake, fetched):
    """The results of an option with a world modality, trained from the published policy and rolled out."""
    snakemake("results/eval_E2_0.json")
    return snakemake.folder / "run/results"


def test_what_is_not_pinned_is_refused_and_the_error_names_the_command_that_pins_it(unpinned):
    assert "policy.revision: me/policy@main is pinned to no commit; `snakemake fetch` pins it" in unpinned


def test_fetching_pins_each_repository_to_a_commit(fetched):
    assert fetched == {f"me/{section}@main": COMMIT for section in SECTIONS}


def test_what_is_placed_is_what_was_published(evaluated, dataset, smoke):
    assert files_of(evaluated / "dataset") == files_of(dataset[1])
    assert files_of(evaluated / "encoder") == files_of(smoke / "results/encoder")
    assert read_json(evaluated / "vlm/config.json") == read_json(smoke / "results/vlm/config.json")
    assert (dataset[0] == "videos") == (evaluated / "dataset/videos").is_dir()


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
