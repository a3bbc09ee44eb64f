"""Every artifact says what it was made from, and whoever reads it notices damage, swaps and stale ancestors."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from world_modality.artifacts.files import write_json
from world_modality.artifacts.provenance import examine, examine_all, making, read_provenance
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
