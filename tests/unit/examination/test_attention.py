"""Listening to the attention changes nothing; its tables keep their contract; what they say is what stands in them."""

import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs import PreTrainedConfig

from lerobot_policy_world_modality.modeling_smolvla_world import SmolVLAWorldPolicy
from tests.unit.examination.samples import CHUNK_ROWS, FRONT, HEADS, HORIZON, STEPS, WRIST, chunk, spec_of, table
from world_modality.artifacts.files import write_json
from world_modality.artifacts.records import content_sha256, write_record
from world_modality.data.dataset import load_dataset
from world_modality.errors import InputError
from world_modality.examination.attention import (
    EPISODE,
    METADATA_KEY,
    SCHEMA,
    AttentionTable,
    ChunkAttention,
    join_blocks,
    write_attention,
    write_episodes,
)
from world_modality.examination.attention_patterns import AttentionReport, compare
from world_modality.examination.training_attention import measure_training_attention, spread_frames
from world_modality.latents.table import LatentTable
from world_modality.report.attention_text import render
from world_modality.training.loop import TrainInputs, train

# ---- listening ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(experiment, folder, tmp_path_factory):
    """E2 after seven updates."""
    root = tmp_path_factory.mktemp("checkpoints")
    inputs = TrainInputs(folder / "dataset", folder / "vlm", folder / "encoder", {"front": folder / "front.parquet"})
    train(experiment.train_spec("E2"), inputs, 0, root / "E2", root / "progress")
    return root / "E2"


@pytest.fixture
def policy(checkpoint, folder):
    policy = SmolVLAWorldPolicy.from_pretrained(checkpoint, config=PreTrainedConfig.from_pretrained(checkpoint))
    torch.nn.init.constant_(policy.cross_attention.gate, 0.7)
    policy.attach_latents(LatentTable.open(folder / "front.parquet"))
    return policy.eval()


def batch_of(policy, index):
    draw = torch.Generator().manual_seed(7)
    images = {key: torch.rand(len(index), 3, 32, 32, generator=draw) for key in policy.config.image_features}
    return images | {
        "index": torch.tensor(index),
        "observation.state": torch.randn(len(index), 8, generator=draw),
        "observation.language.tokens": torch.arange(10, 16).expand(len(index), -1),
        "observation.language.attention_mask": torch.ones(len(index), 6, dtype=torch.bool),
    }


@torch.no_grad()
def chunk_of(policy, memory, batch):
    shape = (len(memory), policy.config.chunk_size, policy.config.max_action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    return policy.chunk_attending_to(memory, batch, noise)


def test_listening_changes_no_bit_of_the_actions_and_draws_nothing(policy):
    batch = batch_of(policy, [2, 9])
    memory = policy.training_memory(batch)
    unheard = chunk_of(policy, memory, batch)
    state = torch.get_rng_state()
    with policy.listening() as heard:
        assert torch.equal(chunk_of(policy, memory, batch), unheard)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(chunk_of(policy, memory, batch), unheard)
    assert len(heard) == STEPS


def test_each_denoising_step_says_what_it_attends_to(policy):
    batch = batch_of(policy, [2, 9])
    memory = policy.training_memory(batch)
    with policy.listening() as heard:
        chunk_of(policy, memory, batch)
    for attention in heard:
        assert attention.weights.shape == (2, HEADS, policy.config.chunk_size, HORIZON)
        torch.testing.assert_close(attention.weights.sum(-1), torch.ones(attention.weights.shape[:-1]))
        assert torch.equal(attention.memory, memory)
        assert attention.strength.item() == pytest.approx(np.tanh(0.7))


def test_a_memory_of_zeros_is_attended_to_evenly(policy):
    batch = batch_of(policy, [2])
    with policy.listening() as heard:
        chunk_of(policy, torch.zeros(1, HORIZON, policy.config.world_latent_dim), batch)
    attention = ChunkAttention.of(heard, actions=2)
    np.testing.assert_allclose(attention.weights, 1 / HORIZON, rtol=1e-6)
    np.testing.assert_array_equal(attention.memory_norm, 0)


def test_attention_is_averaged_over_the_first_actions_of_a_chunk():
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])[None, None]  # 1 chunk, 1 head, 3 actions, K = 2
    memory = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]])
    heard = [SimpleNamespace(weights=weights, memory=memory, strength=torch.tensor(0.5))]
    attention = ChunkAttention.of(heard, actions=2)
    np.testing.assert_allclose(attention.weights, [[[[0.75, 0.25]]]])
    np.testing.assert_allclose(attention.memory_norm, [[np.sqrt(12.5), 0]])
    assert attention.gate == 0.5


# ---- on training frames ---------------------------------------------------------------------------------------------


def measured(checkpoints, folder, output, **changes):
    options = {"frames": 100, "actions": 2, "batch_size": 4, "device": "cpu"} | changes
    latents = options.pop("latents", [folder / "front.parquet"])
    measure_training_attention(checkpoints, folder / "dataset", latents, output, **options)
    return AttentionTable.open(output)


def test_every_training_frame_has_a_row_for_each_step_head_and_predicted_frame(checkpoint, folder, tmp_path):
    table = measured([checkpoint], folder, tmp_path / "table.parquet")
    assert len(table.rows) == 15 * CHUNK_ROWS
    assert (table.spec.option, table.spec.where, table.spec.cameras) == ("E2", "training", FRONT)
    assert list(table.spec.checkpoints) == ["0"]
    chunks = table.rows.slice(0).take(list(range(0, len(table.rows), CHUNK_ROWS)))
    assert chunks["episode"].to_pylist() == [0] + [1] * 5 + [2] * 9
    assert chunks["episode_steps"].to_pylist() == [1] + [5] * 5 + [9] * 9
    assert chunks["step"].to_pylist() == [0, *range(5), *range(9)]
    assert chunks["task"].to_pylist() == [0] + [1] * 5 + [0] * 9
    attention = table.rows["attention"].to_numpy().reshape(-1, HORIZON)
    np.testing.assert_allclose(attention.sum(1), 1, atol=1e-5)
    assert attention.std(axis=1).max() > 1e-6


def test_what_a_frame_gets_does_not_depend_on_its_batch(checkpoint, folder, tmp_path):
    one, other = (measured([checkpoint], folder, tmp_path / f"{n}.parquet", batch_size=n) for n in (1, 15))
    assert one.rows.drop(["attention", "memory_norm"]) == other.rows.drop(["attention", "memory_norm"])
    for name in ("attention", "memory_norm"):
        np.testing.assert_allclose(one.rows[name].to_numpy(), other.rows[name].to_numpy(), rtol=1e-4)


def test_frames_are_spread_evenly_over_training_episodes_alone(folder):
    dataset = load_dataset(folder / "dataset")
    assert spread_frames(dataset, [0, 1, 2], 3) == [0, 7, 14]
    assert spread_frames(dataset, [0, 2], 4) == [0, 8, 11, 14]  # not the frames 1 to 5 of episode 1
    assert spread_frames(dataset, [1], 100) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": []}, "the latents are of nothing, the option was trained on those of observation.images.image"),
        ({"actions": 5}, "predicts 4 actions at once, not 5"),
    ],
)
def test_what_cannot_be_measured_is_refused(checkpoint, folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        measured([checkpoint], folder, tmp_path / "table.parquet", **changes)


def test_one_seed_is_not_measured_twice_and_a_plain_policy_not_at_all(checkpoint, folder, tmp_path):
    with pytest.raises(InputError, match="training seeds 0 are not all distinct"):
        measured([checkpoint, shutil.copytree(checkpoint, tmp_path / "E2")], folder, tmp_path / "table.parquet")
    plain = shutil.copytree(checkpoint, tmp_path / "E0")
    write_json(plain / "training.json", {"spec": {"option": "E0", "world": None}})
    with pytest.raises(InputError, match="option E0 was trained without a world modality"):
        measured([plain], folder, tmp_path / "table.parquet")


def write(path, *chunks, **fields):
    write_attention(path, spec_of(**fields), [pa.concat_tables(chunks)])
    return path


def test_a_written_table_is_read_back_and_a_record_changes_neither_it_nor_its_content(tmp_path):
    chunks = [chunk([[[0.25, 0.75]]]), chunk([[[0.5, 0.5]]], step=4)]
    path = write(tmp_path / "table.parquet", *chunks)
    before = content_sha256(path)
    write_record(path, {"program": "x"})
    table = AttentionTable.open(path)
    assert table.spec == spec_of()
    assert table.rows == pa.concat_tables(chunks)
    assert table.rows["k"].to_pylist() == [1, 2, 1, 2]
    assert content_sha256(path) == before


def _with(name, row, value):
    """One cell of a two-chunk table changed."""

    def change(rows):
        values = rows[name].to_pylist()
        values[row] = value
        return rows.set_column(
            SCHEMA.get_field_index(name), SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type)
        )

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_with("attention", 3, float("nan")), "step 4 of episode 0 of task 0, seed 0, has a attention that is NaN"),
        (_with("attention", 3, 0.6), "step 4 of episode 0 of task 0, seed 0, pays attention that does not sum to 1"),
        (_with("attention", 3, None), "attention is missing in 1 rows"),
        (_with("gate", 0, float("inf")), "has a gate that is NaN or infinite"),
        (_with("memory_norm", 1, float("nan")), "has a memory_norm that is NaN or infinite"),
        (_with("k", 1, 3), r"step 0 .* has rows missing or out of order \(k\)"),
        (_with("episode", 3, 7), r"step 4 .* has rows missing or out of order \(episode\)"),
        (lambda rows: rows.slice(1), r"has 3 rows, expected 2 \(denoising steps x heads x K\) for each chunk"),
        (lambda rows: rows.slice(0, 0), "has 0 rows, expected 2"),
        (lambda rows: rows.take([0, 1, 0, 1]), "the chunk at step 0 of episode 0 of task 0, seed 0, appears twice"),
        (lambda rows: rows.drop(["gate"]), "has the columns .* an attention table has train_seed int64, .* gate float"),
        (lambda rows: chunk([[[0.5, 0.5]]], step=8), "step 8 .* does not start within its episode"),
        (lambda rows: chunk([[[0.5, 0.5]]], seed=4), r"seed 4, is of none of the training seeds \[0\]"),
        (lambda rows: chunk([[[1.5, -0.5]]]), "pays negative attention"),
    ],
)
def test_a_table_that_breaks_the_contract_is_refused(tmp_path, change, message):
    path = tmp_path / "table.parquet"
    rows = change(pa.concat_tables([chunk([[[0.25, 0.75]]]), chunk([[[0.5, 0.5]]], step=4)]))
    pq.write_table(rows.replace_schema_metadata({METADATA_KEY: spec_of().model_dump_json()}), path)
    with pytest.raises(InputError, match=message) as refused:
        AttentionTable.open(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such attention table"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "truncated or damaged Parquet"),
        (lambda path: pq.write_table(SCHEMA.empty_table(), path), "not written as an attention table"),
        (
            lambda path: pq.write_table(SCHEMA.empty_table().replace_schema_metadata({METADATA_KEY: '{"a": 1}'}), path),
            "its metadata is not an AttentionSpec",
        ),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, damage, message):
    path = write(tmp_path / "table.parquet", chunk([[[0.25, 0.75]]]))
    damage(path)
    with pytest.raises(InputError, match=message):
        AttentionTable.open(path)


# ---- at rollout -----------------------------------------------------------------------------------------------------


def test_of_several_chunks_each_keeps_its_own_attention():
    """As a policy's `listening` gives it: one denoising step, one head, K = 2; only the first actions count."""
    weights = torch.tensor([[0.25, 0.75], [1, 0]])[:, None, None].repeat(1, 1, 4, 1)
    weights[:, :, 2:] = 0.5
    step = SimpleNamespace(
        weights=weights, memory=torch.tensor([1.0, 2])[:, None, None].expand(2, 2, 3), strength=torch.tensor(0.5)
    )
    heard = ChunkAttention.of([step], actions=2)
    for row, (attention, norm) in enumerate((([0.25, 0.75], 1.0), ([1.0, 0.0], 2.0))):
        rows = heard.row(row).rows(train_seed=0, task=1, episode=3, episode_steps=10, step=4).to_pydict()
        assert (rows["attention"], rows["memory_norm"], rows["gate"]) == (attention, [norm] * 2, [0.5] * 2)
        assert rows["step"] == [4, 4]


def test_of_a_policy_without_a_world_modality_there_is_a_table_without_rows(tmp_path):
    write_episodes(tmp_path / "block.parquet", spec_of("E0", cameras={}, shape=(0, 0, 0)), [])
    table = AttentionTable.open(tmp_path / "block.parquet")
    assert len(table.rows) == 0
    join_blocks([tmp_path / "block.parquet"], "E0", 20, tmp_path / "joined.parquet")
    assert AttentionTable.open(tmp_path / "joined.parquet").spec == table.spec
    with pytest.raises(InputError, match="option E0: a policy without a world modality attends to nothing"):
        compare([table], "E2", "A")


def block(path, episodes, seed=0, task=0, **fields):
    return write(path, *(chunk([[[0.25, 0.75]]], e, seed=seed, task=task) for e in episodes), seeds=(seed,), **fields)


def test_blocks_of_all_tasks_and_seeds_are_joined_without_the_episodes_not_asked_for(tmp_path):
    places = [(seed, task) for seed in (0, 1) for task in (0, 1)]
    blocks = [
        block(tmp_path / f"{s}_{t}_{b}.parquet", range(2 * b, 2 * b + 2), s, t) for s, t in places for b in (0, 1)
    ]
    join_blocks(blocks, "E2", 3, tmp_path / "joined.parquet")
    table = AttentionTable.open(tmp_path / "joined.parquet")
    assert table.spec == spec_of(seeds=(0, 1))
    found = list(zip(*(table.rows[name].to_pylist()[::2] for name in EPISODE), strict=True))
    assert found == [(seed, task, episode) for seed, task in places for episode in range(3)]


def test_an_option_that_was_settled_early_has_fewer_episodes_but_leaves_none_out(tmp_path):
    first, third = tmp_path / "a.parquet", tmp_path / "c.parquet"
    block(first, episodes=(0, 1))
    block(third, episodes=(4, 5))
    join_blocks([first], "E2", 9, tmp_path / "joined.parquet", adaptive=True)
    assert set(AttentionTable.open(tmp_path / "joined.parquet").rows["episode"].to_pylist()) == {0, 1}
    with pytest.raises(InputError, match="no block holds episode 2 of task 0"):
        join_blocks([first, third], "E2", 9, tmp_path / "joined.parquet", adaptive=True)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"episodes": (1, 2, 3)}, "b.parquet: episode 1 of task 0, seed 0, is in another block as well"),
        ({"episodes": (3,)}, "no block holds episode 2 of task 0, seed 0"),
        ({"option": "A"}, "b.parquet: is of option A in rollout, expected E2 in rollout"),
        ({"where": "training"}, "b.parquet: is of option E2 in training, expected E2 in rollout"),
        ({"cameras": WRIST}, "b.parquet: cameras is {'wrist': .*}, expected {'front': .*}"),
        ({"actions": 4}, "b.parquet: actions is 4, expected 8"),
    ],
)
def test_blocks_that_do_not_belong_together_are_refused(tmp_path, second, message):
    first = block(tmp_path / "a.parquet", (0, 1))
    other = block(tmp_path / "b.parquet", **{"episodes": (2, 3)} | second)
    with pytest.raises(InputError, match=message):
        join_blocks([first, other], "E2", 4, tmp_path / "joined.parquet")
    assert not (tmp_path / "joined.parquet").exists()


def test_blocks_of_two_checkpoints_of_one_seed_are_refused(tmp_path):
    first, spec = block(tmp_path / "a.parquet", (0, 1)), spec_of().model_copy(update={"checkpoints": {"0": "other"}})
    write_attention(tmp_path / "b.parquet", spec, [chunk([[[0.5, 0.5]]], 2)])
    with pytest.raises(InputError, match=r"b.parquet: seed 0 is checkpoint other, elsewhere weights of E"):
        join_blocks([first, tmp_path / "b.parquet"], "E2", 3, tmp_path / "joined.parquet")


def test_each_episode_counts_equally_and_phases_are_quarters_of_its_length():
    long = [chunk([[[1.0, 0.0]]], 0, step, episode_steps=16, norm=1) for step in (0, 4, 8, 12)]
    short = [chunk([[[0.5, 0.5]]], 1, 0, episode_steps=8, norm=3)]
    (pattern,) = compare([table(*long, *short)], "E2", "A").patterns
    assert (pattern.episodes, pattern.chunks) == (2, 5)
    assert pattern.overall.shares == pytest.approx([0.75, 0.25])
    assert pattern.overall.mean_k == pytest.approx(1.25)
    assert pattern.overall.evenness == pytest.approx(0.5)
    assert [phase.shares for phase in pattern.phases] == [[0.75, 0.25], [1, 0], [1, 0], [1, 0]]
    assert pattern.memory_norm == pytest.approx([2, 2])
    assert pattern.gates == {"0": 0.5}


def test_a_phase_in_which_no_chunk_starts_has_no_attention():
    (pattern,) = compare([table(chunk([[[0.5, 0.5]]], step=5, episode_steps=8))], "E2", "A").patterns
    assert [phase is not None for phase in pattern.phases] == [False, False, True, False]
    render(AttentionReport(world="E2", wrist="A", patterns=[pattern], differences=[]))


def test_heads_and_denoising_steps_are_told_apart():
    weights = [[[1, 0, 0], [0, 0, 1]], [[0, 1, 0], [1 / 3, 1 / 3, 1 / 3]]]  # 2 steps, 2 heads, K = 3
    (pattern,) = compare([table(chunk(weights), shape=(2, 2, 3))], "E2", "A").patterns
    assert [step.mean_k for step in pattern.denoise_steps] == pytest.approx([2, 2])
    assert [step.evenness for step in pattern.denoise_steps] == pytest.approx([0, 0.5])
    assert [head.mean_k for head in pattern.heads] == pytest.approx([1.5, 2.5])
    assert pattern.overall.shares == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert pattern.overall.evenness == pytest.approx(0.25)


def test_the_wrist_option_is_compared_episode_by_episode():
    front = table(*(chunk([[[1 - p, p]]], e) for e, p in enumerate((0.2, 0.4, 0.6))))
    wrist = table(*(chunk([[[1 - p, p]]], e) for e, p in enumerate((0.3, 0.6, 0.9))), option="A", cameras=WRIST)
    (paired,) = compare([front, wrist], "E2", "A").differences
    assert (paired.where, paired.pairs) == ("rollout", 3)
    assert paired.mean_k.mean == pytest.approx(0.2)
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom
    assert paired.mean_k.interval == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert paired.moved == pytest.approx(0.2)


def test_an_option_that_was_evaluated_for_longer_is_compared_on_the_episodes_of_the_other():
    front = table(*(chunk([[[1 - p, p]]], e) for e, p in enumerate((0.2, 0.4, 0.6))))
    wrist = table(*(chunk([[[1 - p, p]]], e) for e, p in enumerate((0.3, 0.6))), option="A", cameras=WRIST)
    (paired,) = compare([front, wrist], "E2", "A").differences
    assert paired.pairs == 2
    assert paired.mean_k.mean == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            table(chunk([[[0.5, 0.5]]], 1), option="A", cameras=WRIST),
            "E2 and A in rollout: 1 and 1 episodes make 0 pairs",
        ),
        (table(chunk([[[0.5, 0.5]]])), "option E2 in rollout: there are two tables"),
        (table(chunk([[[0.2, 0.3, 0.5]]]), option="A", shape=(1, 1, 3)), "horizon is 3, but 2 in the table of E2"),
        (table(chunk([[[0.5, 0.5]]]), option="A", actions=4), "actions is 4, but 8 in the table of E2"),
        (table(chunk([[[0.5, 0.5]]], seed=1), where="training", seeds=(1,)), "on other checkpoints than in rollout"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(other, message):
    with pytest.raises(InputError, match=message):
        compare([table(chunk([[[0.5, 0.5]]])), other], "E2", "A")
