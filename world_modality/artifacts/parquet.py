"""Parquet tables, read and written in one way: pages carry checksums, and an error is one line naming the file.

Light (no torch; pyarrow is imported where it is needed).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from world_modality.artifacts.files import atomic_path
from world_modality.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

OPTIONS = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": False}


def read_schema(path: str | Path, kind: str = "file") -> pa.Schema:
    """The columns of a table, with its metadata.

    Args:
        kind: what the error message calls a file that does not exist.

    Raises:
        InputError: there is no such file, or it is truncated or damaged.
    """
    with _opened(path, kind) as file:
        return file.schema_arrow


def read_table(path: str | Path, kind: str = "file") -> pa.Table:
    """Read a whole table.

    Raises:
        InputError: as `read_schema`.
    """
    with _opened(path, kind) as file:
        return file.read()


def read_row_groups(path: str | Path, kind: str = "file") -> Iterator[pa.Table]:
    """Read a table one row group at a time.

    Raises:
        InputError: as `read_schema`.
    """
    with _opened(path, kind) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def row_group_sizes(path: str | Path, kind: str = "file") -> list[int]:
    """Number of rows in each row group.

    Raises:
        InputError: as `read_schema`.
    """
    with _opened(path, kind) as file:
        return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]


@contextlib.contextmanager
def _opened(path: str | Path, kind: str) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not Path(path).is_file():
        raise InputError(f"{path}: no such {kind}")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: truncated or damaged Parquet ({' '.join(str(error).split())})") from None


@contextlib.contextmanager
def table_writer(path: str | Path, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """Yield a function that writes a table as the next row group; for an empty table it writes nothing.

    The complete file appears when the block ends without an error.
    """
    import pyarrow.parquet as pq

    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, **OPTIONS) as writer:

        def write(table: pa.Table) -> None:
            if len(table):
                writer.write_table(table.cast(schema), row_group_size=len(table))

        yield write


def write_table(path: str | Path, schema: pa.Schema, parts: Iterable[pa.Table]) -> None:
    """Write a table from its parts; each part becomes a row group."""
    with table_writer(path, schema) as write:
        for part in parts:
            write(part)
