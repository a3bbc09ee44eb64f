"""Source hashes follow code, not comments, through every import."""

import pytest

from world_modality import sources as library
from world_modality.sources import import_closure, source_code


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A small repository: a script that imports `world_modality.leaf` through `world_modality.branch`."""
    package = tmp_path / "world_modality"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "leaf.py").write_text('"""Leaf."""\n\n\ndef f():\n    """Docstring."""\n    return 1  # comment\n')
    (package / "branch.py").write_text("from world_modality.leaf import f\n")
    (package / "config.py").write_text("x = 1\n")
    (package / "unrelated.py").write_text("x = 1\n")
    (tmp_path / "script.py").write_text("from world_modality import branch, config\n")
    monkeypatch.setattr(library, "REPOSITORY", tmp_path)

    def edit(name, old, new):
        path = tmp_path / name
        path.write_text(path.read_text().replace(old, new))
        library._code_sha256.cache_clear()
        library._first_party_imports.cache_clear()

    edit("script.py", "", "")
    yield edit
    edit("script.py", "", "")


def test_the_closure_follows_imports_and_leaves_the_config_out(sources):
    assert import_closure("script.py") == {"world_modality", "world_modality.branch", "world_modality.leaf"}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("world_modality/leaf.py", "# comment", "# another comment"),
        ("world_modality/leaf.py", "Docstring.", "Another docstring."),
        ("world_modality/leaf.py", '"""Leaf."""', '"""Other."""'),
        ("world_modality/unrelated.py", "x = 1", "x = 2"),
        ("world_modality/config.py", "x = 1", "x = 2"),
    ],
)
def test_the_source_hash_ignores_what_makes_no_artifact(sources, file, old, new):
    before = source_code("script.py")
    sources(file, old, new)
    assert source_code("script.py") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("world_modality/leaf.py", "return 1", "return 2"),
        ("world_modality/branch.py", "import f", "import f as g"),
        ("script.py", "branch, config", "branch"),
    ],
)
def test_the_source_hash_sees_an_edit_of_code_however_far_away(sources, file, old, new):
    before = source_code("script.py")
    sources(file, old, new)
    assert source_code("script.py") != before
