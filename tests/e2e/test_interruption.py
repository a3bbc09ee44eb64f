"""A run that is killed at any moment goes on with the same command, and ends as if nothing had happened."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from world_modality.artifacts.files import read_json
from world_modality.report.lineage import verify

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"
KILLS = ("job", "snakemake", "tree") * 4
PATIENCE = 600  # seconds a run may take; the test fails if it takes longer


def at_work(directory):
    """Processes that run in a folder, Snakemake and the programs of its rules."""
    found = []
    for process in psutil.process_iter():
        try:
            here = process.cwd() == str(directory) and process.status() != psutil.STATUS_ZOMBIE
            if here and process.pid != os.getpid():
                found.append(process)
        except psutil.Error:
            continue
    return found


def is_program(process):
    try:
        return any("world_modality" in word or "/scripts/" in word for word in process.cmdline()[1:3])
    except psutil.Error:
        return False


def go_on(command, directory, environment):
    """What `make decision` does, in a session of its own."""
    subprocess.run([sys.executable, REPOSITORY / "scripts/tools/clear_stale_lock.py"], cwd=directory, check=True)
    log = (directory / "run.log").open("a")
    return subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log, start_new_session=True)


def finished_jobs(directory):
    log = directory / "run.log"
    return log.read_text().count("Finished jobid") if log.exists() else 0


def kill(kind, run, directory, draw):
    """kill -9 of a program, of Snakemake, or of all at once."""
    if kind == "snakemake":
        run.kill()
    elif kind == "tree":
        for process in at_work(directory):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself
                process.kill()
    else:
        programs = []
        while run.poll() is None and not programs:
            programs = [process for process in at_work(directory) if is_program(process)]
        with contextlib.suppress(psutil.NoSuchProcess, IndexError):
            draw.choice(programs).kill()


def wait_until_quiet(directory, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not at_work(directory):
            return
        time.sleep(0.1)
    left = [(p.pid, p.cmdline()) for p in at_work(directory)]
    raise AssertionError(f"still running: {left}")


def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(
    smoke, smoke_command, tmp_path_factory, environment, monkeypatch
):
    directory = tmp_path_factory.mktemp("killed").resolve()
    command = smoke_command(directory, "all")
    monkeypatch.chdir(directory)
    draw = random.Random(20)
    interrupted = 0
    moments = sorted(draw.sample(range(24), len(KILLS)))  # after this many of the 34 jobs and up to 6 seconds
    for kind, jobs in zip(KILLS, moments, strict=True):
        run = go_on(command, directory, environment)
        while finished_jobs(directory) < jobs and run.poll() is None:
            time.sleep(0.05)
        deadline = time.monotonic() + draw.uniform(0, 6)
        while time.monotonic() < deadline and run.poll() is None:
            time.sleep(0.05)
        if run.poll() is None:
            kill(kind, run, directory, draw)
            interrupted += 1
        run.wait(PATIENCE)  # after a program is killed, Snakemake lets the other one finish
        wait_until_quiet(directory, seconds=15)
        if Path("results").is_dir() and any(Path("results").glob("[!.]*")):
            assert [p for _, problems in verify("results") for p in problems] == []
    assert interrupted >= 10
    assert go_on(command, directory, environment).wait(PATIENCE) == 0, Path("run.log").read_text()[-5000:]

    for name in ("decision.txt", "decision.json", "ckpt_E2/manifest.json", "ckpt_A/manifest.json"):
        assert Path("results", name).read_bytes() == (smoke / "results" / name).read_bytes(), name
    for block in (smoke / "results/rollouts").rglob("*.jsonl"):
        assert Path(block.relative_to(smoke)).read_bytes() == block.read_bytes(), block
    assert not list(Path("results").rglob("*.partial"))
    assert not Path("results/.training").exists() or not list(Path("results/.training").rglob("state.pt"))


def test_a_training_killed_at_random_moments_ends_with_the_same_weights(smoke, tmp_path, environment):
    print_spec = [sys.executable, REPOSITORY / "scripts/tools/print_spec.py", "train", "E2", "--configfile", SMOKE]
    spec = subprocess.run(print_spec, capture_output=True, text=True, check=True).stdout
    spec = spec.replace('"steps":12', '"steps":100')
    key = read_json(smoke / "results/ckpt_E2/seed_0/training.json")["spec"]["image_keys"]["front"]

    def train(name):
        command = [sys.executable, "-m", "world_modality.train_llm_vla", "--dataset", "results/dataset"]
        command += ["--vlm", "results/vlm", "--encoder", "results/encoder", "--image_key", key]
        command += ["--latents", "front=results/latents_front.parquet", "--seed", "0", "--spec", spec]
        command += ["--save_every", "3", "--output", tmp_path / name]
        return subprocess.Popen(command, cwd=smoke, env=environment, stderr=subprocess.PIPE, text=True)

    undisturbed = train("undisturbed")
    draw, kills, state = random.Random(3), 0, tmp_path / ".killed.training"
    for _ in range(4):
        run, seen = train("killed"), newest(state)
        while run.poll() is None and newest(state) == seen:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 1.5))
        if not (tmp_path / "killed").exists():
            run.send_signal(signal.SIGKILL)
            kills += 1
        run.wait(PATIENCE)
    run = train("killed")
    assert run.wait(PATIENCE) == 0, run.stderr.read()
    assert undisturbed.wait(PATIENCE) == 0, undisturbed.stderr.read()
    assert kills >= 3
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("undisturbed", "killed")]
    assert weights[0] == weights[1]


def newest(folder):
    return max((os.stat(path).st_mtime_ns for path in folder.rglob("state.pt")), default=0)


@pytest.mark.parametrize("left", ["", "a lock"])
def test_the_lock_of_a_killed_run_is_removed_but_not_that_of_a_running_one(tmp_path, left):
    locks = tmp_path / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    if left:
        (locks / "0.input.lock").write_text("results/decision.txt\n")
    sleeper = tmp_path / "snakemake"
    sleeper.write_text("#!/bin/sh\nsleep 60\n")
    sleeper.chmod(0o755)
    command = [sys.executable, REPOSITORY / "scripts/tools/clear_stale_lock.py"]
    living = subprocess.Popen([sleeper], cwd=tmp_path)
    try:
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    finally:
        living.kill()
    assert bool(ended.returncode) == bool(left)
    assert ("Snakemake is already running here" in ended.stderr) == bool(left)
