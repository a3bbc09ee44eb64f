"""What an experiment takes from a hub: fetched once into its client's cache, pinned to a commit, placed as an artifact.

Fetching needs the hub. Placing needs only the cache (`HF_HOME`), so compute nodes need no network, and
`HF_HUB_OFFLINE=1` works throughout.

Non-obvious behaviours of the hub's client (1.33):
* It caches the list of a commit's files (`trees/<commit>.json`) before it downloads the first one. Asked for a commit,
  it compares the cache with that list and downloads what is missing. If nothing is missing, it needs no network.
* Asked for local files only, or for a branch without a network, it takes a folder whose list it lacks for complete.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from world_modality.artifacts.files import atomic_path, read_json, write_json
from world_modality.artifacts.records import NOT_CONTENT
from world_modality.errors import InputError
from world_modality.experiment.sections import Repository, is_commit


def fetch(repository: Repository) -> Path:
    """Download the files of a repository into the cache, except those that are already there.

    Without a network the cache must hold every wanted file and the client's list of the commit's files. A cache filled
    by `hf download` has that list; one filled by an older client lacks it, and `snakemake fetch` adds it.

    Returns:
        the cache's folder of these files, named after the commit.

    Raises:
        InputError: no such repository or revision, or the hub cannot be reached and the cache lacks a file or the list.
    """
    try:
        if not is_commit(repository.revision):
            repository = _at(repository, _snapshot(repository).name)
        return _snapshot(repository)
    except (HTTPError, OSError) as error:
        raise InputError(
            f"{repository.kind} {repository.name}: not in the hub's cache as a whole, and not to be had from the hub "
            f"({_reason(repository, error)}); `snakemake fetch` fetches it where there is a network"
        ) from None


def _at(repository: Repository, commit: str) -> Repository:
    return repository.model_copy(update={"revision": commit})


def _reason(repository: Repository, error: Exception) -> str:
    """The client's reason in one line; if it knows which files are missing, the reason that names them."""
    try:
        _snapshot(repository, local_files_only=True)
    except IncompleteSnapshotError as incomplete:
        error = incomplete
    except (HTTPError, OSError):
        pass
    return next(iter(str(error).strip().splitlines()), repr(error))


def _snapshot(repository: Repository, **how: bool) -> Path:
    patterns = list(repository.files) or None
    kind, name, revision = repository.kind, repository.repo_id, repository.revision
    return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns, **how))


def cached(repository: Repository) -> Path | None:
    """The cache's folder of a repository's files; None if they have not all been fetched. Never asks the hub."""
    try:
        return _snapshot(repository, local_files_only=True)
    except LocalEntryNotFoundError:
        return None


def place(repository: Repository, folder: Path) -> None:
    """Fill `folder` with the files of a repository: hard links into the cache where possible, otherwise copies.

    The precision in which a VLM's weights were saved is removed from its config: SmolVLA would build a policy in it.

    Raises:
        InputError: as `fetch`; or the repository holds none of the wanted files.
    """
    fetched = fetch(repository)
    names = _wanted(repository, fetched)
    if not names:
        raise InputError(f"{repository.kind} {repository.name}: no files {', '.join(repository.files)}".rstrip())
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(fetched / name, folder / name)
    config = folder / "config.json"
    if config.exists() and (content := read_json(config)).get("model_type") == "smolvlm":
        write_json(config, _without_precision(content))  # a new file: the cache keeps the old one


def _wanted(repository: Repository, fetched: Path) -> list[str]:
    """Names of the files to place. The cache may hold more files of the commit, such as .gitattributes."""
    names = [path.relative_to(fetched).as_posix() for path in fetched.rglob("*") if path.is_file()]
    wanted = filter_repo_objects(names, allow_patterns=list(repository.files) or None)
    return sorted(n for n in wanted if not any(p.startswith(".") or p in NOT_CONTENT for p in n.split("/")))


def _link_or_copy(source: Path, target: Path) -> None:
    source = source.resolve()  # the cache's snapshots are links to its blobs
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


def _without_precision(config: Any) -> Any:
    """A VLM's config, and those of its parts within it, without `dtype` or `torch_dtype`."""
    if not isinstance(config, dict):
        return config
    return {key: _without_precision(value) for key, value in config.items() if key not in ("dtype", "torch_dtype")}


def pin(repositories: list[Repository], path: Path) -> dict[str, str]:
    """Fetch all repositories, and write to `path` the commit at which each branch or tag was first found.

    Returns:
        the commit of each, by `Repository.name`.
    """
    text = path.read_text(encoding="utf-8")
    pinned: dict[str, str] = yaml.safe_load(text)["commits"]
    found = {}
    for repository in repositories:
        commit = pinned.get(repository.name, repository.revision)
        found[repository.name] = fetch(_at(repository, commit)).name
    kept = pinned | {r.name: found[r.name] for r in repositories if not is_commit(r.revision)}
    if kept != pinned:
        comment = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
        with atomic_path(path) as temporary:
            temporary.write_text(comment + yaml.safe_dump({"commits": kept}), encoding="utf-8")
    return found
