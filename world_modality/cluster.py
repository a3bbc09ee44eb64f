"""Whether a SLURM cluster takes the jobs of a run, asked before the first one is submitted. Light (no torch).

Non-obvious behaviour of the executor plugin (2.6.1): it checks an account when it submits a job, in a thread whose
errors nobody reads. So with an account that is not the user's, Snakemake would wait for ever without a word. Here the
plugin's own check is made in time.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from world_modality.errors import InputError

ELSEWHERE = ("cluster", "clusters", "slurm_cluster")  # a job that sets one of these goes to another cluster


def check_cluster(jobs: Sequence[Mapping[str, Any]]) -> None:
    """Check that the user may use the accounts of some jobs, and that there are their partitions.

    Args:
        jobs: the resources of each job.

    Raises:
        InputError: an account is not the user's, nothing tells whose it is, or a partition does not exist.
    """
    for account in _names(jobs, "slurm_account"):
        _check_account(account)
    partitions = _names([job for job in jobs if not any(job.get(name) for name in ELSEWHERE)], "slurm_partition")
    known = _partitions() if partitions else set()
    for partition in partitions:
        if known and partition not in known:
            valid = ", ".join(sorted(known))
            raise InputError(f"slurm_partition {partition}: this cluster has no such partition; it has {valid}")


def _names(jobs: Sequence[Mapping[str, Any]], resource: str) -> list[str]:
    """What the jobs ask for; `sbatch` and the plugin also take several names, separated by commas."""
    asked = {str(job.get(resource) or "") for job in jobs}
    return sorted({name for names in asked for name in re.split(r"[,\s]+", names) if name})


def _check_account(account: str) -> None:
    from snakemake_executor_plugin_slurm.accounts import test_account  # heavy, and only a run on a cluster needs it
    from snakemake_interface_common.exceptions import WorkflowError

    try:
        test_account(account, logging.getLogger(__name__))
    except (WorkflowError, OSError) as error:
        raise InputError(f"slurm_account {account}: {' '.join(str(error).split())}") from None


def _partitions() -> set[str]:
    """All partitions of the cluster, hidden ones included; none if SLURM does not say."""
    try:
        answer = subprocess.run(["sinfo", "-a", "-h", "-o", "%R"], capture_output=True, text=True, check=False)
    except OSError:
        return set()
    return set(answer.stdout.split())
