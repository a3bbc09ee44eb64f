"""Where an artifact's provenance record lives, for each kind of artifact, and the hash of the content beside it.

In `provenance.json` of a folder, under the key `provenance` of a JSON object and of each line of JSON Lines, in the
schema metadata of Parquet, in a comment at the end of an SVG. A content hash leaves the record out, so that equal
content has equal hashes whoever made it. Light (no torch; Parquet's library is imported where it is needed).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from world_modality.artifacts.files import (
    file_sha256,
    json_text,
    read_json,
    read_json_lines,
    read_text,
    text_sha256,
    tree_sha256,
)
from world_modality.errors import InputError

KEY = "provenance"
FOLDER_RECORD = "provenance.json"
PARQUET_KEY = b"world_modality.provenance"
NOT_CONTENT = (FOLDER_RECORD, ".snakemake_timestamp")  # the latter is Snakemake's, in every folder it has an eye on
PARQUET_OPTIONS = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": False}


def read_content(path: str | Path) -> Any:
    """The content of a JSON artifact, without its record."""
    return _without_record(read_json(path))


def read_record(path: str | Path) -> dict | None:
    """The record inside an artifact; None where there is none.

    Raises:
        InputError: the artifact or its record cannot be read.
    """
    path = Path(path)
    return _READERS[_kind(path)](path)


def content_sha256(path: str | Path) -> str:
    """Hash of an artifact without its record: equal content, equal hash.

    Raises:
        InputError: the artifact is truncated or damaged.
    """
    path = Path(path)
    return _CONTENTS[_kind(path)](path)


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    return path.suffix if path.suffix in _CONTENTS else "other"


def write_record(path: Path, record: dict) -> None:
    """Write a record into an artifact.

    Raises:
        InputError: a file of its kind has no place for one.
    """
    if _kind(path) not in _WRITERS:
        kinds = ", ".join(kind for kind in _WRITERS if kind.startswith("."))
        raise InputError(f"{path}: an artifact is a folder or ends in one of {kinds}")
    _WRITERS[_kind(path)](path, record)


# A folder.


def _read_folder(path: Path) -> dict | None:
    return read_json(path / FOLDER_RECORD) if (path / FOLDER_RECORD).is_file() else None


def _write_folder(path: Path, record: dict) -> None:
    (path / FOLDER_RECORD).write_text(json_text(record), encoding="utf-8")


def _content_of_folder(path: Path) -> str:
    return tree_sha256(path, without=NOT_CONTENT)


# JSON and JSON Lines.


def _read_json(path: Path) -> dict | None:
    content = read_json(path)
    return content.get(KEY) if isinstance(content, dict) else None


def _write_json(path: Path, record: dict) -> None:
    path.write_text(json_text(read_json(path) | {KEY: record}), encoding="utf-8")


def _content_of_json(path: Path) -> str:
    return _canonical_sha256(path, _without_record(read_json(path)))


def _canonical_sha256(path: Path, content: Any) -> str:
    try:
        return text_sha256(json_text(content))
    except ValueError as error:  # NaN
        raise InputError(f"{path}: holds what is no JSON ({error})") from None


def _read_lines(path: Path) -> dict | None:
    records = [line.get(KEY) for line in read_json_lines(path)]
    if any(record != records[0] for record in records):
        raise InputError(f"{path}: its lines were not made together")
    return records[0] if records else None


def _write_lines(path: Path, record: dict) -> None:
    lines = [json.dumps(line | {KEY: record}, sort_keys=True, ensure_ascii=False) for line in read_json_lines(path)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _content_of_lines(path: Path) -> str:
    return _canonical_sha256(path, [_without_record(line) for line in read_json_lines(path)])


def _without_record(content: Any) -> Any:
    return {k: v for k, v in content.items() if k != KEY} if isinstance(content, dict) else content


# Parquet: the data and the schema with its metadata; row groups and compression are not content.


def _read_parquet(path: Path) -> dict | None:
    with _parquet(path) as file:
        text = (file.schema_arrow.metadata or {}).get(PARQUET_KEY)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: its provenance is damaged ({error})") from None


def _write_parquet(path: Path, record: dict) -> None:
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}")
    with _parquet(path) as file:
        schema = file.schema_arrow
        schema = schema.with_metadata({**(schema.metadata or {}), PARQUET_KEY: json.dumps(record, sort_keys=True)})
        with pq.ParquetWriter(temporary, schema, **PARQUET_OPTIONS) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).cast(schema)
                writer.write_table(table, row_group_size=len(table))
    temporary.replace(path)


def _content_of_parquet(path: Path) -> str:
    digest = hashlib.sha256()
    with _parquet(path) as file:
        schema = file.schema_arrow
        metadata = {k: v for k, v in (schema.metadata or {}).items() if k != PARQUET_KEY}
        digest.update(f"{schema.remove_metadata()}\0{sorted(metadata.items())}\0".encode())
        columns = [hashlib.sha256() for _ in schema]
        for group in range(file.num_row_groups):
            for column, part in zip(file.read_row_group(group).columns, columns, strict=True):
                part.update(_values(column))
    for part in columns:
        digest.update(part.digest())
    return digest.hexdigest()


def _values(column) -> bytes:
    """The numbers of a column without missing values, whatever row group or chunk they lie in."""
    values = column.combine_chunks()
    while hasattr(values, "flatten") and values.type.num_fields:  # lists
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).tobytes()


@contextlib.contextmanager
def _parquet(path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: truncated or damaged Parquet ({error})") from None


# SVG: a comment after the drawing.

_COMMENT = re.compile(r"<!-- provenance (.*) -->\n\Z")


def _read_svg(path: Path) -> dict | None:
    found = _COMMENT.search(read_text(path))
    try:
        return json.loads(found.group(1)) if found else None
    except ValueError as error:
        raise InputError(f"{path}: its provenance is damaged ({error})") from None


def _write_svg(path: Path, record: dict) -> None:
    text = json.dumps(record, sort_keys=True).replace("--", "-\\u002d")  # no XML comment holds two hyphens
    with path.open("a", encoding="utf-8") as file:
        file.write(f"<!-- provenance {text} -->\n")


def _content_of_svg(path: Path) -> str:
    return text_sha256(_COMMENT.sub("", read_text(path)))


# By kind; a file of any other kind has no record in it.

_READERS = {
    "folder": _read_folder,
    ".json": _read_json,
    ".jsonl": _read_lines,
    ".parquet": _read_parquet,
    ".svg": _read_svg,
    "other": lambda path: None,
}
_WRITERS = {
    "folder": _write_folder,
    ".json": _write_json,
    ".jsonl": _write_lines,
    ".parquet": _write_parquet,
    ".svg": _write_svg,
}
_CONTENTS = {
    "folder": _content_of_folder,
    ".json": _content_of_json,
    ".jsonl": _content_of_lines,
    ".parquet": _content_of_parquet,
    ".svg": _content_of_svg,
    "other": file_sha256,
}
