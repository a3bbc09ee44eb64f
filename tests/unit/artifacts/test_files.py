"""Files come into being whole or not at all, whoever is killed while writing them."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from world_modality.artifacts import files
from world_modality.artifacts.files import atomic_path, file_sha256, read_json, tree_sha256, write_json
from world_modality.errors import InputError

REPOSITORY = Path(__file__).parents[3]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    final = tmp_path / "artifact.json"
    write_json(final, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(final) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert read_json(final) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.json"]


def write_half(path, error):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize(
    ("free", "error"),
    [(0, RuntimeError("iostream error")), (2**30, OSError(28, "No space left on device")), (9, OSError(122, "Quota"))],
)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, free, error):
    """However the library that writes reports it."""
    path = tmp_path / "file.txt"
    path.write_text("old")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(InputError, match=rf"^{tmp_path}: no space left on its disk; file\.txt was not written$"):
        write_half(path, error)
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_another_error_on_a_disk_with_room_stays_what_it_is(tmp_path):
    with pytest.raises(KeyError), atomic_path(tmp_path / "file.txt"):
        raise KeyError("a fault of ours")


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "results").write_text("a file, where a folder should be")
    path = tmp_path / "results" / "file.txt"
    with (
        pytest.raises(InputError, match=r"results/file\.txt: cannot be written \(Not a directory\)"),
        atomic_path(path),
    ):
        pass


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


def test_a_link_to_a_folder_is_not_passed_over(tmp_path):
    for name in ("folder", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "folder" / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="folder/linked: a link to a folder, whose files no hash would cover"):
        tree_sha256(tmp_path / "folder")


# ---- each file is hashed once ---------------------------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch):
    """What was hashed so far; a file is settled after a tenth of a second."""
    names = []
    digest = hashlib.file_digest
    monkeypatch.setattr(files.hashlib, "file_digest", lambda file, name: names.append(file.name) or digest(file, name))
    monkeypatch.setattr(files, "SETTLED", 100_000_000)
    return names


def written(path, text):
    path.write_text(text)
    time.sleep(0.15)
    return path


def test_a_file_is_hashed_once(hashed, tmp_path):
    path = written(tmp_path / "file", "content")
    assert file_sha256(path) == file_sha256(str(path)) == files.text_sha256("content")
    tree_sha256(tmp_path)
    assert len(hashed) == 1


def test_a_file_written_a_moment_ago_is_hashed_again(hashed, tmp_path):
    (tmp_path / "file").write_text("content")
    file_sha256(tmp_path / "file")
    file_sha256(tmp_path / "file")
    assert len(hashed) == 2


def rewritten_in_place(path):
    path.write_text("CONTENT")


def replaced_by_a_file_of_its_times(path):
    other = path.with_name("other")
    other.write_text("CONTENT")
    shutil.copystat(path, other)
    other.replace(path)


@pytest.mark.parametrize("change", [rewritten_in_place, replaced_by_a_file_of_its_times])
def test_a_change_that_keeps_size_and_time_of_modification_is_seen(hashed, tmp_path, change):
    path = written(tmp_path / "file", "content")
    file_sha256(path)
    before = path.stat()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert file_sha256(path) == files.text_sha256("CONTENT")


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(hashed, tmp_path, monkeypatch):
    path = written(tmp_path / "file", "content")
    digest = files.hashlib.file_digest

    def disturbed(file, name):
        path.write_text("CONTENT")
        return digest(file, name)

    monkeypatch.setattr(files.hashlib, "file_digest", disturbed)
    file_sha256(path)
    monkeypatch.setattr(files.hashlib, "file_digest", digest)
    path.write_text("another")
    assert file_sha256(path) == files.text_sha256("another")


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
