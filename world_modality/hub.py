"""What an experiment takes from a hub: fetched once into its client's cache, pinned to a commit, placed as an artifact.

Fetching needs the hub; placing needs only the cache (`HF_HOME`), so that compute nodes without a network will do, and
`HF_HUB_OFFLINE=1` works throughout.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from world_modality.errors import InputError
from world_modality.files import atomic_path, read_json, write_json
from world_modality.records import NOT_CONTENT
from world_modality.sections import Repository, is_commit


def fetch(repository: Repository) -> Path:
    """Bring the files of a repository into the cache; what is there already is not fetched again.

    Returns:
        the cache's folder of them, named after the commit.

    Raises:
        InputError: no such repository or revision, or the hub cannot be reached and the cache lacks it.
    """
    try:
        if is_commit(repository.revision):
            with contextlib.suppress(LocalEntryNotFoundError):
                return _snapshot(repository, local_files_only=True)
        return _snapshot(repository)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).strip().splitlines()), repr(error))
        raise InputError(
            f"{repository.kind} {repository.name}: not in the hub's cache, and not to be had from the hub ({reason}); "
            "`snakemake fetch` fetches it where there is a network"
        ) from None


def _snapshot(repository: Repository, **how: bool) -> Path:
    patterns = list(repository.files) or None
    kind, name, revision = repository.kind, repository.repo_id, repository.revision
    return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns, **how))


def place(repository: Repository, folder: Path) -> None:
    """Make `folder` of the files of a repository: hard links into the cache where they can be, else copies.

    A VLM's config no longer says in which precision its weights were saved: SmolVLA would build a policy's in it.

    Raises:
        InputError: as `fetch`; or the repository holds none of the wanted files.
    """
    fetched = fetch(repository)
    if not any(fetched.rglob("*")):
        raise InputError(f"{repository.kind} {repository.name}: no files {', '.join(repository.files)}".rstrip())
    wanted = shutil.ignore_patterns(".*", *NOT_CONTENT)  # .gitattributes and the like
    shutil.copytree(fetched, folder, ignore=wanted, copy_function=_link_or_copy)
    config = folder / "config.json"
    if config.exists() and (content := read_json(config)).get("model_type") == "smolvlm":
        write_json(config, _without_precision(content))  # a new file: the cache keeps the old one


def _link_or_copy(source: str, target: str) -> None:
    source = os.path.realpath(source)  # the cache's snapshots are links to its blobs
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
    """Fetch all repositories, and write to `path` at which commit each branch or tag was found the first time.

    Returns:
        the commit of each, by `Repository.name`.
    """
    text = path.read_text(encoding="utf-8")
    pinned: dict[str, str] = yaml.safe_load(text)["commits"]
    found = {}
    for repository in repositories:
        commit = pinned.get(repository.name, repository.revision)
        found[repository.name] = fetch(repository.model_copy(update={"revision": commit})).name
    kept = pinned | {r.name: found[r.name] for r in repositories if not is_commit(r.revision)}
    if kept != pinned:
        comment = "".join(f"{line}\n" for line in text.splitlines() if line.startswith("#"))
        with atomic_path(path) as temporary:
            temporary.write_text(comment + yaml.safe_dump({"commits": kept}), encoding="utf-8")
    return found
