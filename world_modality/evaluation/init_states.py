"""The initial states that policies are evaluated from: LIBERO's benchmark states, or states drawn from a wider region.

The benchmark's 50 states of a task vary by about a centimetre, and a policy that sees nothing does as well on them as
any other. With `Simulation.spread`, the object and its target begin in a wider region. A state is kept only if the
scripted expert solves exactly the episode that policies will be given.

A block of states is written to one Parquet file. Its columns are `init_state_id`, `reset_seed` (the seed of the reset
that drew the state), `draws` (how many states were drawn until one was solvable) and `expert_steps`, all int64, and
`state` fixed_size_list<float64>[S]. The schema's metadata holds the suite, the task, the spread, the settling steps and
the hash of each state.

A state depends on its task, its number, the spread and the settling steps, so drawing more states leaves the others as
they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from world_modality.artifacts.parquet import read_table, write_table
from world_modality.errors import InputError
from world_modality.experiment.sections import Simulation
from world_modality.experiment.specs import InitStatesSpec
from world_modality.simulation.benchmark import benchmark_init_states, init_state_sha256

METADATA_KEY = b"world_modality.init_states"


def write_init_states(output: Path, spec: InitStatesSpec, task_id: int, rows: Sequence[dict]) -> None:
    """Write drawn states; each row holds a value for every column."""
    made = _identity(spec, task_id) | {"sha256": [init_state_sha256(row["state"]) for row in rows]}
    columns = {name: pa.array([row[name] for row in rows], pa.int64()) for name in rows[0] if name != "state"}
    states = np.stack([row["state"] for row in rows])
    columns["state"] = pa.FixedSizeListArray.from_arrays(pa.array(states.reshape(-1)), states.shape[1])
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(made, sort_keys=True)})
    write_table(output, table.schema, [table])


def init_states(spec: Simulation, task_id: int, files: Sequence[Path]) -> dict[int, np.ndarray]:
    """The states (S,) float64 by number: read from the files, or LIBERO's benchmark states if `spread` is 0.

    Raises:
        InputError: a file is damaged, or was drawn for another task or spread; a state appears twice; or files are
            given although the benchmark is asked for, or none although it is not.
    """
    if bool(files) != bool(spec.spread):
        wanted = "files of initial states" if spec.spread else "LIBERO's benchmark states and no files"
        raise InputError(f"task {task_id}: simulation.spread {spec.spread} needs {wanted}")
    if not files:
        return dict(enumerate(benchmark_init_states(spec.suite, task_id)))
    states: dict[int, np.ndarray] = {}
    for path in files:
        for number, state in _read(path, spec, task_id).items():
            if number in states:
                raise InputError(f"{path}: initial state {number} is in another file as well")
            states[number] = state
    return states


def _read(path: Path, spec: Simulation, task_id: int) -> dict[int, np.ndarray]:
    table = read_table(path, "file of initial states")
    try:
        made = json.loads(table.schema.metadata[METADATA_KEY])
        numbers, column = table["init_state_id"].to_pylist(), table["state"].combine_chunks()
        states = column.flatten().to_numpy().reshape(len(table), -1)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not written as initial states ({error!r})") from None
    for key, value in _identity(spec, task_id).items():
        if made.get(key) != value:
            raise InputError(f"{path}: initial states with {key} {made.get(key)}, expected {value}")
    for number, state, sha256 in zip(numbers, states, made["sha256"], strict=True):
        if init_state_sha256(state) != sha256:
            raise InputError(f"{path}: initial state {number} is not the one that was drawn")
    return dict(zip(numbers, states, strict=True))


def _identity(spec: Simulation | InitStatesSpec, task_id: int) -> dict:
    return {"suite": spec.suite, "task": task_id, "spread": spec.spread, "settle_steps": spec.settle_steps}
