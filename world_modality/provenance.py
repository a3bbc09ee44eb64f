"""What an artifact was made from, written into the artifact itself and checked by whoever reads it.

A program makes its artifact inside `making(...)`, which

1. examines every input before anything expensive starts: its content is what its own record says, it was made from the
   files that lie at the recorded places now, and two inputs do not disagree about a third;
2. hands out a temporary path, and when the program is done writes a `Provenance` into what lies there;
3. renames it to its final name.

Where the record lives: in `provenance.json` of a folder, under the key `provenance` of a JSON object and of each line
of JSON Lines, in the schema metadata of Parquet, in a comment at the end of an SVG. `decision.txt` has none: it is a
rendering of the `decision.json` beside it. The content hash of an artifact leaves the record out, so that equal content
has equal hashes whoever made it; the record is sealed by a hash of its own.

Light (no torch; Parquet's library is imported where it is needed).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from world_modality.errors import InputError
from world_modality.files import (
    atomic_path,
    file_sha256,
    json_text,
    read_json,
    text_sha256,
    tree_sha256,
)
from world_modality.sources import REPOSITORY, source_hashes

KEY = "provenance"
FOLDER_RECORD = "provenance.json"
PARQUET_KEY = b"world_modality.provenance"
NOT_CONTENT = (FOLDER_RECORD, ".snakemake_timestamp")  # the latter is Snakemake's, in every folder it has an eye on
PARQUET_OPTIONS = {"compression": "zstd", "write_page_checksum": True, "use_dictionary": False}
DISTRIBUTIONS = ("hf-libero", "lerobot", "mujoco", "numpy", "pyarrow", "robosuite", "scipy", "torch", "transformers")


@dataclass(frozen=True)
class Ingredient:
    """One input of an artifact: the part it plays, where it lay, and its content hash (None: it came from a hub)."""

    role: str
    path: str
    sha256: str | None


@dataclass(frozen=True)
class Provenance:
    """What one artifact was made from. A change of these fields or of the content hashes needs another `FORMAT`."""

    artifact: str  # path it was asked for under
    program: str  # entry point, relative to the repository
    inputs: list[Ingredient]
    spec: Any  # the validated part of the config, or the arguments that say what was made
    seeds: dict[str, int]
    source: dict[str, str]  # hash of each source file behind the program
    versions: dict[str, str]  # python and the distributions behind the program
    content_sha256: str = ""
    seal: str = field(default="", repr=False)  # hash of all the fields above

    def sealed(self, content_sha256: str) -> Provenance:
        record = dataclasses.replace(self, content_sha256=content_sha256, seal="")
        return dataclasses.replace(record, seal=record._hash())

    def is_intact(self) -> bool:
        return self.seal == dataclasses.replace(self, seal="")._hash()

    def root(self, path: str | Path) -> Path:
        """The experiment's folder, which the recorded paths start from, given where the artifact lies now."""
        here, name = Path(path).absolute(), Path(self.artifact)
        if name.is_absolute() or here.parts[-len(name.parts) :] != name.parts:
            return Path()
        return Path(*here.parts[: -len(name.parts)])

    def _hash(self) -> str:
        return text_sha256(json_text(dataclasses.asdict(self)))


def package_versions(*names: str) -> dict[str, str]:
    """Installed versions of distributions."""
    return {name: importlib.metadata.version(name) for name in names}


# ---- making an artifact ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def making(
    artifact: str | Path,
    program: str,
    inputs: Mapping[str, Any],
    spec: Any = None,
    seeds: Mapping[str, int] | None = None,
    foreign: Collection[str] = (),
) -> Iterator[Path]:
    """Yield a temporary path; what the caller writes there becomes `artifact`, with its provenance in it.

    Args:
        program: `__file__` of the entry point.
        inputs: by role, a path, a hub id, or a list of paths.
        spec: what was asked for: a model of the config, or plain data.
        foreign: roles that an artifact without a record may play: someone else's dataset, say.

    Raises:
        InputError: an input is damaged, is not what it was, has no record, or contradicts another.
    """
    artifact = Path(artifact)
    entry = Path(program).resolve()
    if not entry.is_relative_to(REPOSITORY):
        raise InputError(f"{entry}: not in {REPOSITORY}, whose library it would run with; set PYTHONPATH to its own")
    entry = entry.relative_to(REPOSITORY).as_posix()
    record = Provenance(
        artifact=artifact.as_posix(),
        program=entry,
        inputs=examine_all(inputs, foreign),
        spec=spec.model_dump(mode="json") if isinstance(spec, BaseModel) else spec,
        seeds=dict(seeds or {}),
        source=source_hashes(entry),
        versions={"python": sys.version.split()[0]} | package_versions(*DISTRIBUTIONS),
    )
    with atomic_path(artifact) as temporary:
        yield temporary
        if temporary.exists():
            _embed(temporary, record.sealed(content_sha256(temporary)))


def examine_all(inputs: Mapping[str, Any], foreign: Collection[str] = ()) -> list[Ingredient]:
    """Examine every input, and that none was made from another version of a file that is also given.

    Raises:
        InputError: naming the offender.
    """
    given = [
        Ingredient(role, str(path), examine(path, role in foreign) if Path(path).exists() else None)
        for role, value in inputs.items()
        if value is not None
        for path in (value if isinstance(value, list | tuple) else [value])
    ]
    alone = _only_of_their_role(given)
    for ingredient in given:
        made = read_provenance(ingredient.path) if ingredient.sha256 else None
        for earlier in _only_of_their_role(made.inputs).values() if made else []:
            here = alone.get(earlier.role)
            if here and None not in (here.sha256, earlier.sha256) and here.sha256 != earlier.sha256:
                raise InputError(
                    f"{ingredient.path} was made from {earlier.role} {earlier.path} with content "
                    f"{earlier.sha256[:12]}, but {here.path} has content {here.sha256[:12]}"
                )
    return given


def _only_of_their_role(ingredients: Collection[Ingredient]) -> dict[str, Ingredient]:
    roles = [ingredient.role for ingredient in ingredients]
    return {ingredient.role: ingredient for ingredient in ingredients if roles.count(ingredient.role) == 1}


def examine(path: str | Path, foreign: bool = False) -> str:
    """Check an artifact against its own record and its ancestors; returns its content hash.

    Args:
        foreign: without a record it is taken for what it is.

    Raises:
        InputError: it is damaged, or was made from other files than those that now lie where they lay.
    """
    record = read_provenance(path)
    if record is None and foreign:
        return content_sha256(path)
    for problem in problems_of(path, record):
        raise InputError(problem)
    return record.content_sha256


def problems_of(path: str | Path, record: Provenance | None) -> Iterator[str]:
    """What is wrong with an artifact: with its record, its content, or what it was made from."""
    if record is None:
        yield f"{path}: says nothing about what it was made from"
        return
    if not record.is_intact():
        yield f"{path}: its provenance was altered: the seal is not {record.seal[:12]}"
        return
    if (found := content_sha256(path)) != record.content_sha256:
        yield f"{path}: damaged or altered: its content has hash {found[:12]}, expected {record.content_sha256[:12]}"
    yield from _ancestry_problems(path, record, set())


def _ancestry_problems(path: str | Path, record: Provenance, looked_at: set[Path]) -> Iterator[str]:
    """Ancestors that no longer are what they were when the artifact was made. Those that are gone are passed over."""
    root = record.root(path)
    for ingredient in record.inputs:
        earlier = root / ingredient.path
        if ingredient.sha256 is None or earlier in looked_at or not earlier.exists():
            continue
        made = read_provenance(earlier)
        now = made.content_sha256 if made else content_sha256(earlier)
        if now != ingredient.sha256:
            yield (
                f"{path}: made from {ingredient.role} {ingredient.path} with content {ingredient.sha256[:12]}, "
                f"which now has content {now[:12]}"
            )
        elif made:
            looked_at.add(earlier)
            yield from _ancestry_problems(earlier, made, looked_at)


# ---- records inside artifacts ---------------------------------------------------------------------------------------


def read_provenance(path: str | Path) -> Provenance | None:
    """The record inside an artifact; None where there is none.

    Raises:
        InputError: the artifact or its record cannot be read.
    """
    path = Path(path)
    record = _READERS[_kind(path)](path)
    if record is None:
        return None
    try:
        return Provenance(**record | {"inputs": [Ingredient(**i) for i in record["inputs"]]})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: its provenance is not a record of this project ({error})") from None


def read_content(path: str | Path) -> Any:
    """The content of a JSON artifact, without its record."""
    return _without_record(read_json(path))


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


def _embed(path: Path, record: Provenance) -> None:
    _WRITERS.get(_kind(path), _refuse_kind)(path, dataclasses.asdict(record))


def _refuse_kind(path: Path, record: dict) -> None:
    raise InputError(
        f"{path}: an artifact is a folder or ends in one of {', '.join(k for k in _WRITERS if k[0] == '.')}"
    )


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


def _lines(path: Path) -> list[Any]:
    lines = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            raise InputError(f"{path}:{number}: not a whole line of JSON") from None
        if not isinstance(lines[-1], dict):
            raise InputError(f"{path}:{number}: not a JSON object")
    return lines


def _read_lines(path: Path) -> dict | None:
    records = [line.get(KEY) for line in _lines(path)]
    if any(record != records[0] for record in records):
        raise InputError(f"{path}: its lines were not made together")
    return records[0] if records else None


def _write_lines(path: Path, record: dict) -> None:
    lines = [json.dumps(line | {KEY: record}, sort_keys=True, ensure_ascii=False) for line in _lines(path)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _content_of_lines(path: Path) -> str:
    return _canonical_sha256(path, [_without_record(line) for line in _lines(path)])


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
    found = _COMMENT.search(_text(path))
    try:
        return json.loads(found.group(1)) if found else None
    except ValueError as error:
        raise InputError(f"{path}: its provenance is damaged ({error})") from None


def _write_svg(path: Path, record: dict) -> None:
    text = json.dumps(record, sort_keys=True).replace("--", "-\\u002d")  # no XML comment holds two hyphens
    with path.open("a", encoding="utf-8") as file:
        file.write(f"<!-- provenance {text} -->\n")


def _content_of_svg(path: Path) -> str:
    return text_sha256(_COMMENT.sub("", _text(path)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: damaged ({error})") from None


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
