"""One finished smoke experiment for all end-to-end tests, and the command that makes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SMOKE = REPOSITORY / "experiments" / "smoke.yaml"


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
    """The folder of a finished smoke experiment, both branches of the tree included."""
    directory = tmp_path_factory.mktemp("smoke")
    run_smoke(directory, "all")
    return directory
