"""What an artifact was made from, written into the artifact itself and checked by every program that reads it.

A program makes its artifact inside `making(...)`, which

1. examines every input before anything expensive starts: its content matches its own record, it was made from the
   files that now lie at the recorded paths, and no two inputs were made from different versions of a third;
2. hands out a temporary path and, when the program is done, writes a `Provenance` into the artifact there;
3. renames it to its final name.

`artifacts/records.py` says where each kind of artifact keeps its record. `decision.txt` has none: it is a rendering of
the `decision.json` next to it. A record is sealed by a hash of itself. Light (no torch).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from world_modality.artifacts.files import atomic_path, json_text, text_sha256
from world_modality.artifacts.records import content_files, content_sha256, read_record, write_record
from world_modality.artifacts.sources import REPOSITORY, source_hashes
from world_modality.errors import InputError

DISTRIBUTIONS = ("hf-libero", "lerobot", "mujoco", "numpy", "pyarrow", "robosuite", "scipy", "torch", "transformers")


@dataclass(frozen=True)
class Ingredient:
    """One input of an artifact: its role, its path, and its content hash (None: it came from a hub)."""

    role: str
    path: str
    sha256: str | None


@dataclass(frozen=True)
class Provenance:
    """What one artifact was made from. Changing these fields or the content hashes requires a new `FORMAT`."""

    artifact: str  # the path under which it was requested
    program: str  # entry point, relative to the repository
    inputs: list[Ingredient]
    spec: Any  # the validated part of the config, or the arguments that say what was made
    seeds: dict[str, int]
    source: dict[str, str]  # hash of each source file behind the program
    versions: dict[str, str]  # python and the distributions behind the program
    files: dict[str, str]  # hash of each file of a folder; none for a file
    content_sha256: str
    seal: str = field(default="", repr=False)  # hash of all the fields above

    def sealed(self, path: Path) -> Provenance:
        """The record completed with the hashes of the artifact at `path`, and sealed."""
        record = dataclasses.replace(self, files=content_files(path), content_sha256=content_sha256(path), seal="")
        return dataclasses.replace(record, seal=record._hash())

    def is_intact(self) -> bool:
        return self.seal == dataclasses.replace(self, seal="")._hash()

    def root(self, path: str | Path) -> Path:
        """The experiment's folder, to which recorded paths are relative; `path` is where the artifact lies now."""
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
        foreign: roles in which an artifact without a record is accepted: someone else's dataset, say.

    Raises:
        InputError: an input is damaged, was made from files that have changed since, has no record, or contradicts
            another.
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
        files={},
        content_sha256="",
    )
    with atomic_path(artifact) as temporary:
        yield temporary
        if temporary.exists():
            write_record(temporary, dataclasses.asdict(record.sealed(temporary)))


def examine_all(inputs: Mapping[str, Any], foreign: Collection[str] = ()) -> list[Ingredient]:
    """Examine every input, and check that they agree.

    No input may have been made from another version of a file that is also an input, or that another input was made
    from.

    Raises:
        InputError: naming the offender.
    """
    seen: dict[Path, Ancestor] = {}
    given = [
        Ingredient(role, str(path), examine(path, role in foreign, seen) if Path(path).exists() else None)
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


def examine(path: str | Path, foreign: bool = False, seen: dict[Path, Ancestor] | None = None) -> str:
    """Check an artifact against its own record and its ancestors; returns its content hash.

    Args:
        foreign: an artifact without a record is accepted as it is.
        seen: the ancestors of other artifacts, which this one must agree with; its own are added.

    Raises:
        InputError: it is damaged, or the files it was made from are no longer the same.
    """
    record = read_provenance(path)
    if record is None and foreign:
        return content_sha256(path)
    for problem in problems_of(path, record, seen):
        raise InputError(problem)
    return record.content_sha256


class Ancestor(NamedTuple):
    """An ancestor's content hash, and the descendant for which it was first found."""

    content_sha256: str
    descendant: str | Path


def problems_of(path: str | Path, record: Provenance | None, seen: dict[Path, Ancestor] | None = None) -> Iterator[str]:
    """What is wrong with an artifact: with its record, its content, or what it was made from."""
    if record is None:
        yield f"{path}: says nothing about what it was made from"
        return
    if not record.is_intact():
        yield f"{path}: its provenance was altered: the seal is not {record.seal[:12]}"
        return
    if (found := content_sha256(path)) != record.content_sha256:
        expected = f"expected {record.content_sha256[:12]}{_changes(content_files(path), record.files)}"
        yield f"{path}: damaged or altered: its content has hash {found[:12]}, {expected}"
    yield from _ancestry_problems(path, record, {} if seen is None else seen)


def _changes(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Which files of a folder differ from what was recorded."""
    names = {
        "changed": [name for name in expected if name in found and found[name] != expected[name]],
        "missing": [name for name in expected if name not in found],
        "new": [name for name in found if name not in expected],
    }
    listed = [f"{how}: {_first_few(which)}" for how, which in names.items() if which]
    return f" ({'; '.join(listed)})" if listed else ""


def _first_few(names: list[str], few: int = 3) -> str:
    return ", ".join(names[:few]) + (f" and {len(names) - few} more" if len(names) > few else "")


def _ancestry_problems(path: str | Path, record: Provenance, seen: dict[Path, Ancestor]) -> Iterator[str]:
    """Report every ancestor that has changed since the artifact was made.

    An ancestor that is missing is compared with what its other descendants recorded. Each is compared with the record
    of every descendant, but its own ancestors are followed only once.
    """
    root = record.root(path)
    for ingredient in record.inputs:
        if ingredient.sha256 is None:
            continue
        earlier = (root / ingredient.path).absolute()
        made = read_provenance(earlier) if earlier.exists() else None
        known = seen.get(earlier) or Ancestor(_content_now(earlier, made) or ingredient.sha256, path)
        if known.content_sha256 != ingredient.sha256:
            other = "which now has" if earlier.exists() else f"but {known.descendant} was made from it with"
            yield (
                f"{path}: made from {ingredient.role} {ingredient.path} with content {ingredient.sha256[:12]}, "
                f"{other} content {known.content_sha256[:12]}"
            )
        elif earlier not in seen:
            seen[earlier] = known
            if made:
                yield from _ancestry_problems(root / ingredient.path, made, seen)


def _content_now(path: Path, record: Provenance | None) -> str | None:
    if record:
        return record.content_sha256
    return content_sha256(path) if path.exists() else None


def read_provenance(path: str | Path) -> Provenance | None:
    """The record inside an artifact; None if it has none.

    Raises:
        InputError: the artifact or its record cannot be read.
    """
    record = read_record(path)
    if record is None:
        return None
    try:
        return Provenance(**record | {"inputs": [Ingredient(**i) for i in record["inputs"]]})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: its provenance is not a record of this version ({error})") from None
