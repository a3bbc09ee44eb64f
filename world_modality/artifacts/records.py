"""Where each kind of artifact keeps its provenance record, and the hash of the content without it.

A folder keeps its record in `provenance.json`. A JSON object, and each line of JSON Lines, has it under the key
`provenance`, Parquet in the schema's metadata, an SVG in a comment at the end. A content hash leaves the record out, so
that equal content has equal hashes whoever made it. Light (no torch; pyarrow is imported where it is needed).
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from world_modality.artifacts.files import (
    file_hashes,
    file_sha256,
    json_text,
    listing_sha256,
    read_json,
    read_json_lines,
    read_text,
    text_sha256,
)
from world_modality.artifacts.parquet import read_row_groups, read_schema, write_table
from world_modality.errors import InputError

KEY = "provenance"
FOLDER_RECORD = "provenance.json"
PARQUET_KEY = b"world_modality.provenance"
NOT_CONTENT = (FOLDER_RECORD, ".snakemake_timestamp")  # Snakemake writes the latter into every folder it tracks


def read_content(path: str | Path) -> Any:
    """The content of a JSON artifact, without its record."""
    return _without_record(read_json(path))


def read_record(path: str | Path) -> dict | None:
    """The record inside an artifact; None if it has none.

    Raises:
        InputError: the artifact or its record cannot be read.
    """
    path = Path(path)
    return _READERS[_kind(path)](path)


def content_sha256(path: str | Path) -> str:
    """Hash of an artifact without its record: equal content has an equal hash.

    Raises:
        InputError: the artifact is truncated or damaged.
    """
    path = Path(path)
    return _CONTENTS[_kind(path)](path)


def content_files(path: str | Path) -> dict[str, str]:
    """Hash of each file of a folder artifact by name; its content hash follows from these. None for a file."""
    return file_hashes(path, without=NOT_CONTENT) if Path(path).is_dir() else {}


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    return path.suffix if path.suffix in _CONTENTS else "other"


def write_record(path: Path, record: dict) -> None:
    """Write a record into an artifact.

    Raises:
        InputError: this kind of file has no place for a record.
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
    return listing_sha256(content_files(path))


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


# Parquet: its content is the data and the schema with its metadata, but not the row groups or the compression.


def _read_parquet(path: Path) -> dict | None:
    text = (read_schema(path).metadata or {}).get(PARQUET_KEY)
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: its provenance is damaged ({error})") from None


def _write_parquet(path: Path, record: dict) -> None:
    schema = read_schema(path)
    metadata = {**(schema.metadata or {}), PARQUET_KEY: json.dumps(record, sort_keys=True)}
    write_table(path, schema.with_metadata(metadata), read_row_groups(path))


def _content_of_parquet(path: Path) -> str:
    schema = read_schema(path)
    for field in schema:
        if not _has_fixed_width(field.type):
            raise InputError(f"{path}: {field.name} is {field.type}, {FIXED_WIDTH}")
    metadata = {k: v for k, v in (schema.metadata or {}).items() if k != PARQUET_KEY}
    columns = [hashlib.sha256() for _ in schema]
    for group in read_row_groups(path):
        for name, column, part in zip(schema.names, group.columns, columns, strict=True):
            part.update(_values(path, name, column))
    text = schema.remove_metadata().to_string(truncate_metadata=False)
    digest = hashlib.sha256(f"{text}\0{sorted(metadata.items())}\0".encode())
    for part in columns:
        digest.update(part.digest())
    return digest.hexdigest()


FIXED_WIDTH = "which no content hash covers; valid: numbers, booleans and fixed-size lists of them, none missing"


def _has_fixed_width(kind) -> bool:
    from pyarrow import types

    while types.is_fixed_size_list(kind):
        kind = kind.value_type
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _values(path: Path, name: str, column) -> bytes:
    """The numbers of a column, however row groups and chunks divide them."""
    values = column.combine_chunks()
    missing = values.null_count
    while values.type.num_fields:  # lists
        values = values.flatten()
        missing += values.null_count
    if missing:
        raise InputError(f"{path}: {name} has missing values, {FIXED_WIDTH}")
    return values.to_numpy(zero_copy_only=False).tobytes()


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


# By kind; no other kind of file can hold a record.

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
