"""Remove Snakemake's lock on this folder if no Snakemake is running in it any more.

Reads `.snakemake/locks` and the processes of this machine. A killed Snakemake leaves its lock behind, and the next run
would refuse to start. `make decision` calls this first, so that the same command works after a kill.
"""

import sys
from pathlib import Path

from world_modality.errors import InputError
from world_modality.program import run

PROCESSES = Path("/proc")


def running_snakemake(owners: set[int]) -> int | None:
    """Id of a process that runs Snakemake in the current folder, or may do so as far as we are allowed to see.

    Args:
        owners: ids of the users who own the lock. If we cannot see in which folder a Snakemake runs, it counts as
            running here only if it belongs to one of them.
    """
    for process in PROCESSES.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if any(Path(word).name == "snakemake" for word in command) and _works_here(process, owners):
                return int(process.name)
        except (FileNotFoundError, ProcessLookupError):  # it ended while we were looking
            continue
    return None


def _works_here(process: Path, owners: set[int]) -> bool:
    try:
        return (process / "cwd").samefile(Path.cwd())
    except PermissionError:
        return _user(process) in owners


def _user(process: Path) -> int:
    """Who runs a process; its folder in /proc may belong to root instead."""
    status = (process / "status").read_text(errors="replace")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:"))


def main() -> None:
    locks = list(Path(".snakemake/locks").glob("*.lock"))
    if not locks:
        return
    process = running_snakemake({lock.stat().st_uid for lock in locks})
    if process is not None:
        raise InputError(f"{Path.cwd()}: Snakemake is already running here (process {process}); wait for it or stop it")
    print("the last run was killed: removing its lock and continuing from what is finished", file=sys.stderr)
    for lock in locks:  # like `snakemake --unlock`, but that needs a readable Snakefile
        lock.unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
