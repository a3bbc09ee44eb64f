"""What LIBERO's benchmark prescribes: its tasks, and the initial states that only evaluation uses.

LIBERO's own list of tasks comes in a module that imports torch, which a simulator's process does not load.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import world_modality.simulation.environment  # noqa: F401

# isort: split
import numpy as np
from libero.libero import get_libero_path
from numpy._core.multiarray import _reconstruct

from world_modality.errors import InputError
from world_modality.experiment.suites import INIT_STATES_PER_TASK, SUITE_SIZES, suite_instructions, suite_tasks

PICKLED_TYPES = [(_reconstruct, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype, np.dtypes.Float64DType]


class SimulationError(InputError):
    """The simulator was asked for something it cannot do; the message names that, and what is valid."""


@dataclass(frozen=True)
class LiberoTask:
    """A task of a suite: what a policy is told, and LIBERO's files."""

    language: str
    bddl_file: Path
    init_states_file: Path


def libero_task(suite: str, task_id: int) -> LiberoTask:
    """Look a task up by its id in the suite's own order.

    Raises:
        SimulationError: no such suite or task.
    """
    if suite not in SUITE_SIZES:
        raise SimulationError(f"no LIBERO suite {suite!r}; valid: {', '.join(sorted(SUITE_SIZES))}")
    names = suite_tasks(suite)
    if not 0 <= task_id < len(names):
        raise SimulationError(f"{suite} has tasks 0 to {len(names) - 1}, not {task_id}")
    return LiberoTask(
        language=suite_instructions(suite)[task_id],
        bddl_file=Path(get_libero_path("bddl_files"), suite, f"{names[task_id]}.bddl"),
        init_states_file=Path(get_libero_path("init_states"), suite, f"{names[task_id]}.pruned_init"),
    )


def benchmark_init_states(suite: str, task_id: int) -> np.ndarray:
    """LIBERO's own initial states of a task, which only evaluation uses: (50, S) float64.

    The files are pickles; only numpy arrays are unpickled from them.
    """
    import torch

    path = libero_task(suite, task_id).init_states_file
    with torch.serialization.safe_globals(PICKLED_TYPES):
        states = torch.load(path, weights_only=True)
    if states.ndim != 2 or len(states) != INIT_STATES_PER_TASK:
        raise SimulationError(f"{path}: expected {INIT_STATES_PER_TASK} initial states, found {states.shape}")
    return states.astype(np.float64)


def init_state_sha256(state: np.ndarray) -> str:
    """Identify an initial state by its values: hex digest of its little-endian float64 bytes."""
    return hashlib.sha256(np.ascontiguousarray(state, dtype="<f8").tobytes()).hexdigest()
