"""Whether a cluster takes the jobs of a run is known before one is submitted; else Snakemake waits for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from world_modality.cluster import check_cluster
from world_modality.errors import InputError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """slurm(PROGRAM=SHELL COMMAND, ...): SLURM's programs, as far as there are any."""

    def install(**programs):
        for name, command in programs.items():
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{command}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return install


def job(account, partition, **more):
    return {"slurm_account": account, "slurm_partition": partition, **more}


HERE = {"sacctmgr": "echo ' mine'; echo ' ours'", "sinfo": "echo cpu; echo gpu"}


def test_the_accounts_of_the_user_and_the_partitions_of_the_cluster_are_accepted(slurm):
    slurm(**HERE)
    check_cluster([job("mine", "cpu"), job("mine,ours", "cpu,gpu"), {}])


def test_another_account_or_partition_is_refused_in_one_line_with_those_that_are_valid(slurm):
    slurm(**HERE)
    with pytest.raises(InputError, match=r"^slurm_account test: .*test.* Available accounts: (mine, ours|ours, mine)$"):
        check_cluster([job("test", "cpu")])
    with pytest.raises(InputError, match=r"^slurm_partition big: this cluster has no such partition; it has cpu, gpu$"):
        check_cluster([job("mine", "cpu"), job("mine", "big")])


def test_the_partitions_of_another_cluster_are_left_to_it(slurm):
    slurm(**HERE)
    check_cluster([job("mine", "big", slurm_cluster="next_door")])


def test_a_cluster_that_knows_no_accounts_and_does_not_list_its_partitions_is_left_to_sbatch(slurm):
    slurm(sacctmgr="true", sshare="true", sinfo="exit 1")
    check_cluster([job("test", "cpu")])


def test_what_the_plugin_would_die_of_without_a_word_is_reported(slurm):
    """Where nothing tells whose an account is, the plugin submits no job and says nothing."""
    slurm(sacctmgr="echo no accounting >&2; exit 1", sshare="echo none here >&2; exit 1", sinfo="echo cpu")
    with pytest.raises(InputError, match=r"^slurm_account test: .*no accounting.*none here"):
        check_cluster([job("test", "cpu")])


def test_a_run_with_a_foreign_account_ends_before_it_submits_a_job(slurm, tmp_path):
    slurm(**HERE)
    command = [Path(sys.executable).with_name("snakemake"), "--profile", "slurm", "--directory", tmp_path]
    command += ["--configfile", "experiments/smoke.yaml", "--", "preflight"]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("error: slurm_account test: ")
    assert not (tmp_path / "logs/slurm").exists()
