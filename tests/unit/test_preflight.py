"""The preflight: what it finds on this machine, and how it reports what is wrong."""

import runpy
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from world_modality.errors import InputError
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import Repository
from world_modality.preflight import (
    check_demonstrations,
    check_disk,
    check_gpu,
    check_memory,
    check_processors,
    check_rendering,
    copy_gb,
    inspect,
)


def test_every_check_runs_whatever_the_others_found():
    def broken():
        raise RuntimeError("libEGL is missing")

    found = list(inspect({"a": lambda: "fine", "b": broken, "c": lambda: "fine too"}))
    assert found == [("a", True, "fine"), ("b", False, "libEGL is missing"), ("c", True, "fine too")]


def test_a_missing_gpu_is_reported(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="sees no GPU"):
        check_gpu()


def test_more_than_one_visible_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(InputError, match="2 GPUs are visible: a job uses one"):
        check_gpu()


def test_too_little_of_anything_is_reported_with_both_numbers(tmp_path, monkeypatch):
    disk = shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    with pytest.raises(InputError, match=r"1 GB free in .*, 7 GB are needed"):
        check_disk({tmp_path: 7})
    with pytest.raises(InputError, match=r"MiB by the machine, 1000000000 MiB are needed"):
        check_memory(10**9)
    with pytest.raises(InputError, match=r"processors, 10000 are needed"):
        check_processors(10_000)


def test_folders_on_the_same_file_system_share_its_room(tmp_path, monkeypatch):
    disk = shutil.disk_usage(tmp_path)._replace(free=9 * 10**9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: disk)
    results, cache = tmp_path / "results", tmp_path / "cache"
    both = f"9 GB free in {results} and {cache}"
    assert check_disk({results: 4, cache: 5}) == f"{both}, 9 GB are needed"
    with pytest.raises(InputError, match=f"{both}, 10 GB are needed; Snakemake's --directory .* HF_DATASETS_CACHE "):
        check_disk({results: 4, cache: 6})
    elsewhere = SimpleNamespace(st_dev=-1, st_mode=tmp_path.stat().st_mode)
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: elsewhere if self == cache else stat(self, **how))
    assert check_disk({results: 4, cache: 6}) == (
        f"9 GB free in {results}, 4 GB are needed; 9 GB free in {cache}, 6 GB are needed"
    )


def test_an_arrow_copy_takes_the_room_of_the_data(tmp_path):
    for name, size in {"data/chunk-000/a.parquet": 3, "data/chunk-001/b.parquet": 2, "videos/c.mp4": 9}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        with (tmp_path / name).open("wb") as file:
            file.truncate(size * 10**9 + 1)  # sparse
    assert copy_gb(tmp_path) == 6


def test_the_scheduler_s_grant_is_checked_as_well(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "300")
    with pytest.raises(InputError, match="300 MiB by the scheduler, 400 MiB are needed"):
        check_memory(400)


def test_rendering_is_tried_for_real():
    settings = load_experiment(default_config()).simulation
    assert check_rendering(settings).startswith(("egl: two images of 64 px", "osmesa: two images of 64 px"))


# ---- demonstrations -------------------------------------------------------------------------------------------------


def test_demonstrations_are_held_to_their_contract_and_must_show_the_evaluated_tasks(folder):
    found = check_demonstrations(folder / "dataset", "libero_spatial", [0, 1])
    assert found == f"3 episodes, 15 frames, 2 tasks in {folder / 'dataset'}"
    with pytest.raises(InputError, match="dataset: no demonstration of libero_spatial task 2, 'pick up the black bowl"):
        check_demonstrations(folder / "dataset", "libero_spatial", [0, 2])


@pytest.fixture
def preflight(tmp_path, monkeypatch, capsys):
    """preflight(**FLAGS): run the program with caches of its own; returns its line about the demonstrations, say."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")

    def preflight(about="demonstrations", **flags):
        flags |= {"device": "cpu", "memory": 1, "processors": 1, "folder": tmp_path / "results", "disk": 0}
        flags |= {"suite": "libero_spatial", "evaluated": 0, "output": tmp_path / "found.txt"}
        words = [str(word) for name, value in flags.items() for word in (f"--{name}", value)]
        monkeypatch.setattr("sys.argv", ["preflight.py", *words])
        with suppress(SystemExit):
            runpy.run_path("scripts/preflight.py", run_name="__main__")
        (line,) = [line for line in capsys.readouterr().out.splitlines() if f" {about}: " in line]
        assert about == "disk" or ("  ok  " in line) == (tmp_path / "found.txt").is_file()
        return line

    return preflight


def test_the_program_checks_demonstrations_that_were_placed(folder, preflight):
    line = preflight(dataset=folder / "dataset")
    assert line.endswith(f"ok     demonstrations: 3 episodes, 15 frames, 2 tasks in {folder / 'dataset'}")


def test_room_for_an_arrow_copy_is_needed_only_if_trainings_keep_no_frames_in_memory(folder, preflight, tmp_path):
    assert str(tmp_path / "arrow") not in preflight(about="disk", dataset=folder / "dataset", cache_frames=1)
    assert str(tmp_path / "arrow") in preflight(about="disk", dataset=folder / "dataset", cache_frames=0)


def test_the_program_refuses_demonstrations_that_break_their_contract(folder, preflight, tmp_path):
    copy = shutil.copytree(folder / "dataset", tmp_path / "dataset")
    (copy / "meta/stats.json").unlink()
    assert "WRONG  demonstrations: dataset: meta/stats.json: has no statistics of " in preflight(dataset=copy)


def test_the_program_checks_demonstrations_that_were_fetched_and_leaves_no_copy(folder, preflight, publish, tmp_path):
    dataset, commit = folder / "dataset", "1" * 40
    files = {str(path.relative_to(dataset)): path.read_bytes() for path in dataset.rglob("*") if path.is_file()}
    publish(tmp_path / "hub", "dataset", "me/data", commit, files)
    repository = Repository(kind="dataset", repo_id="me/data", revision=commit, files=()).model_dump_json()
    assert "ok     demonstrations: 3 episodes, " in preflight(dataset=tmp_path / "none", repository=repository)
    assert not list((tmp_path / "arrow").rglob("*.arrow"))


def test_demonstrations_that_are_not_there_yet_are_no_fault(preflight, tmp_path):
    repository = Repository(kind="dataset", repo_id="me/data", revision="main", files=()).model_dump_json()
    line = preflight(dataset=tmp_path / "none", repository=repository)
    assert line.endswith("demonstrations: not there yet; the first job that opens them checks them")


def test_the_program_reports_everything_that_is_wrong_and_writes_nothing(tmp_path):
    output = tmp_path / "found.txt"
    asked = ["--device", "cpu", "--memory", "999999999", "--processors", "1", "--disk", "999999999"]
    command = [sys.executable, "scripts/preflight.py", *asked, "--folder", tmp_path, "--output", output]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.count("WRONG") == 2
    assert ended.stderr == "error: 2 of 3 checks failed\n"
    assert not output.exists()
