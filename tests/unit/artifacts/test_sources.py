"""Source hashes follow code, not comments, through every import."""

import ast

import pytest

from world_modality.artifacts import sources as library
from world_modality.artifacts.files import file_sha256, text_sha256, write_json
from world_modality.artifacts.records import content_sha256
from world_modality.artifacts.sources import NOT_HASHED, import_closure, source_code


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A small repository: a script that imports `world_modality.room.leaf` through `world_modality.branch`."""
    package = tmp_path / "world_modality"
    for folder in (package, package / "room", package / "experiment"):
        folder.mkdir()
        (folder / "__init__.py").write_text("")
    (package / "room" / "leaf.py").write_text(
        '"""Leaf."""\n\n\ndef f():\n    """Docstring."""\n    return 1  # comment\n'
    )
    (package / "branch.py").write_text("from world_modality.room.leaf import f\n")
    (package / "experiment" / "config.py").write_text("x = 1\n")
    (package / "unrelated.py").write_text("x = 1\n")
    (tmp_path / "script.py").write_text(
        "from world_modality import branch\nfrom world_modality.experiment import config\n"
    )
    monkeypatch.setattr(library, "REPOSITORY", tmp_path)

    def edit(name, old, new):
        path = tmp_path / name
        path.write_text(path.read_text().replace(old, new))

    return edit


def test_the_closure_follows_imports_and_leaves_the_config_out(sources):
    modules = ("branch", "experiment", "room", "room.leaf")
    assert import_closure("script.py") == {"world_modality", *(f"world_modality.{name}" for name in modules)}


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("world_modality/room/leaf.py", "# comment", "# another comment"),
        ("world_modality/room/leaf.py", "Docstring.", "Another docstring."),
        ("world_modality/room/leaf.py", '"""Leaf."""', '"""Other."""'),
        ("world_modality/unrelated.py", "x = 1", "x = 2"),
        ("world_modality/experiment/config.py", "x = 1", "x = 2"),
    ],
)
def test_the_source_hash_ignores_what_makes_no_artifact(sources, file, old, new):
    before = source_code("script.py")
    sources(file, old, new)
    assert source_code("script.py") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("world_modality/room/leaf.py", "return 1", "return 2"),
        ("world_modality/branch.py", "import f", "import f as g"),
        ("script.py", "branch", "branch as b"),
        ("world_modality/room/__init__.py", "", "x = 1"),
    ],
)
def test_the_source_hash_sees_an_edit_of_code_however_far_away(sources, file, old, new):
    before = source_code("script.py")
    sources(file, old, new)
    assert source_code("script.py") != before


# ---- modules left out of source hashes ------------------------------------------------------------------------------

VALIDATORS = {"field_validator", "model_validator"}
# What a module of models may hold in addition to fields and validators, and why no artifact's content depends on it.
NO_CONTENT = {
    "sections.MAX_SEED": "only refuses: no seed of a program's arguments or of the config is greater",
    "sections.ROLLOUT_MEMORIES": "only refuses: read by a validator alone",
    "sections.COMMIT": "only refuses: the pattern of a field and of is_commit",
    "sections._check_hub": "only refuses: called by validators alone",
    "sections.is_commit": "whether the cache alone will do; what is placed is of the commit in the rule's params",
    "sections.Repository.name": "a key of `commits`, whose value reaches the rule's params",
    "sections.explain": "words of an error",
    "sections.message_of": "words of an error",
    "sections._fields_at": "words of an error",
    "sections.nearest": "words of an error",
    "specs.spec_argument": "reads a spec from the command line, and only refuses",
    "specs.spec_argument.parse": "reads a spec from the command line, and only refuses",
}


def modules_of_models():
    """Modules left out of source hashes that declare pydantic models."""
    trees = {name.rpartition(".")[2]: ast.parse(library._module_file(name).read_text()) for name in NOT_HASHED}
    return {
        name: tree
        for name, tree in trees.items()
        if any(base in ("BaseModel", "Section") for node in ast.walk(tree) for base in bases(node))
    }


def bases(node):
    return [base.id for base in getattr(node, "bases", []) if isinstance(base, ast.Name)]


def logic(tree):
    """Names of what may decide something: functions that are no validators, and constants."""
    validators = {n.args[0].id for n in ast.walk(tree) if isinstance(n, ast.Call) and called(n) == "AfterValidator"}

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            name = f"{prefix}{getattr(child, 'name', '')}"
            if isinstance(child, ast.ClassDef):
                yield from visit(child, f"{name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if name not in validators and not {called(d) for d in child.decorator_list} & VALIDATORS:
                    yield name
                    yield from visit(child, f"{name}.")
            elif isinstance(child, ast.Lambda):
                yield f"{prefix}lambda"
            else:
                targets = getattr(child, "targets", [getattr(child, "target", None)])
                yield from (f"{prefix}{t.id}" for t in targets if isinstance(t, ast.Name) and t.id.isupper())
                yield from visit(child, prefix)

    return set(visit(tree, ""))


def called(node):
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "id", getattr(function, "attr", ""))


def test_the_modules_of_models_are_the_sections_the_specs_and_the_experiment():
    assert set(modules_of_models()) == {"sections", "specs", "config"}


def test_sections_and_specs_hold_fields_and_validators_alone():
    """What `config` decides reaches the rules' params, inputs and commands; what sections and specs decide does not."""
    modules = modules_of_models()
    found = {f"{module}.{name}" for module in ("sections", "specs") for name in logic(modules[module])}
    assert found == set(NO_CONTENT), "logic belongs in a module that is hashed, or here with a reason"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("class A(Section):\n    x: int\n    @model_validator(mode='after')\n    def f(self): return self", set()),
        ("def f(v): return v\nX = Annotated[int, AfterValidator(f)]", {"X"}),
        ("class A(Section):\n    @property\n    def f(self): return 1", {"A.f"}),
        ("class A(Section):\n    Y = 3", {"A.Y"}),
        ("def f():\n    def g(): pass\n    return g", {"f", "f.g"}),
        ("Alpha = Literal['a']\nf = lambda x: x", {"lambda"}),
    ],
)
def test_logic_is_told_from_fields_and_validators(text, found):
    assert logic(ast.parse(text)) == found


def test_content_hashes_stand_as_long_as_the_format_does(tmp_path):
    """Modules that hash contents are left out of source hashes: an edit of what they give needs another `FORMAT`."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a\n")
    write_json(tmp_path / "a.json", {"b": [1, 0.5, None], "a": "é"})
    (tmp_path / "a.jsonl").write_text('{"b": 1, "a": "x"}\n')
    (tmp_path / "a.svg").write_text("<svg></svg>\n")
    hashes = {name: content_sha256(tmp_path / name)[:12] for name in ("folder", "a.json", "a.jsonl", "a.svg")}
    assert library.FORMAT == "format 2"
    assert (text_sha256("a")[:12], file_sha256(tmp_path / "a.svg")[:12]) == ("ca978112ca1b", "6d6ddf6160db")
    assert hashes == {
        "folder": "72f967882b3d",
        "a.json": "36039f138692",
        "a.jsonl": "9a3623288cf4",
        "a.svg": "6d6ddf6160db",
    }
