"""What is taken from a hub, out of a cache laid out as the hub's client does it; nothing here needs a network."""

import json
import os
import runpy
import subprocess
import sys

import httpx
import pytest

from world_modality.data.hub import fetch, locate, place
from world_modality.errors import InputError
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import Repository

OLD, NEW = "a" * 40, "b" * 40


def repository(revision="main", kind="model", files=(), repo_id="me/policy"):
    return Repository(kind=kind, repo_id=repo_id, revision=revision, files=files)


@pytest.mark.usefixtures("hub_cache")
def test_placing_a_dataset_leaves_no_arrow_copy(folder, publish, tmp_path, monkeypatch):
    """Nobody opens the half-made folder again, and a copy is as large as the data."""
    dataset = folder / "dataset"
    files = {str(path.relative_to(dataset)): path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    publish(tmp_path / "hub", "dataset", "me/data", OLD, files)
    wanted = repository(OLD, "dataset", repo_id="me/data").model_dump_json()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setattr("sys.argv", ["place_repository.py", "--spec", wanted, "--output", str(tmp_path / "dataset")])
    runpy.run_path("scripts/place_repository.py", run_name="__main__")
    assert (tmp_path / "dataset/meta/info.json").is_file()
    assert not list((tmp_path / "arrow").rglob("*.arrow"))


def test_a_placed_repository_holds_its_files_and_nothing_of_the_cache(hub_cache, tmp_path):
    hub_cache(
        "model",
        "me/policy",
        OLD,
        {"config.json": "{}", "a/b.json": "[]", ".gitattributes": "lfs", "provenance.json": "{}"},
    )
    place(repository(OLD), tmp_path / "placed")
    files = {str(p.relative_to(tmp_path / "placed")): p for p in (tmp_path / "placed").rglob("*") if p.is_file()}
    assert set(files) == {"config.json", "a/b.json"}
    assert not any(path.is_symlink() for path in files.values())
    assert files["a/b.json"].read_text() == "[]"


def test_a_placed_vlm_says_no_precision_and_the_cache_keeps_what_it_said(hub_cache, tmp_path):
    config = {"model_type": "smolvlm", "dtype": "bfloat16", "text_config": {"torch_dtype": "bfloat16", "num_layers": 2}}
    hub_cache("model", "me/vlm", OLD, {"config.json": json.dumps(config)})
    place(repository(OLD, repo_id="me/vlm"), tmp_path / "placed")
    placed = json.loads((tmp_path / "placed" / "config.json").read_text())
    assert placed == {"model_type": "smolvlm", "text_config": {"num_layers": 2}}
    assert json.loads((fetch(repository(OLD, repo_id="me/vlm")) / "config.json").read_text()) == config


def test_another_model_s_config_stays_as_it_is(hub_cache, tmp_path):
    config = {"model_type": "vjepa2", "torch_dtype": "float32"}
    hub_cache("model", "me/encoder", OLD, {"config.json": json.dumps(config)})
    place(repository(OLD, repo_id="me/encoder"), tmp_path / "placed")
    assert json.loads((tmp_path / "placed" / "config.json").read_text()) == config


def test_what_is_not_in_the_cache_is_named_with_what_to_do(hub_cache, tmp_path):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    for wrong in (repository(NEW), repository(repo_id="me/other"), repository(kind="dataset")):
        with pytest.raises(InputError, match=rf"{wrong.kind} {wrong.name}: not in the hub's cache.*snakemake fetch"):
            fetch(wrong)
    assert not (tmp_path / "placed").exists()


@pytest.mark.parametrize("revision", ["main", OLD])
def test_a_fetch_that_was_interrupted_is_named_by_what_it_lacks(hub_cache, tmp_path, revision):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}", "a.safetensors": "a", "b.safetensors": "b"})
    snapshot = tmp_path / "hub/models--me--policy/snapshots" / OLD
    (snapshot / "a.safetensors").unlink()
    os.remove(os.path.realpath(snapshot / "b.safetensors"))  # a link to nothing
    with pytest.raises(InputError, match=r"not in the hub's cache.*a\.safetensors, b\.safetensors") as refused:
        fetch(repository(revision))
    assert len(str(refused.value).splitlines()) == 1
    assert fetch(repository(OLD, files=("*.json",))) == snapshot


@pytest.mark.parametrize("revision", ["main", OLD])
def test_a_cache_without_the_list_of_the_commit_s_files_is_not_taken_for_whole(hub_cache, tmp_path, revision):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    (tmp_path / f"hub/models--me--policy/trees/{OLD}.json").unlink()
    with pytest.raises(InputError, match=r"not in the hub's cache.*offline.*snakemake fetch"):
        fetch(repository(revision))


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(hub_cache, monkeypatch):
    def unreachable(*_, **__):
        raise httpx.ConnectError("no route to host")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_tree", unreachable)
    with pytest.raises(InputError, match=r"not in the hub's cache.*no route to host"):
        fetch(repository(OLD))


def test_a_placed_repository_holds_the_wanted_files_alone_whatever_else_the_cache_has(hub_cache, tmp_path):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}", "model.safetensors": "", "onnx/model.onnx": "large"})
    place(repository(OLD, files=("*.json", "*.safetensors")), tmp_path / "placed")
    assert {p.name for p in (tmp_path / "placed").rglob("*")} == {"config.json", "model.safetensors"}
    with pytest.raises(InputError, match=r"no files \*\.bin"):
        place(repository(OLD, files=("*.bin",)), tmp_path / "none")


@pytest.mark.parametrize("revision", ["main", OLD])
def test_what_the_cache_holds_as_a_whole_is_located_without_the_hub(hub_cache, revision):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    assert locate(repository(revision)) == OLD


@pytest.mark.parametrize("revision", ["main", OLD])
@pytest.mark.parametrize("lacking", ["snapshots/{}/config.json", "trees/{}.json"])
def test_without_the_hub_nothing_is_located_that_could_not_be_fetched(hub_cache, tmp_path, revision, lacking):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}", "b.json": "{}"})
    (tmp_path / "hub/models--me--policy" / lacking.format(OLD)).unlink()
    with pytest.raises(InputError, match=rf"^model me/policy@{revision}: not in the hub's cache.*snakemake fetch"):
        locate(repository(revision))


def test_a_hub_that_is_out_of_reach_is_told_by_its_cause(hub_cache):
    with pytest.raises(InputError, match=r"hub \(Cannot reach \S+/api/models/me/policy/revision/main: offline"):
        locate(repository())


def full(commits=None):
    config = default_config()
    config["policy"] |= {"source": "hub", "repo_id": "me/policy", "revision": "main"}
    return load_experiment(config | {"commits": commits or {}})


def test_the_experiment_takes_a_branch_at_its_pinned_commit():
    assert full({"me/policy@main": OLD}).repository("policy").revision == OLD
    assert full().repository("policy").revision == "main"


def test_a_list_of_pins_whose_last_line_was_deleted_is_empty():
    assert load_experiment(default_config() | {"commits": None}).commits == {}


def test_a_branch_that_is_not_pinned_is_not_placed(tmp_path):
    command = [sys.executable, "scripts/place_repository.py", "--spec", repository().model_dump_json()]
    ended = subprocess.run([*command, "--output", tmp_path / "policy"], capture_output=True, text=True, check=False)
    assert ended.stderr == (
        "error: me/policy@main: pinned to no commit; `snakemake fetch` pins it in experiments/commits.yaml\n"
    )
