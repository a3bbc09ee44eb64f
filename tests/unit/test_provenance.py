"""Artifacts come into being whole or not at all, and source hashes follow code, not comments."""

import pytest

from world_modality import provenance
from world_modality.provenance import atomic_path, import_closure, read_json, source_hash, tree_sha256, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    final = tmp_path / "artifact.json"
    write_json(final, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_path(final) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert read_json(final) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["artifact.json"]


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    final = tmp_path / "folder"
    for name in ("first", "second"):
        with atomic_path(final) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert [p.name for p in final.iterdir()] == ["second"]


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "artifact"):
        pass


def test_truncated_json_is_refused_by_name(tmp_path):
    path = tmp_path / "eval.json"
    path.write_text('{"episodes": [')
    with pytest.raises(ValueError, match=r"eval\.json: not a whole JSON file"):
        read_json(path)


def test_not_a_number_never_reaches_a_file(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_tree_hash_sees_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("same")
    assert tree_sha256(tmp_path / "a") == tree_sha256(tmp_path / "b")
    (tmp_path / "b" / "file").rename(tmp_path / "b" / "other")
    assert tree_sha256(tmp_path / "a") != tree_sha256(tmp_path / "b")


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
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)

    def edit(name, old, new):
        path = tmp_path / name
        path.write_text(path.read_text().replace(old, new))
        provenance._code_sha256.cache_clear()
        provenance._first_party_imports.cache_clear()

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
    before = source_hash("script.py")
    sources(file, old, new)
    assert source_hash("script.py") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("world_modality/leaf.py", "return 1", "return 2"),
        ("world_modality/branch.py", "import f", "import f as g"),
        ("script.py", "branch, config", "branch"),
    ],
)
def test_the_source_hash_sees_an_edit_of_code_however_far_away(sources, file, old, new):
    before = source_hash("script.py")
    sources(file, old, new)
    assert source_hash("script.py") != before
