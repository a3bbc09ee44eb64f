"""Which code makes an artifact: a hash of each source file behind a program. Light (no torch).

A file's hash is that of its syntax tree without comments and docstrings, so only an edit of the code changes it.

The modules in `NOT_HASHED` are left out. Three of them are about the config: `experiment.config` makes the specs, and
`experiment.sections` and `experiment.specs` hold only fields and validators. What an artifact takes from the config
reaches its rule's params through its spec. The other modules decide how an artifact is written or reported, not what is
in it. Some artifacts hold content hashes; these stay the same as long as `FORMAT` does.
"""

from __future__ import annotations

import ast
import functools
import json
from pathlib import Path

from world_modality.artifacts.files import text_sha256

REPOSITORY = Path(__file__).resolve().parents[2]
FORMAT = "format 2"  # of the records in artifacts and of content hashes; a new one rebuilds every artifact
FIRST_PARTY = ("world_modality", "lerobot_policy_world_modality")
NOT_HASHED = (
    "world_modality.errors",
    "world_modality.program",
    "world_modality.progress",
    "world_modality.artifacts.files",
    "world_modality.artifacts.parquet",
    "world_modality.artifacts.provenance",
    "world_modality.artifacts.records",
    "world_modality.artifacts.sources",
    "world_modality.experiment.config",
    "world_modality.experiment.sections",
    "world_modality.experiment.specs",
)


def source_code(entry_point: str) -> str:
    """`source_hashes` as a rule's param: JSON, so that a change can be reported file by file."""
    return json.dumps(source_hashes(entry_point) | {"world_modality/artifacts/provenance.py": FORMAT}, sort_keys=True)


def source_hashes(entry_point: str | Path) -> dict[str, str]:
    """Hash of each file behind a program (a path relative to the repository), by its path in the repository."""
    entry = REPOSITORY / entry_point
    files = {entry, *(_module_file(module) for module in import_closure(entry))}
    return {path.relative_to(REPOSITORY).as_posix(): _code_sha256(_text(path))[:16] for path in sorted(files)}


def import_closure(*entry_points: str | Path) -> set[str]:
    """First-party modules that the entry points import, directly or indirectly, except those in `NOT_HASHED`."""
    found: set[str] = set()
    waiting = [REPOSITORY / entry for entry in entry_points]
    while waiting:
        path = waiting.pop()
        for module in _first_party_imports(path, _text(path)):
            if module not in found and module not in NOT_HASHED:
                found.add(module)
                waiting.append(_module_file(module))
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@functools.cache  # keyed by the file's text: only an edited file is parsed again
def _code_sha256(code: str) -> str:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return text_sha256(ast.dump(tree))


def _has_docstring(node: ast.AST) -> bool:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or not node.body:
        return False
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


@functools.cache
def _first_party_imports(path: Path, code: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute_base(node, path)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    modules = {name for name in names if name.split(".")[0] in FIRST_PARTY and _is_module(name)}
    return frozenset(package for name in modules for package in _with_its_packages(name))


def _with_its_packages(name: str) -> list[str]:
    """A module and every package it lies in, because their `__init__` runs before it."""
    parts = name.split(".")
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _absolute_base(node: ast.ImportFrom, path: Path) -> str:
    if not node.level:
        return node.module or ""
    package = path.relative_to(REPOSITORY).parent.parts
    parts = [*package[: len(package) - node.level + 1], *([node.module] if node.module else [])]
    return ".".join(parts)


def _is_module(name: str) -> bool:
    stem = REPOSITORY.joinpath(*name.split("."))
    return stem.with_suffix(".py").is_file() or (stem / "__init__.py").is_file()


def _module_file(name: str) -> Path:
    stem = REPOSITORY.joinpath(*name.split("."))
    return stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
