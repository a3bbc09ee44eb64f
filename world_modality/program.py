"""What every program of the pipeline does: it dies with the run that started it, and reports an error in one line.

A rule's shell exports `$RUN_PIDS`: the process that runs Snakemake, and the shell itself. When one of them is killed,
nobody waits for the program any more, and what it wrote later could overwrite what a new run made. So the program is
killed too. If it has something to save, it is first sent SIGTERM, as a cluster's scheduler would do. A program started
by hand has no `$RUN_PIDS` and outlives its terminal as usual.

The watch begins with the first import of this package, because a program spends its first ten seconds or more
importing. A quarter of that time went to garbage collection among the million objects that the imports create and
keep. So a program with `$RUN_PIDS` collects garbage less often.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from world_modality.errors import InputError

LOOK_EVERY = 0.25  # seconds between two checks of the processes it dies with
SAVE_WITHIN = 25  # seconds from SIGTERM to SIGKILL, to save its work in; SLURM gives 30
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
# Environment variables by which a shell changes how numbers are rounded: they choose the instruction set of a math
# library or a renderer, or its precision. The pipeline's programs run without them, so that the machine alone decides.
ROUNDING_VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "GALLIUM_DRIVER",
    "GLIBC_TUNABLES",
    "LP_NATIVE_VECTOR_WIDTH",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
GARBAGE_EVERY = 100_000  # objects created between two garbage collections; Python's default is 700


def run(main: Callable[[], None]) -> None:
    """Call `main`; an `InputError` ends the process with its message and status 1, anything else with a traceback."""
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")


def join_run() -> None:
    """If a run started this process, die from now on with the processes that `$RUN_PIDS` names."""
    if processes := os.environ.get("RUN_PIDS", "").split():
        gc.set_threshold(GARBAGE_EVERY)
        die_with(*processes)


def die_with(*processes: int | str) -> None:
    """From now on die with any of these processes, given by their ids: this one's parent and its parent's parents.

    Once a process is gone, the system may give its id to another one. So a process is identified by its start time as
    well, and one that started after this process cannot be its parent.
    """
    own_start = _start(Path("/proc/self"))
    starts = {(process := Path("/proc", str(number))): _start(process) for number in processes}
    starts = {process: start if start is not None and start <= own_start else None for process, start in starts.items()}
    threading.Thread(target=_watch, args=(starts,), daemon=True).start()


def _watch(starts: dict[Path, int | None]) -> None:
    """Kill this process once one of the others is gone; `starts` holds when each started, or None if it is gone."""
    while all(start is not None and _start(process) == start for process, start in starts.items()):
        time.sleep(LOOK_EVERY)
    _say_last("the run that started this program is gone; so is it")
    if callable(signal.getsignal(signal.SIGTERM)):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(SAVE_WITHIN)
    os.kill(os.getpid(), signal.SIGKILL)


def _start(process: Path) -> int | None:
    """When a process started, in clock ticks since boot; None: it is gone, or a zombie, which may never be reaped."""
    try:
        state, *fields = (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[18])


# ---- being asked to stop --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def stop_requests() -> Iterator[list[signal.Signals]]:
    """Within the block SIGTERM and SIGUSR1 do not end the program: each one received is appended to the yielded list.

    Only the main thread of a process can handle signals; in any other thread the list stays empty.
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {s: signal.signal(s, lambda number, _: received.append(signal.Signals(number))) for s in STOP_SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(request: signal.Signals, message: str) -> NoReturn:
    """End the process as requested, with the status that a shell gives to a process killed by that signal."""
    _say_last(f"stopped by {request.name} {message}")
    sys.exit(128 + request)


def _say_last(text: str) -> None:
    """Print to stderr, unless its reader is gone: it died with the run, or from a signal to the whole job."""
    try:
        print(text, file=sys.stderr, flush=True)
    except BrokenPipeError:  # Python would fail to flush the rest at exit, and exit with status 120
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# ---- arguments ------------------------------------------------------------------------------------------------------


def existing(text: str) -> Path:
    """An argparse type: the path of a file or folder that exists."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`."""
    valid = f"a whole number from {least}" + (f" to {most}" if most is not None else "")

    def parse(text: str) -> int:
        number = int(text) if text.removeprefix("-").isdecimal() else None
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text} is not {valid}")
        return number

    return parse
