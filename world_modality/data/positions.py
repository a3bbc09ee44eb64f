"""Where the objects are in each frame of the demonstrations: the Parquet contract.

One row per frame: `index` int64 (global), `bowl` and `plate` fixed_size_list<float32>[3], in metres, world frame. Rows
are in order; episodes may be left out. The schema's metadata hold the dataset's fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from world_modality.artifacts.parquet import read_table, write_table
from world_modality.errors import InputError

FINGERPRINT_KEY = b"world_modality.dataset_fingerprint"
OBJECTS = ("bowl", "plate")
SCHEMA = pa.schema([("index", pa.int64()), *((name, pa.list_(pa.float32(), 3)) for name in OBJECTS)])


@dataclass(frozen=True, eq=False)
class ObjectPositions:
    """Positions of bowl and plate in some frames of a dataset."""

    dataset_fingerprint: str
    index: np.ndarray  # (n,) int64: global frame indices, ascending
    bowl: np.ndarray  # (n, 3) float32 [m]
    plate: np.ndarray  # (n, 3) float32 [m]


def write_positions(positions: ObjectPositions, path: str | Path) -> None:
    columns = [pa.array(positions.index, pa.int64())]
    for name in OBJECTS:
        values = pa.array(getattr(positions, name).astype(np.float32).reshape(-1))
        columns.append(pa.FixedSizeListArray.from_arrays(values, 3))
    schema = SCHEMA.with_metadata({FINGERPRINT_KEY: positions.dataset_fingerprint})
    write_table(path, schema, [pa.table(columns, schema=schema)])


def read_positions(path: str | Path, dataset_fingerprint: str) -> ObjectPositions:
    """Read and check the positions in the frames of a dataset.

    Raises:
        InputError: the file is missing or damaged, has other columns, frames out of order or positions that are not
            finite, or belongs to another dataset.
    """
    table = read_table(path)
    if not table.schema.remove_metadata().equals(SCHEMA):
        raise InputError(f"{path}: columns are {table.schema.names}; expected {SCHEMA.names}, not of other types")
    found = (table.schema.metadata or {}).get(FINGERPRINT_KEY, b"none").decode()
    if found != dataset_fingerprint:
        raise InputError(f"{path}: of dataset {found[:12]}, expected {dataset_fingerprint[:12]}")
    index = table["index"].to_numpy()
    if not len(index) or (np.diff(index) <= 0).any():
        raise InputError(f"{path}: its frames are not in ascending order")
    values = [table[name].combine_chunks().flatten().to_numpy().reshape(-1, 3) for name in OBJECTS]
    if not all(np.isfinite(value).all() for value in values):
        raise InputError(f"{path}: a position is NaN or infinite")
    return ObjectPositions(found, index, *values)
