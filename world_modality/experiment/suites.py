"""LIBERO's task suites: their sizes, what they say to a policy, and how large their robot's vectors are.

Light: no torch, and no LIBERO, which imports slowly and asks a question on stdin where it is not set up. Its list of
tasks is read from its file instead.
"""

from __future__ import annotations

import functools
import re
import runpy
from collections.abc import Collection, Iterable
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path

from world_modality.errors import InputError

SUITE_SIZES = {"libero_spatial": 10, "libero_object": 10, "libero_goal": 10, "libero_10": 10}  # [tasks]
INIT_STATES_PER_TASK = 50
STATE_DIM = 8  # end effector: 3 of position, 3 of axis-angle; 2 of the gripper
CONTROL_FREQUENCY = 20  # control steps per simulated second
ACTION_DIM = 7  # 6 of the end effector, 1 of the gripper; each in [-1, 1]
TASK_LIST = "libero/benchmark/libero_suite_task_map.py"
SHOWN = 3  # instructions of a dataset that a message lists


@functools.cache
def suite_tasks(suite: str) -> tuple[str, ...]:
    """LIBERO's name of each task of a suite, in the order of the task ids."""
    return tuple(runpy.run_path(str(Path(find_spec("libero").origin).parent / TASK_LIST))["libero_task_map"][suite])


@functools.cache
def suite_instructions(suite: str) -> tuple[str, ...]:
    """What the simulator says to a policy in each task of a suite, in the order of the task ids."""
    return tuple(re.sub(r"^[A-Z_]+SCENE\d+_", "", task).replace("_", " ") for task in suite_tasks(suite))


def check_language(name: str, demonstrated: Collection[str]) -> None:
    """Check that demonstrations speak the simulator's language.

    Args:
        name: of what was demonstrated, for the message.
        demonstrated: its instructions.

    Raises:
        InputError: none of them is an instruction of any suite; names the closest that is.
    """
    valid = [instruction for suite in SUITE_SIZES for instruction in suite_instructions(suite)]
    if not set(valid).intersection(demonstrated):
        first = next(iter(demonstrated))
        raise InputError(
            f"{name}: its instructions, {_listed(demonstrated)}, are none of LIBERO's, to the letter; the one closest "
            f"to {first!r} is {_closest(first, valid)!r}"
        )


def check_demonstrated(name: str, demonstrated: Collection[str], suite: str | None, tasks: Iterable[int]) -> None:
    """Check that the instructions of some tasks of a suite, which will be evaluated, were demonstrated.

    Raises:
        InputError: one was not (names the closest that was); or there is no such suite or task.
    """
    for task in tasks:
        if suite not in SUITE_SIZES:
            raise InputError(f"no LIBERO suite {suite!r}; valid: {', '.join(SUITE_SIZES)}")
        if not 0 <= task < SUITE_SIZES[suite]:
            raise InputError(f"{suite} has tasks 0 to {SUITE_SIZES[suite] - 1}, not {task}")
        said = suite_instructions(suite)[task]
        if said not in demonstrated:
            raise InputError(
                f"{name}: no demonstration of {suite} task {task}, {said!r} to the letter; the closest of its "
                f"{len(demonstrated)} instructions, {_listed(demonstrated)}, is {_closest(said, demonstrated)!r}"
            )


def _listed(instructions: Collection[str]) -> str:
    shown = [repr(instruction) for instruction in [*instructions][:SHOWN]]
    return ", ".join(shown + ["…"] * (len(instructions) > SHOWN))


def _closest(wanted: str, instructions: Iterable[str]) -> str:
    return max(instructions, key=lambda i: SequenceMatcher(None, wanted.lower(), i.lower()).ratio())
