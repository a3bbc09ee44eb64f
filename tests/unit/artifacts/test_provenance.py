"""Every artifact says what it was made from, and whoever reads it notices damage, swaps and stale ancestors."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from world_modality.artifacts import provenance
from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import Ingredient, examine, examine_all, making, read_provenance
from world_modality.artifacts.records import content_sha256, read_content
from world_modality.errors import InputError
from world_modality.report.lineage import described_by, verify, walk

PROGRAM = str(Path(__file__).parents[3] / "scripts" / "write_manifest.py")


def write(path, text="1"):
    """An artifact's content in the form its name asks for."""
    if not path.suffix:
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "weights.safetensors").write_text(text)
        (path / "config.json").write_text("{}")
    elif path.suffix == ".json":
        write_json(path, {"value": text})
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"episode": i, "value": text}) + "\n" for i in range(3)))
    elif path.suffix == ".parquet":
        latents = pa.FixedSizeListArray.from_arrays(pa.array([float(len(text))] * 12, pa.float16()), 4)
        table = pa.table({"index": range(3), "latent": latents}).replace_schema_metadata({"made": "here"})
        pq.write_table(table, path, row_group_size=2)
    else:
        path.write_text(f"<svg>{text}</svg>\n")


def make(name, text="1", **inputs):
    with making(name, PROGRAM, inputs, {"value": text}, {"train": 3}) as path:
        write(path, text)
    return Path(name)


KINDS = ["folder", "a.json", "a.jsonl", "a.parquet", "a.svg"]


@pytest.fixture(autouse=True)
def experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_says_what_it_was_made_from(kind):
    make("dataset")
    record = read_provenance(make(f"results/{kind}", dataset=Path("dataset")))
    assert record.artifact == f"results/{kind}"
    assert record.program == "scripts/write_manifest.py"
    assert [(i.role, i.path, i.sha256) for i in record.inputs] == [("dataset", "dataset", content_sha256("dataset"))]
    assert record.spec == {"value": "1"}
    assert record.seeds == {"train": 3}
    assert "world_modality/training/manifest.py" in record.source
    assert {"python", "torch", "lerobot"} <= set(record.versions)
    assert record.is_intact()


@pytest.mark.parametrize("kind", KINDS)
def test_the_content_hash_leaves_the_record_out(kind, tmp_path):
    (tmp_path / "plain").mkdir()
    write(tmp_path / "plain" / kind)
    assert content_sha256(make(kind)) == content_sha256(tmp_path / "plain" / kind)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_content_has_equal_hashes_and_equal_making_equal_bytes(kind, tmp_path, monkeypatch):
    first = make(kind)
    (tmp_path / "again").mkdir()
    monkeypatch.chdir(tmp_path / "again")
    again = make(kind)
    assert content_sha256(tmp_path / kind) == content_sha256(again)
    if first.suffix:
        assert (tmp_path / kind).read_bytes() == again.read_bytes()
    assert content_sha256(make(f"other{again.suffix}", "another")) != content_sha256(again)


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_is_examined_before_it_is_used(kind):
    path = make(kind)
    assert examine(path) == content_sha256(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["flip", "truncate"])
def test_damage_anywhere_is_noticed(kind, how):
    """Not every flip changes what is read (a space in JSON), but no flip goes unnoticed and changes it."""
    path = make(kind)
    file = path / "sub" / "weights.safetensors" if kind == "folder" else path
    whole = file.read_bytes()
    content = content_sha256(path)
    noticed = 0
    for at in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = whole[:at] if how == "truncate" else whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        file.write_bytes(damaged)
        try:
            found = examine(path)
        except InputError:
            noticed += 1
        else:
            assert found == content, at
    assert noticed > 20 or kind == "folder"  # a short file
    file.write_bytes(whole)
    assert examine(path) == content


def test_a_record_that_was_edited_is_noticed():
    path = make("a.json")
    path.write_text(path.read_text().replace('"train": 3', '"train": 4'))
    with pytest.raises(InputError, match=r"a\.json: its provenance was altered"):
        examine(path)


def test_an_input_that_is_no_longer_what_it_was_is_refused():
    make("dataset")
    make("latents.parquet", dataset=Path("dataset"))
    make("dataset", "another")
    with pytest.raises(InputError, match=r"latents\.parquet: made from dataset dataset with content .* which now has"):
        examine("latents.parquet")


def test_an_ancestor_of_an_ancestor_is_noticed_too():
    make("dataset")
    make("latents.parquet", dataset=Path("dataset"))
    make("checkpoint", latents=Path("latents.parquet"))
    make("dataset", "another")
    with pytest.raises(InputError, match=r"latents\.parquet: made from dataset"):
        examine("checkpoint")


def test_inputs_that_contradict_each_other_are_refused():
    make("dataset")
    make("latents.parquet", dataset=Path("dataset"))
    Path("dataset").rename("old")
    make("elsewhere", "another")
    with pytest.raises(InputError, match=r"latents\.parquet was made from dataset dataset .* but elsewhere has"):
        examine_all({"dataset": Path("elsewhere"), "latents": Path("latents.parquet")})


def test_an_ancestor_made_again_with_equal_content_is_no_matter():
    make("dataset")
    make("latents.parquet", dataset=Path("dataset"))
    make("dataset")
    examine("latents.parquet")


def test_a_folder_from_elsewhere_is_taken_for_what_it_is_where_it_may_come_from_elsewhere():
    write(Path("foreign"))
    inputs = {"dataset": Path("foreign"), "encoder": "facebook/vjepa2"}
    with pytest.raises(InputError, match="foreign: says nothing about what it was made from"):
        make("latents.parquet", **inputs)
    with making("latents.parquet", PROGRAM, inputs, foreign=["dataset"]) as path:
        write(path)
    record = read_provenance("latents.parquet")
    assert [(i.role, i.sha256) for i in record.inputs] == [("dataset", content_sha256("foreign")), ("encoder", None)]


def diamond():
    """`left` and `right` were made from one dataset, which was another one each time; `right`'s lies there now."""
    make("dataset")
    make("left.json", dataset=Path("dataset"))
    make("dataset", "another")
    make("right.json", dataset=Path("dataset"))


@pytest.fixture
def careless(monkeypatch):
    """A program that does not examine its inputs, as an older or a foreign one may."""
    found = lambda inputs, foreign: [Ingredient(r, str(p), content_sha256(p)) for r, p in inputs.items()]  # noqa: E731
    monkeypatch.setattr(provenance, "examine_all", found)
    yield
    monkeypatch.undo()


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
@pytest.mark.parametrize("gone", [False, True])
def test_two_ancestors_that_were_made_from_two_versions_of_a_third_are_noticed(careless, monkeypatch, order, gone):
    diamond()
    top = make("top.json", **{role: Path(f"{role}.json") for role in order})
    monkeypatch.setattr(provenance, "examine_all", examine_all)
    if gone:
        shutil.rmtree("dataset")
    with pytest.raises(InputError, match=r"\.json: made from dataset dataset with content .* content"):
        examine(top)


def test_two_inputs_that_were_made_from_two_versions_of_a_third_are_refused_even_where_it_is_gone():
    diamond()
    shutil.rmtree("dataset")
    examine("left.json")
    with pytest.raises(InputError, match=r"right\.json: made from dataset dataset with content .* left\.json"):
        examine_all({"left": Path("left.json"), "right": Path("right.json")})


def test_one_of_several_inputs_of_a_role_contradicts_nothing():
    blocks = [make(f"block_{i}.jsonl", str(i)) for i in range(2)]
    make("videos", blocks=blocks)
    examine_all({"blocks": blocks[:1], "videos": Path("videos")})


def test_nothing_is_made_where_an_input_is_damaged():
    path = make("a.json")
    write_json(path, json.loads(path.read_text()) | {"value": "2"})
    with pytest.raises(InputError, match="damaged or altered"), making("b.json", PROGRAM, {"a": path}):
        raise AssertionError("the program began")
    assert not Path("b.json").exists()


def test_the_content_of_a_json_artifact_comes_without_its_record():
    assert read_content(make("a.json")) == {"value": "1"}


def test_parquet_keeps_its_data_metadata_and_row_groups():
    make("a.parquet")
    file = pq.ParquetFile("a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 1]
    assert file.schema_arrow.metadata[b"made"] == b"here"
    assert file.read()["index"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["ab", "c"]), "column is string"),
        (pa.array([b"ab", b"c"]), "column is binary"),
        (pa.array([[1, 2], [3]]), "column is list<.*>"),
        (pa.array([[[1], [2]], [[3], [4]]], pa.list_(pa.list_(pa.int64()), 2)), "column is fixed_size_list"),
        (pa.array([{"x": 1}, {"x": 2}]), "column is struct"),
        (pa.array([1, None]), "column has missing values"),
        (pa.array([[1, 2], None], pa.list_(pa.int64(), 2)), "column has missing values"),
        (pa.array([[1, 2], [None, 3]], pa.list_(pa.int64(), 2)), "column has missing values"),
    ],
)
def test_a_table_of_what_has_no_fixed_width_is_refused(column, message):
    """Its bytes would be those of another table as well: ["ab", "c"] and ["a", "bc"], [1] and [1, missing]."""
    pq.write_table(pa.table({"column": column}), "a.parquet")
    with pytest.raises(InputError, match=rf"a\.parquet: {message}.*valid: numbers, booleans and fixed-size lists"):
        content_sha256("a.parquet")


def test_numbers_and_booleans_in_fixed_size_lists_are_hashed_whatever_the_row_groups():
    lists = pa.array([[[1, 2]], [[3, 4]], [[5, 6]]], pa.list_(pa.list_(pa.int8(), 2), 1))
    table = pa.table({"flag": [True, False, True], "half": pa.array([1, 2, 3], pa.float16()), "lists": lists})
    for size in (1, 3):
        pq.write_table(table, f"{size}.parquet", row_group_size=size)
    assert content_sha256("1.parquet") == content_sha256("3.parquet")
    pq.write_table(table.slice(0, 2), "2.parquet")
    assert content_sha256("2.parquet") != content_sha256("3.parquet")


def test_the_hash_of_a_table_is_what_it_always_was():
    write(Path("a.parquet"))
    assert content_sha256("a.parquet") == "6bac437c38172557d2d2091cd0f88c15ebbe1680be42313f7901259afee0bf50"


# ---- walking back and verifying -------------------------------------------------------------------------------------


@pytest.fixture
def results():
    make("results/dataset")
    make("results/latents.parquet", dataset=Path("results/dataset"))
    inputs = {"dataset": Path("results/dataset"), "latents": Path("results/latents.parquet")}
    make("results/ckpt/seed_0", **inputs)
    return make("results/eval.json", checkpoint=Path("results/ckpt/seed_0"))


def test_walking_back_ends_at_the_demonstrations(results):
    assert [(s.depth, s.ingredient.path, s.note) for s in walk(results)] == [
        (0, "results/eval.json", ""),
        (1, "results/ckpt/seed_0", ""),
        (2, "results/dataset", ""),
        (2, "results/latents.parquet", ""),
        (3, "results/dataset", ""),
    ]


def test_an_ancestor_that_was_not_followed_the_first_time_is_followed_the_next(careless):
    make("origin")
    make("dataset", "first", origin=Path("origin"))
    make("left.json", dataset=Path("dataset"))
    make("dataset", "another", origin=Path("origin"))
    make("right.json", dataset=Path("dataset"))
    steps = walk(make("top.json", left=Path("left.json"), right=Path("right.json")))
    assert [(s.depth, s.ingredient.path, s.note[:15]) for s in steps] == [
        (0, "top.json", ""),
        (1, "left.json", ""),
        (2, "dataset", "now has content"),
        (1, "right.json", ""),
        (2, "dataset", ""),
        (3, "origin", ""),
    ]


def test_a_file_in_an_artifact_is_described_by_it(results):
    assert described_by("results/ckpt/seed_0/sub/weights.safetensors") == Path("results/ckpt/seed_0")


def test_what_nothing_describes_is_said_so():
    Path("stray.json").write_text("{}")
    for name, message in (("stray.json", "says what it was made from"), ("absent.json", "no such file")):
        with pytest.raises(InputError, match=message):
            described_by(name)


def problems():
    return {str(path): found for path, found in verify("results") if found}


def test_a_whole_results_folder_is_verified(results):
    assert len(list(verify("results"))) == 4
    assert problems() == {}


def test_the_damaged_files_of_a_folder_are_named(results):
    folder = Path("results/ckpt/seed_0")
    with (folder / "sub" / "weights.safetensors").open("a") as file:
        file.write("more")
    [[problem]] = problems().values()
    assert problem.startswith("results/ckpt/seed_0: damaged or altered: ")
    assert problem.endswith(" (changed: sub/weights.safetensors)")
    (folder / "config.json").unlink()
    for name in "abcde":
        (folder / name).touch()
    [[problem]] = problems().values()
    assert problem.endswith(" (changed: sub/weights.safetensors; missing: config.json; new: a, b, c and 2 more)")


def test_a_record_of_another_version_is_named(results):
    path = Path("results/ckpt/seed_0/provenance.json")
    write_json(path, {k: v for k, v in json.loads(path.read_text()).items() if k != "files"})
    [message] = problems()["results/ckpt/seed_0"]
    assert "its provenance is not a record of this version" in message


def test_a_link_to_nowhere_is_found_and_the_rest_is_verified(results):
    Path("results/broken.json").symlink_to("nowhere.json")
    assert problems() == {"results/broken.json": ["results/broken.json: cannot be read (No such file or directory)"]}


def swap(a, b):
    Path(a).rename("kept")
    Path(b).rename(a)
    Path("kept").rename(b)


def test_files_swapped_under_each_others_names_are_found(results):
    make("results/other.json", "other")
    swap("results/eval.json", "results/other.json")
    assert "was made as results/other.json" in problems()["results/eval.json"][0]


def test_a_stray_file_without_a_record_is_found(results):
    Path("results/stray.json").write_text("{}")
    assert problems() == {"results/stray.json": ["results/stray.json: says nothing about what it was made from"]}


def test_a_stale_ancestor_is_found_in_everything_made_from_it(results):
    make("results/dataset", "another")
    assert set(problems()) == {"results/latents.parquet", "results/ckpt/seed_0", "results/eval.json"}


def test_a_results_folder_is_verified_from_anywhere(results, tmp_path, monkeypatch):
    make("results/dataset", "another")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    wrong = [path.name for path, found in verify("../results") if found]
    assert wrong == ["seed_0", "eval.json", "latents.parquet"]


def test_a_renamed_results_folder_is_still_verified(results):
    Path("results").rename("kept")
    assert [found for _, found in verify("kept") if found] == []


@pytest.mark.parametrize("text", ["[1]", '{"a": NaN}', '{"provenance": 3}', '{"provenance": {}}', ""])
def test_what_cannot_be_read_is_said_and_the_rest_is_verified(results, text):
    Path("results/broken.json").write_text(text)
    assert list(problems()) == ["results/broken.json"]


def test_an_empty_folder_is_no_results_folder():
    with pytest.raises(InputError, match="results: holds no artifact"):
        list(verify("results"))
