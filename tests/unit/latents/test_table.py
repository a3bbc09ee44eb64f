"""LatentTable: windows stay within episodes, and a file that breaks the contract is refused by name."""

import dataclasses
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from world_modality.errors import InputError
from world_modality.latents import table as module
from world_modality.latents.table import (
    LatentSpec,
    LatentTable,
    LatentTableError,
    join_tables,
    past_rows,
    write_latents,
)

LENGTHS = (1, 5, 12)
DIM = 6
SPEC = LatentSpec(
    dataset="demonstrations",
    dataset_revision=None,
    dataset_fingerprint="f" * 64,
    image_key="observation.images.image",
    encoder="encoder",
    encoder_revision=None,
    encoder_sha256="e" * 64,
    image_size=64,
    window=4,
    pooling="mean over all tokens",
    preprocessing="ImageNet",
    orientation="as stored in the dataset",
    dim=DIM,
    versions={"torch": "2"},
)


def episodes(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, DIM, generator=generator) for n in LENGTHS]


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "latents.parquet")


def write(path, spec=SPEC, seed=0):
    with write_latents(path, spec) as table:
        for latents in episodes(seed):
            table.write_episode(latents)
    return path


def rewrite(path, **columns):
    """Replace columns of a written table, keeping its metadata and row groups' sizes."""
    table = pq.read_table(path)
    for name, values in columns.items():
        field = table.schema.field(name)
        array = values if isinstance(values, pa.Array) else pa.array(values, field.type)
        table = table.set_column(table.schema.get_field_index(name), field, array)
    pq.write_table(table, path)


# ---- reading back ---------------------------------------------------------------------------------------------------


def test_latents_come_back_rounded_to_float16_in_order(path):
    table = LatentTable.open(path)
    assert torch.equal(table.latents, torch.cat(episodes()).half())
    assert (len(table), table.dim) == (18, DIM)
    assert table.specs == (SPEC,)


def test_the_same_latents_give_the_same_bytes(path, tmp_path):
    assert write(tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_row_groups_end_at_episode_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROW_GROUP_ROWS", 3)
    path = write(tmp_path / "latents.parquet")
    metadata = pq.ParquetFile(path).metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [6, 12]
    assert len(LatentTable.open(path)) == 18


def write_half(path):
    with write_latents(path, SPEC) as table:
        table.write_episode(episodes()[0])
        raise RuntimeError("killed")


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        write_half(tmp_path / "latents.parquet")
    assert not list(tmp_path.iterdir())


# ---- windows --------------------------------------------------------------------------------------------------------


def brute_force(index: int) -> tuple[list[torch.Tensor], int]:
    """The latents of the episode that global frame `index` is in, and the frame's place in it."""
    for latents in episodes():
        if index < len(latents):
            return [row.half().float() for row in latents], index
        index -= len(latents)
    raise IndexError


@pytest.mark.parametrize("length", [1, 4, 20])
def test_history_never_leaves_the_episode_and_repeats_its_first_latent(path, length):
    history = LatentTable.open(path).history(torch.arange(18), length)
    for index in range(18):
        episode, frame = brute_force(index)
        expected = [episode[max(0, frame - back)] for back in reversed(range(length))]
        assert torch.equal(history[index], torch.stack(expected))


@pytest.mark.parametrize("length", [1, 8, 20])
def test_future_never_leaves_the_episode_and_masks_what_does_not_exist(path, length):
    future, valid = LatentTable.open(path).future(torch.arange(18), length)
    for index in range(18):
        episode, frame = brute_force(index)
        wanted = range(frame + 1, frame + 1 + length)
        assert valid[index].tolist() == [t < len(episode) for t in wanted]
        assert torch.equal(future[index], torch.stack([episode[min(t, len(episode) - 1)] for t in wanted]))


def test_an_episode_of_one_frame_has_no_future(path):
    table = LatentTable.open(path)
    _, valid = table.future(torch.tensor([0]), 8)
    assert not valid.any()
    assert torch.equal(table.history(torch.tensor([0]), 4), table.latents[:1].float().expand(1, 4, DIM))


def test_indices_come_in_any_order_and_repeatedly(path):
    table = LatentTable.open(path)
    shuffled = torch.tensor([17, 3, 3, 0])
    assert torch.equal(table.history(shuffled, 4), table.history(torch.arange(18), 4)[shuffled])


@pytest.mark.parametrize("index", [-1, 18])
def test_a_frame_outside_the_table_is_an_error(path, index):
    with pytest.raises(IndexError, match=f"frame {index} is not in the latent table"):
        LatentTable.open(path).history(torch.tensor([0, index]), 4)


def test_past_rows_repeat_the_start():
    assert past_rows(torch.tensor([5, 7]), torch.tensor([5, 5]), 4).tolist() == [[5, 5, 5, 5], [5, 5, 6, 7]]


# ---- standardization and joining ------------------------------------------------------------------------------------


def test_standardized_latents_have_mean_0_and_deviation_1(path):
    table = LatentTable.open(path)
    mean, std = table.standardization()
    standard = (table.latents.float() - mean) / std
    torch.testing.assert_close(standard.mean(0), torch.zeros(DIM), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(DIM))


def test_a_dimension_constant_to_float16_is_not_blown_up(tmp_path):
    latents = torch.randn(20, DIM)
    latents[:, 2] = 0.1
    latents[:, 3] = torch.where(torch.arange(20) % 2 == 0, 1.0, 1.0 + 2**-10)  # one step of float16
    with write_latents(tmp_path / "latents.parquet", SPEC) as table:
        table.write_episode(latents)
    table = LatentTable.open(tmp_path / "latents.parquet")
    mean, std = table.standardization()
    assert std[2] == std[3] == 1
    assert ((table.latents.float() - mean) / std)[:, 2:4].abs().max() < 1e-3


def test_joined_tables_put_the_cameras_side_by_side(path, tmp_path):
    wrist_spec = dataclasses.replace(SPEC, image_key="observation.images.image2")
    front, wrist = LatentTable.open(path), LatentTable.open(write(tmp_path / "wrist.parquet", wrist_spec, seed=1))
    both = join_tables([front, wrist])
    index = torch.tensor([0, 5, 17])
    assert [spec.image_key for spec in both.specs] == ["observation.images.image", "observation.images.image2"]
    assert torch.equal(both.history(index, 4), torch.cat([front.history(index, 4), wrist.history(index, 4)], dim=-1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "one camera with themselves"),
        ({"image_key": "wrist", "dataset_fingerprint": "0"}, "dataset_fingerprint is '0'"),
        ({"image_key": "wrist", "window": 1}, "window is 1, expected 4"),
    ],
)
def test_tables_of_different_making_are_not_joined(path, tmp_path, change, message):
    other = write(tmp_path / "other.parquet", dataclasses.replace(SPEC, **change))
    with pytest.raises(LatentTableError, match=message):
        join_tables([LatentTable.open(path), LatentTable.open(other)])


def test_tables_of_other_episodes_are_not_joined(path, tmp_path):
    with write_latents(tmp_path / "other.parquet", dataclasses.replace(SPEC, image_key="wrist")) as table:
        table.write_episode(torch.cat(episodes()))
    with pytest.raises(LatentTableError, match="other episodes"):
        join_tables([LatentTable.open(path), LatentTable.open(tmp_path / "other.parquet")])


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expect",
    [{"window": 1}, {"image_key": "observation.images.image2"}, {"encoder_sha256": "0"}, {"dataset_fingerprint": "0"}],
)
def test_a_wrong_table_under_the_right_name_is_refused(path, expect):
    ((name, value),) = expect.items()
    with pytest.raises(LatentTableError, match=re.escape(f"{name} is {getattr(SPEC, name)!r}, expected {value!r}")):
        LatentTable.open(path, expect)
    LatentTable.open(path, {name: getattr(SPEC, name)})


def test_an_unknown_expectation_names_the_valid_ones(path):
    with pytest.raises(KeyError, match=r"no field temporal_window; valid: .*window"):
        LatentTable.open(path, {"temporal_window": 4})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.parquet: no such latent table"):
        LatentTable.open(tmp_path / "nowhere.parquet")


@pytest.mark.parametrize("keep", [0, 100, -10])
def test_a_truncated_file_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated or damaged Parquet"):
        LatentTable.open(path)


def test_a_flipped_bit_is_refused(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="truncated or damaged Parquet"):
        LatentTable.open(path)


def test_a_foreign_parquet_file_is_refused(path):
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(LatentTableError, match="not written as a latent table"):
        LatentTable.open(path)


def test_a_table_from_before_there_was_a_choice_of_precision_was_encoded_in_float32(path):
    table = pq.read_table(path)
    fields = json.loads(table.schema.metadata[module.METADATA_KEY])
    del fields["precision"]
    pq.write_table(
        table.replace_schema_metadata({module.METADATA_KEY: json.dumps(fields)}), path, row_group_size=len(table)
    )
    assert LatentTable.open(path, {"precision": "fp32"}).specs == (SPEC,)
    with pytest.raises(LatentTableError, match="precision is 'fp32', expected 'bf16'"):
        LatentTable.open(path, {"precision": "bf16"})


def test_metadata_of_another_version_is_refused(path):
    table = pq.read_table(path)
    metadata = {module.METADATA_KEY: json.dumps({"window": 4})}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(LatentTableError, match="not a LatentSpec"):
        LatentTable.open(path)


def test_columns_of_another_type_are_refused(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "frame_index", table["frame_index"].cast(pa.int32())), path)
    with pytest.raises(LatentTableError, match="frame_index int32"):
        LatentTable.open(path)


@pytest.mark.parametrize(
    ("column", "row", "value"),
    [("index", 4, 3), ("index", 17, 18), ("episode_index", 17, 0), ("frame_index", 6, 5), ("frame_index", 17, 0)],
)
def test_frames_numbered_with_a_gap_or_twice_are_refused(path, column, row, value):
    values = pq.read_table(path)[column].to_numpy().copy()
    values[row] = value
    rewrite(path, **{column: values})
    with pytest.raises(LatentTableError, match=f"row {row} has {column} {value}"):
        LatentTable.open(path)


def test_damage_is_reported_in_one_line(path):
    """Some of Arrow's messages have several."""
    content = path.read_bytes()
    for start in range(0, len(content), 97):
        path.write_bytes(content[:start] + b"\x00\xff\x13" + content[start + 3 :])
        try:
            LatentTable.open(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def test_a_missing_value_inside_a_latent_is_named(path):
    values = pa.array([None if i == 5 * DIM + 1 else 0.5 for i in range(18 * DIM)], pa.float16())
    rewrite(path, latent=pa.FixedSizeListArray.from_arrays(values, DIM))
    with pytest.raises(LatentTableError, match="the latent of frame 5 has missing values"):
        LatentTable.open(path)


def test_missing_episodes_are_an_error_and_not_one_episode(path):
    rewrite(path, episode_index=[None] * 18)
    with pytest.raises(LatentTableError, match="episode_index has 18 missing values"):
        LatentTable.open(path)


@pytest.mark.parametrize(
    ("value", "message"), [(np.nan, "frame 3 is NaN"), (np.inf, "frame 3 is NaN or infinite"), (0, "frame 3 is all ze")]
)
def test_latents_no_encoder_makes_are_refused_by_the_reader(path, value, message):
    values = torch.cat(episodes()).half().numpy()
    values[3] = value
    rewrite(path, latent=pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), DIM))
    with pytest.raises(LatentTableError, match=message):
        LatentTable.open(path)


def test_row_groups_that_cut_an_episode_are_refused(path):
    pq.write_table(pq.read_table(path), path, row_group_size=8)
    with pytest.raises(LatentTableError, match="row group ends within an episode, at row 8"):
        LatentTable.open(path)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (torch.randn(3, DIM + 1), r"shape \(3, 7\), expected \(frames, 6\)"),
        (torch.randn(0, DIM), r"shape \(0, 6\)"),
        (torch.full((2, DIM), 1e6), "NaN or infinite"),
        (torch.zeros(2, DIM), "all zeros"),
    ],
)
def test_the_writer_refuses_what_the_reader_would(tmp_path, latents, message):
    with pytest.raises(LatentTableError, match=message), write_latents(tmp_path / "l.parquet", SPEC) as table:
        table.write_episode(latents)
    assert not list(tmp_path.iterdir())


def test_a_table_without_frames_is_refused(tmp_path):
    with write_latents(tmp_path / "latents.parquet", SPEC):
        pass
    with pytest.raises(LatentTableError, match="no frames"):
        LatentTable.open(tmp_path / "latents.parquet")
