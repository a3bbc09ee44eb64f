"""Files come into being whole or not at all, whoever is killed while writing them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from world_modality.artifacts import files
from world_modality.artifacts.files import atomic_path, read_json, tree_sha256, write_json

REPOSITORY = Path(__file__).parents[3]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    final = tmp_path / "artifact.json"
    write_json(final, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(final) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert read_json(final) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.json"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    final = tmp_path / "folder"
    for name in ("first", "second"):
        with atomic_path(final) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [p.name for p in final.iterdir()] == ["second"]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "artifact"):
        pass


def test_truncated_json_is_refused_by_name(tmp_path):
    path = tmp_path / "eval.json"
    path.write_text('{"episodes": [')
    with pytest.raises(ValueError, match=r"eval\.json: not a whole JSON file"):
        read_json(path)


def test_not_a_number_never_reaches_a_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_tree_hash_sees_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    assert tree_sha256(tmp_path / "a") == tree_sha256(tmp_path / "b")
    (tmp_path / "b" / "file").rename(tmp_path / "b" / "other")
    assert tree_sha256(tmp_path / "a") != tree_sha256(tmp_path / "b")


def test_two_writers_of_one_artifact_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_PATIENCE", 0.1)
    with atomic_path(tmp_path / "artifact") as temporary:
        with (
            pytest.raises(ValueError, match="artifact: another process is writing it"),
            atomic_path(tmp_path / "artifact"),
        ):
            pass
        temporary.write_text("mine")
    assert (tmp_path / "artifact").read_text() == "mine"


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path):
    writer = "import os, signal, sys; from world_modality.artifacts.files import atomic_path\n"
    writer += "with atomic_path(sys.argv[1]) as p: p.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    killed = subprocess.run([sys.executable, "-c", writer, tmp_path / "artifact"], cwd=REPOSITORY, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "artifact").exists()
    with atomic_path(tmp_path / "artifact") as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("whole")
    assert [p.name for p in tmp_path.rglob("*")] == ["artifact", "file"]
