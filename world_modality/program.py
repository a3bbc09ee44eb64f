"""What every program of the pipeline does: it dies with the run that started it, and tells an error in one line.

A rule's shell exports `$RUN_PID`, the process that runs Snakemake. When that process or the rule's own shell is killed,
nobody waits for the program any more, and what it would write later could overwrite what a new run made: so it goes at
once. A program started by hand has no `$RUN_PID` and outlives its terminal as usual.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable

from world_modality.errors import InputError


def run(main: Callable[[], None]) -> None:
    """Call `main`; an `InputError` ends the process with its message and status 1, anything else with a traceback."""
    if "RUN_PID" in os.environ:
        _die_with(int(os.environ["RUN_PID"]), os.getppid())
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")


def _die_with(*processes: int) -> None:
    """Kill this process as soon as one of `processes` has ended."""
    try:
        watched = [os.pidfd_open(process) for process in processes]
    except ProcessLookupError:
        _end()
    threading.Thread(target=_wait, args=(watched,), daemon=True).start()


def _wait(watched: list[int]) -> None:
    select.select(watched, [], [])
    _end()


def _end() -> None:
    sys.stderr.write("the run that started this program is gone; so is it\n")
    os.kill(os.getpid(), signal.SIGKILL)
