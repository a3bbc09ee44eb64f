"""A SLURM cluster on this machine, and jobs on it."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("cluster.sh")


def slurm(*command):
    """What one of SLURM's programs prints."""
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{' '.join(run.args)}: {run.stderr}"
    return run.stdout.strip()


@dataclass(frozen=True)
class Job:
    id: str
    log: Path

    @property
    def state(self):
        """As accounting has it, without who cancelled it (`CANCELLED by 0`)."""
        return next(iter(slurm("sacct", "-X", "-n", "-P", "-j", self.id, "-o", "State").split()), "UNKNOWN")

    @property
    def output(self):
        return self.log.read_text() if self.log.exists() else ""

    def until(self, *states, within=90):
        """Wait for one of these states and return it; fails, with the job's output, if none is reached in time."""
        self._until(lambda: self.state in states, within, " or ".join(states))
        return self.state

    def until_it_says(self, text, within=90):
        self._until(lambda: text in self.output, within, f"saying {text!r}")

    def cancel(self):
        slurm("scancel", self.id)

    def _until(self, happened, within, what):
        limit = time.monotonic() + within
        while not happened():
            assert time.monotonic() < limit, f"job {self.id} is {self.state}, not {what}. It said:\n{self.output}"
            time.sleep(0.3)


@pytest.fixture(scope="session")
def cluster():
    """The cluster, up; it is taken down again unless it was up before."""
    was_up = subprocess.run([SCRIPT, "status"], capture_output=True, check=False).returncode == 0
    subprocess.run([SCRIPT, "up"], check=True)
    yield slurm
    if not was_up:
        subprocess.run([SCRIPT, "down"], check=True)


@pytest.fixture(scope="session")
def submit(cluster, tmp_path_factory):
    """submit(SHELL COMMAND, *SBATCH OPTIONS) -> Job"""
    folder = tmp_path_factory.mktemp("jobs")

    def submit(command, *options):
        defaults = ["--account=test", "--mem=200", "--time=5", f"--output={folder}/%j.log", "--open-mode=append"]
        job = slurm("sbatch", "--parsable", *defaults, *options, f"--wrap={command}")
        return Job(job, folder / f"{job}.log")

    return submit
