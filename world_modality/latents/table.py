"""LatentTable: the latent of each frame of a dataset, with windows into past and future that never leave an episode.

The Parquet contract. One row per frame: `index` int64 (global, 0 … N-1), `episode_index` and `frame_index` int64,
`latent` fixed_size_list<float16>[D]. Row groups end at episode ends. The schema's metadata holds a `LatentSpec`: what
the latents are of and how they were made. `LatentWriter` streams a table. `LatentTable.open` refuses a file that breaks
the contract or does not match what the caller expects.

Non-obvious behaviours:
* A latent covers the `window` frames that end at its own frame, so a history of 4 latents of window 4 covers 7 frames.
* float16 keeps 11 bits. A dimension that varies less than that around its mean carries no information, and
  `standardization` treats it as constant.
* Pages carry checksums, so a damaged file is refused just as a truncated one is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from world_modality.artifacts.parquet import read_schema, read_table, row_group_sizes, table_writer
from world_modality.errors import InputError

METADATA_KEY = b"world_modality.latents"
KIND = "latent table"
ROW_GROUP_ROWS = 4096  # a row group closes at the first episode end after this many rows


class LatentTableError(InputError):
    """A latent table breaks the contract or is not the one expected; the message names the file and the offender."""


@dataclass(frozen=True)
class LatentSpec:
    """What a table's latents are of, and how they were made."""

    dataset: str  # id or folder name
    dataset_revision: str | None
    dataset_fingerprint: str
    image_key: str
    encoder: str  # id or folder name
    encoder_revision: str | None
    encoder_sha256: str
    image_size: int  # side of the square the encoder sees [px]
    window: int  # frames a latent covers; its own is the last
    pooling: str
    preprocessing: str
    orientation: str
    dim: int
    versions: dict[str, str]
    precision: str = "fp32"  # of the encoder's matrix products; tables from before there was a choice do not name it

    def require(self, expected: Mapping[str, Any], where: str) -> None:
        """Check fields against expected values.

        Raises:
            LatentTableError: a field differs; names `where`, each such field, its value and the expected one.
            KeyError: an expected field does not exist.
        """
        fields = dataclasses.asdict(self)
        for name in expected:
            if name not in fields:
                raise KeyError(f"a latent table has no field {name}; valid: {', '.join(fields)}")
        wrong = [f"{k} is {fields[k]!r}, expected {v!r}" for k, v in expected.items() if fields[k] != v]
        if wrong:
            raise LatentTableError(f"{where}: {'; '.join(wrong)}")


def past_rows(rows: Tensor, start: Tensor | int, length: int) -> Tensor:
    """Rows t-length+1 … t of each row t, with the episode's first row `start` in place of rows before it.

    (B,) int64 → (B, length) int64. Used for the windows of frames an encoder sees and the latents Prophet sees.
    """
    steps = torch.arange(1 - length, 1, device=rows.device)
    start = torch.as_tensor(start, device=rows.device)
    return torch.maximum(rows[:, None] + steps, start.reshape(-1, 1))


# ---- reading --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class LatentTable:
    """All latents of a dataset in memory; row i is the frame with global index i.

    `specs` has one entry for a table read from a file, and one per camera for a joined table.
    """

    specs: tuple[LatentSpec, ...]
    latents: Tensor  # (N, D) float16
    first_row: Tensor  # (N,) int64: first row of each row's episode
    last_row: Tensor  # (N,) int64: last row of each row's episode

    @classmethod
    def open(cls, path: str | Path, expect: Mapping[str, Any] | None = None) -> LatentTable:
        """Read and check a table.

        Args:
            expect: fields of `LatentSpec` with the values they must have, e.g. `{"window": 4}`.

        Raises:
            InputError: there is no such file, or it is truncated or damaged.
            LatentTableError: it lacks its metadata, has other columns, numbers its frames or episodes wrongly, holds
                NaN, infinite or all-zero latents, or differs from `expect`.
        """
        spec = _read_spec(path)
        spec.require(expect or {}, str(path))
        columns = read_table(path, KIND)
        _check_columns(path, columns, spec.dim)
        starts = _episode_starts(path, columns)
        _check_row_groups(path, starts, len(columns))
        values = columns["latent"].combine_chunks().flatten()
        if values.null_count:
            row = values.is_null().index(True).as_py() // spec.dim
            raise LatentTableError(f"{path}: the latent of frame {row} has missing values")
        latents = values.to_numpy().reshape(-1, spec.dim)
        _check_values(path, latents)
        lengths = np.diff(np.append(starts, len(columns)))
        first = torch.from_numpy(np.repeat(starts, lengths))
        last = torch.from_numpy(np.repeat(starts + lengths - 1, lengths))
        return cls((spec,), torch.from_numpy(latents.copy()), first, last)

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def dim(self) -> int:
        return self.latents.shape[1]

    def to(self, device: str | torch.device) -> LatentTable:
        """The same table with its tensors on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("latents", "first_row", "last_row")}
        return dataclasses.replace(self, **tensors)

    def history(self, index: Tensor, length: int) -> Tensor:
        """Latents of frames t-length+1 … t; before the episode's start its first one is repeated.

        (B,) int64 global frame indices → (B, length, D) float32, on the table's device.
        """
        rows = self._rows(index)
        return self.latents[past_rows(rows, self.first_row[rows], length)].float()

    def future(self, index: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Latents of frames t+1 … t+length: (B, length, D) float32, and which of them exist: (B, length) bool.

        Past the end of the episode the last latent is repeated and the mask is False.
        """
        rows = self._rows(index)
        wanted = rows[:, None] + torch.arange(1, length + 1, device=rows.device)
        last = self.last_row[rows][:, None]
        return self.latents[torch.minimum(wanted, last)].float(), wanted <= last

    def standardization(self) -> tuple[Tensor, Tensor]:
        """Mean (D,) and standard deviation (D,) over all frames, float32.

        Where a dimension varies less than float16 resolves around its mean, its deviation is given as 1, so that
        dividing by it does not blow up rounding errors.
        """
        chunks = self.latents.split(65536)
        mean = sum(c.double().sum(0) for c in chunks) / len(self)
        std = (sum((c.double() - mean).square().sum(0) for c in chunks) / len(self)).sqrt()
        constant = std <= torch.finfo(torch.float16).eps * mean.abs()
        return mean.float(), std.masked_fill(constant, 1.0).float()

    def _rows(self, index: Tensor) -> Tensor:
        rows = index.to(self.latents.device)
        if rows.numel() and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"frame {_outside(rows, len(self))} is not in the latent table (0 to {len(self) - 1})")
        return rows


def join_tables(tables: Sequence[LatentTable]) -> LatentTable:
    """Concatenate several cameras' latents frame by frame: the dimensions add up, in the order of the tables.

    Raises:
        LatentTableError: the tables differ in dataset, window or episodes, or share a camera.
    """
    first, *others = tables
    keys = [spec.image_key for table in tables for spec in table.specs]
    if len(set(keys)) != len(keys):
        raise LatentTableError(f"cannot join latents of one camera with themselves: {', '.join(keys)}")
    reference = first.specs[0]
    common = {name: getattr(reference, name) for name in ("dataset_fingerprint", "window")}
    for table in others:
        table.specs[0].require(common, f"cannot join {table.specs[0].image_key} with {reference.image_key}")
        if not (torch.equal(table.first_row, first.first_row) and torch.equal(table.last_row, first.last_row)):
            raise LatentTableError(f"cannot join {table.specs[0].image_key} with {reference.image_key}: other episodes")
    specs = tuple(spec for table in tables for spec in table.specs)
    return dataclasses.replace(first, specs=specs, latents=torch.cat([t.latents for t in tables], dim=1))


def _outside(rows: Tensor, length: int) -> int:
    return int(rows[(rows < 0) | (rows >= length)][0])


def _read_spec(path: str | Path) -> LatentSpec:
    text = (read_schema(path, KIND).metadata or {}).get(METADATA_KEY)
    if text is None:
        raise LatentTableError(f"{path}: no metadata {METADATA_KEY.decode()}: not written as a latent table")
    try:
        return LatentSpec(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise LatentTableError(f"{path}: its metadata is not a LatentSpec ({error})") from None


def _check_columns(path: str | Path, columns: pa.Table, dim: int) -> None:
    expected = _schema(dim)
    if not columns.schema.remove_metadata().equals(expected):
        found = ", ".join(f"{f.name} {f.type}" for f in columns.schema)
        valid = ", ".join(f"{f.name} {f.type}" for f in expected)
        raise LatentTableError(f"{path}: columns are {found}; expected {valid}")
    if not len(columns):
        raise LatentTableError(f"{path}: no frames")
    for name in columns.column_names:
        if columns[name].null_count:
            raise LatentTableError(f"{path}: {name} has {columns[name].null_count} missing values")


def _episode_starts(path: str | Path, columns: pa.Table) -> np.ndarray:
    """First row of each episode, after checking that frames and episodes are numbered without gap or repetition."""
    rows = np.arange(len(columns))
    index, episode, frame = (columns[n].to_numpy() for n in ("index", "episode_index", "frame_index"))
    _check_numbers(path, "index", index, rows)
    starts = np.flatnonzero(np.append(True, episode[1:] != episode[:-1]))
    numbers = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(rows))))
    _check_numbers(path, "episode_index", episode, numbers)
    _check_numbers(path, "frame_index", frame, rows - starts[numbers])
    return starts


def _check_numbers(path: str | Path, name: str, found: np.ndarray, expected: np.ndarray) -> None:
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        row = wrong[0]
        raise LatentTableError(f"{path}: row {row} has {name} {found[row]}, expected {expected[row]}")


def _check_row_groups(path: str | Path, starts: np.ndarray, rows: int) -> None:
    inside = set(np.cumsum(row_group_sizes(path, KIND)).tolist()) - set(starts.tolist()) - {rows}
    if inside:
        raise LatentTableError(f"{path}: a row group ends within an episode, at row {min(inside)}")


def _check_values(path: str | Path, latents: np.ndarray) -> None:
    """Refuse latents (n, D) that no encoder makes."""
    bad = ~np.isfinite(latents).all(axis=1)
    if bad.any():
        raise LatentTableError(f"{path}: the latent of frame {bad.argmax()} is NaN or infinite")
    zero = ~latents.any(axis=1)
    if zero.any():
        raise LatentTableError(f"{path}: the latent of frame {zero.argmax()} is all zeros")


# ---- writing --------------------------------------------------------------------------------------------------------


def _schema(dim: int) -> pa.Schema:
    integers = [pa.field(name, pa.int64()) for name in ("index", "episode_index", "frame_index")]
    return pa.schema([*integers, pa.field("latent", pa.list_(pa.float16(), dim))])


class LatentWriter:
    """Writes a table episode by episode; see `write_latents`."""

    def __init__(self, write: Callable[[pa.Table], None], path: Path, dim: int):
        self._write, self._path, self._dim = write, path, dim
        self._episodes, self._rows, self._pending = 0, 0, []

    def write_episode(self, latents: Tensor) -> None:
        """Append the latents (n, D) of the next episode's frames.

        Raises:
            LatentTableError: the episode is empty, its latents have another width, or float16 cannot hold them.
        """
        if latents.ndim != 2 or latents.shape[1] != self._dim or not len(latents):
            raise LatentTableError(
                f"{self._path}: episode {self._episodes} has latents of shape {tuple(latents.shape)}, "
                f"expected (frames, {self._dim})"
            )
        values = latents.detach().cpu().to(torch.float16).numpy()
        _check_values(f"{self._path}, episode {self._episodes}", values)
        self._pending.append(self._columns(values))
        self._episodes, self._rows = self._episodes + 1, self._rows + len(values)
        if sum(len(table) for table in self._pending) >= ROW_GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Close the row group. Episodes are written whole, so it ends at an episode's end."""
        if self._pending:
            self._write(pa.concat_tables(self._pending))
            self._pending = []

    def _columns(self, values: np.ndarray) -> pa.Table:
        frames = np.arange(len(values))
        episode = np.full(len(values), self._episodes)
        latent = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), self._dim)
        return pa.table([self._rows + frames, episode, frames, latent], schema=_schema(self._dim))


@contextlib.contextmanager
def write_latents(path: str | Path, spec: LatentSpec) -> Iterator[LatentWriter]:
    """Stream a table to `path`: yields a `LatentWriter`; the whole file appears when the block ends without error."""
    metadata = {METADATA_KEY: json.dumps(dataclasses.asdict(spec), sort_keys=True)}
    schema = _schema(spec.dim).with_metadata(metadata)
    with table_writer(path, schema) as write:
        writer = LatentWriter(write, Path(path), spec.dim)
        yield writer
        writer.flush()
