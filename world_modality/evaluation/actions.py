"""The actions of a block of rollouts: with them an episode can be repeated, and filmed, without its policy. Light.

The Parquet contract (`SCHEMA`): one row for each control step of each episode, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from world_modality.artifacts.parquet import read_table, write_table
from world_modality.errors import InputError
from world_modality.experiment.suites import ACTION_DIM

KIND = "table of actions"
SCHEMA = pa.schema(
    {
        "init_state_id": pa.int32(),
        "step": pa.int32(),  # from 0
        "action": pa.list_(pa.float32(), ACTION_DIM),
    }
)


def write_actions(path: Path, episodes: Mapping[int, np.ndarray]) -> None:
    """Write the actions (steps, 7) float32 of some episodes, by initial state."""
    tables = [SCHEMA.empty_table()]
    for number, actions in episodes.items():
        steps = np.arange(len(actions), dtype=np.int32)
        flat = pa.array(np.ascontiguousarray(actions, np.float32).ravel())
        columns = [np.full_like(steps, number), steps, pa.FixedSizeListArray.from_arrays(flat, ACTION_DIM)]
        tables.append(pa.table(columns, schema=SCHEMA))
    write_table(path, SCHEMA, [pa.concat_tables(tables)])


def read_actions(path: Path, init_state_id: int) -> np.ndarray:
    """The actions (steps, 7) float32 of one episode.

    Raises:
        InputError: the file is not a table of actions, has no such episode, lacks some of its steps, or holds a value
            that is not finite.
    """
    table = read_table(path, KIND).replace_schema_metadata()
    if not table.schema.equals(SCHEMA):
        found, valid = (", ".join(f"{f.name} {f.type}" for f in s) for s in (table.schema, SCHEMA))
        raise InputError(f"{path}: has the columns {found}; a {KIND} has {valid}")
    rows = table.filter(pc.equal(table["init_state_id"], init_state_id))
    if not len(rows):
        raise InputError(f"{path}: holds no actions of initial state {init_state_id}")
    if rows["step"].to_pylist() != list(range(len(rows))):
        raise InputError(f"{path}: the actions of initial state {init_state_id} are not whole, or not in order")
    values = rows["action"].combine_chunks()
    actions = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, ACTION_DIM) if not values.null_count else None
    if actions is None or len(actions) != len(rows) or not np.isfinite(actions).all():
        raise InputError(f"{path}: an action of initial state {init_state_id} is not {ACTION_DIM} finite numbers")
    return actions
