"""The preflight: what it finds on this machine, and how it reports what is wrong."""

import shutil
import subprocess
import sys

import pytest

from world_modality.errors import InputError
from world_modality.experiment.config import default_config, load_experiment
from world_modality.preflight import check_disk, check_gpu, check_memory, check_processors, check_rendering, inspect


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
        check_disk(tmp_path, 7)
    with pytest.raises(InputError, match=r"MiB by the machine, 1000000000 MiB are needed"):
        check_memory(10**9)
    with pytest.raises(InputError, match=r"processors, 10000 are needed"):
        check_processors(10_000)


def test_the_scheduler_s_grant_is_checked_as_well(monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "300")
    with pytest.raises(InputError, match="300 MiB by the scheduler, 400 MiB are needed"):
        check_memory(400)


def test_rendering_is_tried_for_real():
    settings = load_experiment(default_config()).simulation
    assert check_rendering(settings).startswith(("egl: two images of 64 px", "osmesa: two images of 64 px"))


def test_the_program_reports_everything_that_is_wrong_and_writes_nothing(tmp_path):
    output = tmp_path / "found.txt"
    asked = ["--device", "cpu", "--memory", "999999999", "--processors", "1", "--disk", "999999999"]
    command = [sys.executable, "scripts/preflight.py", *asked, "--folder", tmp_path, "--output", output]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.count("WRONG") == 2
    assert ended.stderr == "error: 2 of 3 checks failed\n"
    assert not output.exists()
