"""The frames of a LeRobotDataset as its Parquet files hold them, read with pyarrow.

Opening reads the files' footers and no image. Columns without images are read whole, images one row group at a time:
LeRobot writes an episode in each. Nothing is copied to disk and nothing is remembered from one opening to the next, so
a file is always read as it is now.

At random, images would take seven to nine times as long as from an Arrow file (`docs/measurements.md`), because each
needs a whole row group decompressed. So a training that does not keep its frames in memory first asks for
`copy_for_random_order`: the stored images, not decoded, in one Arrow file that is named after the data's content.

Non-obvious behaviour: no file stays open, because a loader's workers would share the place that it has in it, and
pyarrow's threads are not used, because a worker that is forked does not have them.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.datasets.feature_utils import get_hf_features_from_features

from world_modality.artifacts.files import atomic_path, text_sha256, tree_sha256
from world_modality.errors import InputError

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


class StoredDataset:
    """A LeRobotDataset in a folder: its metadata, and its columns by name.

    Raises:
        InputError: a data file is damaged, or lacks a column of `meta/info.json`.
    """

    tolerance_s = 1e-4  # how far the time of a frame may be from what fps says [s], LeRobot's own default

    def __init__(self, meta: LeRobotDatasetMetadata):
        self.meta, self.repo_id, self.root, self.fps = meta, meta.repo_id, Path(meta.root), meta.fps
        self._schema = get_hf_features_from_features(meta.features).arrow_schema
        self._paths = sorted((self.root / "data").glob("*/*.parquet"))
        self._images: _ArrowImages | _ParquetImages = _ParquetImages(self._paths)
        for path in self._paths:
            _check_schema(path, self._schema)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def num_frames(self) -> int:
        return len(self)

    @property
    def num_episodes(self) -> int:
        return self.meta.total_episodes

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Columns without images, of all frames: (N,), or (N, width) for a column of vectors.

        Raises:
            InputError: a file is damaged, or values are missing or not of the type that `meta/info.json` says.
        """
        kinds = pa.schema([self._schema.field(name) for name in names])
        tables = [_read(path, kinds) for path in self._paths]
        return {name: np.concatenate([_values(self.repo_id, name, table[name]) for table in tables]) for name in names}

    def images(self, key: str, rows: Sequence[int]) -> Iterator[bytes | None]:
        """The images of a camera in some rows as they are stored; None where there is none."""
        return self._images.read(key, rows)

    def copy_for_random_order(self) -> None:
        """From now on read images from an Arrow copy in `HF_DATASETS_CACHE`, made if there is none of this content.

        Raises:
            InputError: there is no room for it.
        """
        keys = self.meta.image_keys
        if not keys:
            return
        content = text_sha256(f"{keys} {tree_sha256(self.root / 'data')}")[:16]
        path = Path(datasets.config.HF_DATASETS_CACHE) / f"images_{content}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # trainings that start together wait for the one that makes it
            if not path.is_file():
                _ParquetImages(self._paths).copy(keys, path)
        self._images = _ArrowImages(path)


def _read(path: Path, kinds: pa.Schema) -> pa.Table:
    try:
        return pq.read_table(path, columns=kinds.names, use_threads=False, partitioning=None).cast(kinds)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: {', '.join(kinds.names)} cannot be read ({_line(error)})") from None


def _check_schema(path: Path, expected: pa.Schema) -> None:
    found = pq.read_schema(path)
    for field in expected:
        if field.name not in found.names:
            raise InputError(f"{path}: has no column {field.name}, which meta/info.json says; it has {found.names}")
        kind = found.field(field.name).type
        if field.type == IMAGE and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
            raise InputError(f"{path}: {field.name} is {kind}, expected images ({IMAGE})")


def _values(name: str, key: str, column: pa.ChunkedArray) -> np.ndarray:
    if column.null_count:
        raise InputError(f"{name}: {key} has {column.null_count} missing values")
    array = column.combine_chunks()
    if not pa.types.is_fixed_size_list(array.type) and not pa.types.is_list(array.type):
        return array.to_numpy(zero_copy_only=False)
    values = array.flatten()
    if values.null_count:
        raise InputError(f"{name}: {key} has {values.null_count} missing values")
    lengths = np.asarray(array.value_lengths())
    if (lengths != lengths[0]).any():
        row = int((lengths != lengths[0]).argmax())
        raise InputError(f"{name}: {key} has {lengths[0]} values in row 0, {lengths[row]} in row {row}")
    return values.to_numpy().reshape(len(array), -1)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _ParquetImages:
    """Images in the row groups of Parquet files, one group of one camera in memory."""

    def __init__(self, paths: Sequence[Path]):
        self._groups: list[tuple[Path, pq.FileMetaData, int]] = []
        for path in paths:
            try:
                footer = pq.read_metadata(path)
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{path}: truncated or damaged Parquet ({_line(error)})") from None
            self._groups += [(path, footer, group) for group in range(footer.num_row_groups)]
        self._starts = np.cumsum([0, *(footer.row_group(group).num_rows for _, footer, group in self._groups)])
        self._kept: tuple[str, int] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, key: str, rows: Sequence[int]) -> Iterator[bytes | None]:
        for row in rows:
            place = int(np.searchsorted(self._starts, row, side="right")) - 1
            if self._kept != (key, place):
                self._kept, self._column = (key, place), self._group(place, [key])[key]
            yield self._column[row - int(self._starts[place])]["bytes"].as_py()

    def _group(self, place: int, keys: Sequence[str]) -> pa.Table:
        path, footer, group = self._groups[place]
        with pq.ParquetFile(path, metadata=footer) as file:
            return file.read_row_group(group, columns=[f"{key}.bytes" for key in keys], use_threads=False)

    def copy(self, keys: Sequence[str], path: Path) -> None:
        """Write the images of some cameras to an Arrow file, a row group at a time."""
        schema = pa.schema([(key, pa.struct({"bytes": pa.large_binary()})) for key in keys])
        with atomic_path(path) as temporary, pa.ipc.new_file(temporary, schema) as writer:
            for place in range(len(self._groups)):
                for batch in self._group(place, keys).cast(schema).to_batches(max_chunksize=64):
                    writer.write_batch(batch)


class _ArrowImages:
    """Images in a mapped Arrow file; any of them is read at once."""

    def __init__(self, path: Path):
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        batches = range(self._file.num_record_batches)
        self._starts = np.cumsum([0, *(self._file.get_batch(i).num_rows for i in batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, key: str, rows: Sequence[int]) -> Iterator[bytes | None]:
        for row in rows:
            place = int(np.searchsorted(self._starts, row, side="right")) - 1
            yield self._file.get_batch(place)[key][row - int(self._starts[place])]["bytes"].as_py()
