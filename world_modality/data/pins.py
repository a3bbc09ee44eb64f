"""The commits at which an experiment takes what comes from a hub: `experiments/commits.yaml`.

A branch moves. So the commit at which a run first finds it is written down, and counts from then on.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from world_modality.artifacts.files import atomic_path, read_text
from world_modality.data.hub import at, locate
from world_modality.errors import InputError
from world_modality.experiment.sections import Repository, is_commit


def pin(repositories: list[Repository], path: Path) -> dict[str, str]:
    """Write to `path` the commit at which each branch or tag is found, except those that are pinned there already.

    Nothing is written unless every repository, pinned or not, can be fetched: from the hub, or out of the cache.

    Returns:
        the commit of each branch and tag, by `Repository.name`.

    Raises:
        InputError: a repository cannot be fetched, or `path` cannot be written.
    """
    pinned = _pins(path)
    found = {r.name: locate(at(r, pinned.get(r.name, r.revision))) for r in repositories}
    commits = {r.name: found[r.name] for r in repositories if not is_commit(r.revision)}
    return commits if commits.keys() <= pinned.keys() else _add(commits, path)


def _pins(path: Path) -> dict[str, str]:
    return yaml.safe_load(read_text(path))["commits"] or {}


def _add(commits: dict[str, str], path: Path) -> dict[str, str]:
    """Add commits to the file; what another run has pinned meanwhile counts, and is returned instead."""
    try:
        with atomic_path(path) as temporary:
            comment = "".join(f"{line}\n" for line in read_text(path).splitlines() if line.startswith("#"))
            pinned = commits | _pins(path)
            temporary.write_text(comment + yaml.safe_dump({"commits": pinned}), encoding="utf-8")
    except InputError as error:
        overlay = yaml.safe_dump({"commits": commits}, default_flow_style=True, width=10**6).strip()
        raise InputError(f"{error}; put {overlay} into an overlay instead") from None
    return {name: pinned[name] for name in commits}
