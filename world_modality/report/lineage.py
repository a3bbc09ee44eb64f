"""Follows artifacts back to the demonstrations, and checks a whole results folder.

`walk` and `verify` read the records that `world_modality.artifacts.provenance` writes; they change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from world_modality.artifacts.files import read_text
from world_modality.artifacts.provenance import Ingredient, Provenance, problems_of, read_provenance
from world_modality.artifacts.records import FOLDER_RECORD, content_sha256
from world_modality.decision.tree import Verdict
from world_modality.errors import InputError
from world_modality.examination.attention_patterns import read_report
from world_modality.report import attention_text, decision_text

DRAWINGS = ("dag.svg", "rulegraph.svg")  # by `make dag`
# Texts have no record: each is a rendering of the JSON next to it.
RENDERED = {
    "decision.txt": lambda source: decision_text.render(Verdict.read(source)),
    "attention.txt": lambda source: attention_text.render(read_report(source)),
}
KINDS = (".json", ".jsonl", ".parquet", ".svg")


@dataclass(frozen=True)
class Ancestor:
    """One artifact on the way back: its depth, its role and path, its record, and what is wrong with it now."""

    depth: int
    ingredient: Ingredient
    record: Provenance | None
    note: str


def described_by(path: str | Path) -> Path:
    """The artifact whose record describes a file: itself, a folder it lies in, or the JSON that a text renders.

    Raises:
        InputError: there is no such file, or nothing describes it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    candidates = [path, *([path.with_suffix(".json")] if path.name in RENDERED else []), *path.parents]
    for candidate in candidates:
        if candidate.exists() and read_provenance(candidate):
            return candidate
    raise InputError(f"{path}: neither it nor a folder it lies in says what it was made from")


def walk(path: str | Path) -> Iterator[Ancestor]:
    """The artifact, then what it was made from, depth first. What several were made from is followed only once."""
    artifact = described_by(path)
    record = read_provenance(artifact)
    yield from _walk(Ingredient("", artifact.as_posix(), record.content_sha256), 0, set())


def _walk(ingredient: Ingredient, depth: int, followed: set[Path], root: Path = Path()) -> Iterator[Ancestor]:
    path = root / ingredient.path
    if ingredient.sha256 is None or not path.exists():
        yield Ancestor(depth, ingredient, None, "from a hub" if ingredient.sha256 is None else "no longer there")
        return
    record = read_provenance(path)
    now = record.content_sha256 if record else content_sha256(path)
    note = "" if now == ingredient.sha256 else f"now has content {now[:12]}"
    if record and record.inputs and path in followed:
        yield Ancestor(depth, ingredient, None, note or "see above")
        return
    yield Ancestor(depth, ingredient, record, note)
    if record and not note:
        followed.add(path)
        for earlier in record.inputs:
            yield from _walk(earlier, depth + 1, followed, record.root(path))


# ---- a whole folder -------------------------------------------------------------------------------------------------


def verify(results: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Every artifact of a results folder, with what is wrong with it (nothing: an empty list).

    Raises:
        InputError: the folder is missing or holds no artifact.
    """
    results = Path(results)
    artifacts = list(_artifacts(results))
    if not artifacts:
        raise InputError(f"{results}: holds no artifact")
    for path in artifacts:
        try:
            yield path, list(_rendering_problems(path) if path.name in RENDERED else _problems(path, results))
        except OSError as error:
            yield path, [f"{path}: cannot be read ({error.strerror})"]
        except ValueError as error:  # unreadable in one way or another
            yield path, [f"{path}: {str(error).removeprefix(f'{path}: ').splitlines()[0]}"]


def _artifacts(folder: Path) -> Iterator[Path]:
    """Artifacts below a folder: folders with a record, and files of a kind that has one; hidden ones are left out."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(".") or path.name in DRAWINGS:
            continue
        if path.is_dir() and not (path / FOLDER_RECORD).is_file() and not (path / ".snakemake_timestamp").is_file():
            yield from _artifacts(path)
        elif path.is_dir() or path.suffix in KINDS or path.name in RENDERED:
            yield path


def _problems(path: Path, results: Path) -> Iterator[str]:
    record = read_provenance(path)
    yield from problems_of(path, record)
    if record:
        made_as = record.artifact.rpartition("results/")[2]
        if made_as != path.relative_to(results).as_posix() and not Path(record.artifact).is_absolute():
            yield f"{path}: was made as {record.artifact}; was it renamed or swapped?"


def _rendering_problems(path: Path) -> Iterator[str]:
    source = path.with_suffix(".json")
    if not source.is_file():
        yield f"{path}: {source.name}, which it was rendered from, is missing"
    elif RENDERED[path.name](source) != read_text(path):
        yield f"{path}: differs from what {source.name} says"
