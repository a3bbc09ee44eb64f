"""What an experiment takes from a hub: fetched once into its client's cache, at one commit, and placed as an artifact.

What the cache (`HF_HOME`) holds needs no network, so with a full cache `HF_HUB_OFFLINE=1` works throughout.

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

from httpx import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError, RevisionResolutionError
from huggingface_hub.utils import filter_repo_objects

from world_modality.artifacts.files import read_json, write_json
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
            repository = at(repository, _snapshot(repository).name)
        return _snapshot(repository)
    except (HTTPError, OSError) as error:
        raise _refusal(repository, error) from None


def locate(repository: Repository) -> str:
    """The commit of a repository that `fetch` can have; a branch or tag is looked up. Downloads no files.

    Without a network, a branch is where the cache last saw it, and the cache must hold all that `fetch` wants.

    Raises:
        InputError: as `fetch`.
    """
    hub, name, kind, commit = HfApi(), repository.repo_id, repository.kind, repository.revision
    try:
        if not is_commit(commit):
            commit = hub.resolve_revision(name, repo_type=kind, revision=commit).resolved
        if not _is_whole(at(repository, commit)):
            hub.repo_info(name, repo_type=kind, revision=commit)
    except (HTTPError, OSError) as error:
        raise _refusal(repository, error) from None
    except RevisionResolutionError as error:  # it says at length what its cause says
        raise _refusal(repository, error.__cause__ or error) from None
    return commit


def at(repository: Repository, commit: str) -> Repository:
    """The same files of a repository at another revision."""
    return repository.model_copy(update={"revision": commit})


def _refusal(repository: Repository, error: BaseException) -> InputError:
    return InputError(
        f"{repository.kind} {repository.name}: not in the hub's cache as a whole, and not to be had from the hub "
        f"({_reason(repository, error)}); run the same command, or `snakemake fetch`, where there is a network"
    )


def _reason(repository: Repository, error: BaseException) -> str:
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


def _is_whole(repository: Repository) -> bool:
    """Whether the cache has every wanted file of a commit, and the list of its files, which says so."""
    folder = cached(repository)
    return folder is not None and (folder.parents[1] / "trees" / f"{folder.name}.json").is_file()


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
