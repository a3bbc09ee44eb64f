"""A hub that exists only in its client's cache."""

import pytest
from huggingface_hub import constants


@pytest.fixture
def hub_cache(publish, tmp_path, monkeypatch):
    """An empty cache that the client reads without asking the hub, and a way to put a repository's commit into it."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(kind, repo_id, commit, files):
        publish(cache, kind, repo_id, commit, {name: text.encode() for name, text in files.items()})

    return add
