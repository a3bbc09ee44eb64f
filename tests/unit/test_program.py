"""A program dies with the run that started it, even while it is still importing its libraries."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def program(run_pids, code):
    environment = os.environ | {"RUN_PIDS": run_pids, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "code", ["import world_modality, time; time.sleep(600)", "import world_modality.train_llm_vla"]
)
def test_a_program_dies_with_its_run(code):
    run = subprocess.Popen(["sleep", "600"])
    started = program(f"{os.getpid()} {run.pid}", f"{code}; import time; time.sleep(600)")
    time.sleep(1)
    assert started.poll() is None
    run.kill()
    run.wait()
    _, said = started.communicate(timeout=60)
    assert started.returncode == -signal.SIGKILL
    assert "the run that started this program is gone" in said


@pytest.mark.parametrize("reader", ["stays", "is gone with the run"])
def test_a_program_with_something_to_save_is_asked_to_stop_before_it_is_killed(tmp_path, reader):
    run = subprocess.Popen(["sleep", "600"])
    code = f"""
import pathlib, time
from world_modality.program import stop, stop_requests
with stop_requests() as asked:
    pathlib.Path({str(tmp_path / "begun")!r}).touch()
    while not asked:
        time.sleep(0.01)
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
    stop(asked[0], "after it saved")
"""
    started = program(f"{os.getpid()} {run.pid}", code)
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    if reader != "stays":
        started.stderr.close()
    run.kill()
    run.wait()
    assert started.wait(timeout=60) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").exists()
    if reader == "stays":
        assert started.stderr.read().endswith("stopped by SIGTERM after it saved\n")
    started.stderr.close()


def test_a_program_started_by_hand_watches_nothing():
    started = program("", "import world_modality, threading; assert threading.active_count() == 1")
    assert started.wait(timeout=60) == 0


SLEEP = "import time, world_modality; time.sleep(600)"


def test_a_process_that_gets_the_id_of_a_dead_run_keeps_no_program_alive(tmp_path):
    """Once for a run that died before the watch began, and once for one that died later."""
    later = "import os, subprocess, time; time.sleep(0.1); cat = subprocess.Popen('cat', stdin=subprocess.PIPE)"
    assert program("", f"{later}; os.environ['RUN_PIDS'] = str(cat.pid); {SLEEP}").wait(60) == -signal.SIGKILL

    stat = Path("/proc/self/stat").read_text()  # stands in for the run's
    (tmp_path / "stat").write_text(stat)
    started = program(f"{os.getpid()} {tmp_path}", SLEEP)
    time.sleep(2)
    assert started.poll() is None
    before, _, fields = stat.rpartition(")")
    fields = fields.split()
    fields[19] = str(int(fields[19]) - 1)
    (tmp_path / "new").write_text(f"{before}) {' '.join(fields)}")
    (tmp_path / "new").rename(tmp_path / "stat")
    assert started.wait(timeout=60) == -signal.SIGKILL
