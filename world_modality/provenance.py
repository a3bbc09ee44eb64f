"""What an artifact was made from, and how it comes into being whole or not at all.

`source_hash` answers "would this program still make the same artifact?": it hashes the syntax trees of an entry point
and of every first-party module it imports, directly or not, without comments and docstrings. `config`, `provenance` and
`progress` are left out: what an artifact takes from the config reaches its rule's params through its spec.

Light (no torch): the Snakefile imports it.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
FIRST_PARTY = ("world_modality", "lerobot_policy_world_modality")
NOT_HASHED = ("world_modality.config", "world_modality.provenance", "world_modality.progress")


@contextlib.contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `final` (same folder, same suffix) and rename it to `final` on success.

    The caller creates a file or a folder there. An existing `final` is replaced. On any error nothing stays behind.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    temporary = scratch / final.name
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(f"{final}: nothing was written")
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        os.replace(temporary, final)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write deterministic JSON: sorted keys, one-space indent, NaN refused."""
    write_text(path, json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: the file is truncated or not JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a whole JSON file ({error})") from None


def write_run_config(config: dict[str, Any], path: str | Path) -> None:
    """Write the merged configuration for people to read; no rule reads it."""
    write_text(path, yaml.safe_dump(config, sort_keys=False))


def file_sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_sha256(folder: str | Path) -> str:
    """Hash a folder: the sorted relative names of its files and their contents."""
    folder = Path(folder)
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def package_versions(*names: str) -> dict[str, str]:
    """Installed versions of distributions."""
    return {name: importlib.metadata.version(name) for name in names}


# ---- source hashes --------------------------------------------------------------------------------------------------


def source_hash(*entry_points: str | Path) -> str:
    """Hash the code of entry points (paths relative to the repository) and of all they import from this project."""
    modules = sorted(import_closure(*entry_points))
    digest = hashlib.sha256()
    for path in [*(REPOSITORY / e for e in entry_points), *(_module_file(m) for m in modules)]:
        digest.update(f"{path.relative_to(REPOSITORY).as_posix()}\0{_code_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def import_closure(*entry_points: str | Path) -> set[str]:
    """First-party modules imported by the entry points, directly or not, without those left out of source hashes."""
    found: set[str] = set()
    waiting = [REPOSITORY / entry for entry in entry_points]
    while waiting:
        for module in _first_party_imports(waiting.pop()):
            if module not in found and module not in NOT_HASHED:
                found.add(module)
                waiting.append(_module_file(module))
    return found


@functools.cache
def _code_sha256(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
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
def _first_party_imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute_base(node, path)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    modules = {name for name in names if name.split(".")[0] in FIRST_PARTY and _is_module(name)}
    return frozenset(modules | {name.split(".")[0] for name in modules})


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
