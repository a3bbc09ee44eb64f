"""Following artifacts back to the demonstrations, and checking a whole results folder.

`walk` and `verify` read the records that `world_modality.provenance` writes; they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from world_modality.decision import Verdict
from world_modality.errors import InputError
from world_modality.provenance import (
    FOLDER_RECORD,
    Ingredient,
    Provenance,
    ancestry_problems,
    content_sha256,
    read_content,
    read_provenance,
)
from world_modality.verdict import render

WITHOUT_RECORD = ("run_config.yaml", "dag.svg", "rulegraph.svg")  # for people; no stage reads them
KINDS = (".json", ".jsonl", ".parquet", ".svg", ".txt")


@dataclass(frozen=True)
class Step:
    """One artifact on the way back: how deep, the part it played, its record, and what is wrong with it now."""

    depth: int
    ingredient: Ingredient
    record: Provenance | None
    note: str


def described_by(path: str | Path) -> Path:
    """The artifact whose record describes a file: itself, the folder it lies in, or the JSON a text was rendered from.

    Raises:
        InputError: there is no such file, or nothing describes it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    candidates = [path, *([path.with_suffix(".json")] if path.suffix == ".txt" else []), *path.parents]
    for candidate in candidates:
        if candidate.exists() and read_provenance(candidate):
            return candidate
    raise InputError(f"{path}: neither it nor a folder it lies in says what it was made from")


def walk(path: str | Path) -> Iterator[Step]:
    """The artifact, then what it was made from, depth first; what several were made from is followed once."""
    artifact = described_by(path)
    record = read_provenance(artifact)
    yield from _walk(Ingredient("", artifact.as_posix(), record.content_sha256), 0, set())


def _walk(ingredient: Ingredient, depth: int, followed: set[str]) -> Iterator[Step]:
    path = Path(ingredient.path)
    if ingredient.sha256 is None or not path.exists():
        yield Step(depth, ingredient, None, "from a hub" if ingredient.sha256 is None else "no longer there")
        return
    record = read_provenance(path)
    now = record.content_sha256 if record else content_sha256(path)
    note = "" if now == ingredient.sha256 else f"now has content {now[:12]}"
    if record and record.inputs and ingredient.path in followed:
        yield Step(depth, ingredient, None, note or "see above")
        return
    followed.add(ingredient.path)
    yield Step(depth, ingredient, record, note)
    for earlier in record.inputs if record and not note else []:
        yield from _walk(earlier, depth + 1, followed)


# ---- a whole folder -------------------------------------------------------------------------------------------------


def verify(results: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Every artifact of a results folder, with what is wrong with it (nothing: an empty list).

    Raises:
        InputError: the folder is missing or holds no artifact.
    """
    artifacts = list(_artifacts(Path(results)))
    if not artifacts:
        raise InputError(f"{results}: holds no artifact")
    for path in artifacts:
        try:
            yield path, _problems(path)
        except InputError as error:
            yield path, [str(error)]


def _artifacts(folder: Path) -> Iterator[Path]:
    """Artifacts below a folder: folders with a record, and files of a kind that has one; none is hidden."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or path.name in WITHOUT_RECORD:
            continue
        if path.is_dir() and not (path / FOLDER_RECORD).is_file():
            yield from _artifacts(path)
        elif path.is_dir() or path.suffix in KINDS:
            yield path


def _problems(path: Path) -> list[str]:
    if path.suffix == ".txt":
        return _text_problems(path)
    record = read_provenance(path)
    if record is None:
        return [f"{path}: says nothing about what it was made from"]
    if not record.is_intact():
        return [f"{path}: its provenance was altered: the seal is not {record.seal[:12]}"]
    problems, name = [], Path(record.artifact).parts[-3:]
    if name != path.parts[-len(name) :]:
        problems.append(f"{path}: was made as {record.artifact}; was it renamed or swapped?")
    if (found := content_sha256(path)) != record.content_sha256:
        problems.append(
            f"{path}: damaged or altered: its content has hash {found[:12]}, expected {record.content_sha256[:12]}"
        )
    return problems + ancestry_problems(path, record)


def _text_problems(path: Path) -> list[str]:
    source = path.with_suffix(".json")
    if not source.is_file():
        return [f"{path}: {source.name}, which it was rendered from, is missing"]
    if render(Verdict.model_validate(read_content(source))) != path.read_text(encoding="utf-8"):
        return [f"{path}: is not what {source.name} says"]
    return []
