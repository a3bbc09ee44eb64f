"""What an experiment takes from a hub: fetched once into its client's cache, pinned to a commit, placed as an artifact.

Fetching needs the hub; placing needs only the cache (`HF_HOME`), so that compute nodes without a network will do, and
`HF_HUB_OFFLINE=1` works throughout.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from world_modality.errors import InputError
from world_modality.files import atomic_path
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
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"{repository.kind} {repository.name}: not in the hub's cache, and not to be had from the hub ({reason}); "
            "`snakemake fetch` fetches it where there is a network"
        ) from None


def _snapshot(repository: Repository, **how: bool) -> Path:
    patterns = list(repository.files) or None
    kind, name, revision = repository.kind, repository.repo_id, repository.revision
    return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=patterns, **how))


def place(repository: Repository, folder: Path) -> None:
    """Write the files of a repository to `folder`: hard links into the cache where they can be, else copies.

    Raises:
        InputError: as `fetch`; or the repository holds none of the wanted files.
    """
    fetched = fetch(repository)
    if not any(fetched.rglob("*")):
        raise InputError(f"{repository.kind} {repository.name}: no files {', '.join(repository.files)}".rstrip())
    with atomic_path(folder) as temporary:
        wanted = shutil.ignore_patterns(".*")  # .gitattributes and the like
        shutil.copytree(fetched, temporary, ignore=wanted, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> None:
    source = os.path.realpath(source)  # the cache's snapshots are links to its blobs
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


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
