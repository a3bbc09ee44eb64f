"""Remove Snakemake's lock on this folder where no Snakemake is at work in it any more.

Reads `.snakemake/locks` and the processes of this machine. A killed Snakemake leaves its lock behind, and the next run
would refuse to start; `make decision` calls this first, so that the same command goes on after a kill.
"""

import subprocess
import sys
from pathlib import Path

from world_modality.errors import InputError
from world_modality.program import run

PROCESSES = Path("/proc")


def running_snakemake() -> int | None:
    """Id of a process that runs Snakemake in the present folder."""
    for process in PROCESSES.glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_text().split("\0")[:3]  # python [-m] snakemake
            if any(Path(word).name == "snakemake" for word in command) and (process / "cwd").samefile(Path.cwd()):
                return int(process.name)
        except OSError:  # it ended while we looked, or it is someone else's
            continue
    return None


def main() -> None:
    if not any(Path(".snakemake/locks").glob("*")):
        return
    process = running_snakemake()
    if process is not None:
        raise InputError(f"{Path.cwd()}: Snakemake is at work here already (process {process}); wait for it or stop it")
    print("the last run was killed: removing its lock and going on from what is finished", file=sys.stderr)
    subprocess.run([Path(sys.executable).with_name("snakemake"), "--unlock", "--quiet", "all"], check=True)


if __name__ == "__main__":
    run(main)
