"""Which commit an experiment takes of a branch: where it was first found, written down, and kept."""

import os
import subprocess
import sys

import pytest
import yaml

from world_modality.data import pins
from world_modality.data.pins import pin
from world_modality.errors import InputError
from world_modality.experiment.sections import Repository

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def commits(tmp_path):
    path = tmp_path / "commits.yaml"
    path.write_text("# Why these.\ncommits: {}\n")
    return path


def repository(revision="main", kind="model", files=(), repo_id="me/policy"):
    return Repository(kind=kind, repo_id=repo_id, revision=revision, files=files)


def test_a_branch_is_pinned_to_the_commit_it_is_found_at(hub_cache, commits):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    hub_cache("dataset", "me/demonstrations", NEW, {"meta/info.json": "{}"})
    pin([repository(), repository(kind="dataset", repo_id="me/demonstrations")], commits)
    assert yaml.safe_load(commits.read_text()) == {
        "commits": {"me/policy@main": OLD, "me/demonstrations@main": NEW},
    }
    assert commits.read_text().startswith("# Why these.\n")


def test_what_is_pinned_stays_so_when_the_branch_moves(hub_cache, commits):
    hub_cache("model", "me/policy", OLD, {"config.json": "old"})
    pin([repository()], commits)
    before = commits.read_text()
    hub_cache("model", "me/policy", NEW, {"config.json": "new"})
    assert pin([repository()], commits) == {"me/policy@main": OLD}
    assert commits.read_text() == before


def test_a_commit_needs_no_pin(hub_cache, commits):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    before = commits.read_text()
    pin([repository(OLD)], commits)
    assert commits.read_text() == before


def test_nothing_is_pinned_if_anything_cannot_be_fetched(hub_cache, commits):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    before = commits.read_text()
    with pytest.raises(InputError, match="model me/missing@main"):
        pin([repository(), repository(repo_id="me/missing")], commits)
    assert commits.read_text() == before


def test_what_another_run_has_pinned_meanwhile_counts(hub_cache, commits, monkeypatch):
    hub_cache("model", "me/policy", NEW, {"config.json": "{}"})
    hub_cache("model", "me/vlm", NEW, {"config.json": "{}"})
    found = pins.locate

    def locate(repository):
        commits.write_text(yaml.safe_dump({"commits": {"me/policy@main": OLD}}))
        return found(repository)

    monkeypatch.setattr(pins, "locate", locate)
    both = {"me/policy@main": OLD, "me/vlm@main": NEW}
    assert pin([repository(), repository(repo_id="me/vlm")], commits) == both
    assert yaml.safe_load(commits.read_text())["commits"] == both


def test_where_every_line_was_deleted_it_is_pinned_anew(hub_cache, commits):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    commits.write_text("commits:\n")
    assert pin([repository()], commits) == {"me/policy@main": OLD}


def test_in_a_checkout_that_cannot_be_written_the_error_says_what_an_overlay_needs(hub_cache, commits):
    hub_cache("model", "me/policy", OLD, {"config.json": "{}"})
    (commits.parent / ".commits.yaml.partial").touch()  # root may write anywhere
    with pytest.raises(InputError) as refused:
        pin([repository()], commits)
    message, _, overlay = str(refused.value).partition("; put ")
    assert message == f"{commits}: cannot be written (File exists)"
    assert yaml.safe_load(overlay.removesuffix(" into an overlay instead")) == {"commits": {"me/policy@main": OLD}}


def test_the_program_tells_an_unreachable_repository_in_one_line(tmp_path, commits):
    wanted = f"[{repository().model_dump_json()}]"
    command = [sys.executable, "scripts/fetch.py", "--repositories", wanted, "--commits", commits]
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "empty")}
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: model me/policy@main: not in the hub's cache")
    assert len(ended.stderr.splitlines()) == 1
