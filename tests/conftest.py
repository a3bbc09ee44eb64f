"""What every test runs under: one thread a process, no hub, no display; in CI a skipped test has failed.

And one finished smoke experiment for all that need one.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from world_modality.program import ROUNDING_VARIABLES

REPOSITORY = Path(__file__).parents[1]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"

# Before torch or MuJoCo is imported; a spinning OpenMP thread would take the core of another process.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "MUJOCO_GL": "egl", "HF_HUB_OFFLINE": "1"}
for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
for name in ROUNDING_VARIABLES:  # as the pipeline's programs do, with whose numbers tests compare theirs
    os.environ.pop(name, None)


def _fail_in_ci(report):
    if os.environ.get("CI", "").lower() == "true" and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as a failure where CI=true: {report.longrepr[-1]}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    return _fail_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    return _fail_in_ci((yield))


@pytest.fixture(scope="session")
def publish():
    """publish(cache, kind, repo_id, commit, {name: bytes}): what a hub's `main` is at, laid out as its client does."""

    def publish(cache, kind, repo_id, commit, files):
        folder = cache / f"{kind}s--{repo_id.replace('/', '--')}"
        for name, content in files.items():
            blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
            link = folder / "snapshots" / commit / name
            blob.parent.mkdir(parents=True, exist_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(content)
            link.symlink_to(os.path.relpath(blob, link.parent))
        listed = {name: {"size": len(content), "blob_id": "0" * 40} for name, content in files.items()}
        (folder / "trees").mkdir(exist_ok=True)
        (folder / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": listed}))
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / "main").write_text(commit)

    return publish


# ---- a finished experiment -------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def smoke_command():
    def command(directory, *targets, options=()):
        words = [Path(sys.executable).with_name("snakemake"), "--snakefile", REPOSITORY / "Snakefile"]
        words += ["--directory", directory, "--configfile", SMOKE, "--cores", "2"]
        return [*words, *options, "--", *targets]

    return command


@pytest.fixture(scope="session")
def environment():
    return {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}


@pytest.fixture(scope="session")
def run_smoke(environment, smoke_command):
    def run(directory, *targets, options=()):
        command = smoke_command(directory, *targets, options=options)
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-8000:]
        return ended.stdout + ended.stderr

    return run


@pytest.fixture(scope="session")
def smoke(tmp_path_factory, run_smoke):
    """A finished smoke experiment, both branches of the tree included, to do anything with.

    It is a copy of the one in $SMOKE, which tiers that run at the same time share: whoever comes first runs it.
    """
    shared = Path(os.environ.get("SMOKE") or tmp_path_factory.mktemp("shared") / "smoke")
    with FileLock(f"{shared}.lock"):
        run_smoke(shared, "all")
    return shutil.copytree(shared, tmp_path_factory.mktemp("smoke") / "smoke", symlinks=True)
