"""The LeRobot policy type `smolvla_world`: SmolVLA bit for bit until it learns otherwise, and one path for latents."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import draccus
import pytest
import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors
from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.import_utils import register_third_party_plugins

from lerobot_policy_world_modality import SmolVLAWorldConfig, modeling_smolvla_world
from lerobot_policy_world_modality.modeling_smolvla_world import WORLD_MODULES, SmolVLAWorldPolicy, world_effect
from lerobot_policy_world_modality.processor_smolvla_world import BlankImagesProcessorStep, insert_blank_images
from world_modality.experiment.config import default_config, load_experiment
from world_modality.latents.backbones import build_small_encoder, build_small_vlm
from world_modality.latents.encoder import VideoEncoder
from world_modality.latents.table import LatentSpec, LatentTable, LatentTableError, join_tables, write_latents

FRONT, WRIST = "observation.images.image", "observation.images.image2"
SIZE, WINDOW, HISTORY, HORIZON, CHUNK = 32, 4, 4, 8, 6
EPISODE_LENGTHS = (9, 12)
INSTRUCTION = "pick up the black bowl\n"


@pytest.fixture(scope="module")
def experiment():
    config = default_config()
    config["encoder"] |= {"image_size": SIZE, "hidden_size": 48, "layers": 2}
    config["vlm"] |= {"image_size": SIZE}
    return load_experiment(config)


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    """An encoder, a SmolVLM and, for both cameras of two synthetic episodes, latent tables."""
    folder = tmp_path_factory.mktemp("artifacts")
    build_small_encoder(experiment.encoder, folder / "encoder")
    build_small_vlm(experiment.vlm, folder / "vlm")
    encoder = VideoEncoder.load(folder / "encoder")
    for camera, key in enumerate((FRONT, WRIST)):
        _write_table(folder / f"{key}.parquet", encoder, key, [_episode(n, camera) for n in EPISODE_LENGTHS])
    return folder


def _episode(length: int, camera: int) -> torch.Tensor:
    """Frames (length, 3, H, W) uint8 in which a square moves over noise."""
    generator = torch.Generator().manual_seed(length + 100 * camera)
    frames = torch.randint(0, 256, (length, 3, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    for t, frame in enumerate(frames):
        frame[:, 2 * t : 2 * t + 6, 4:12] = 255
    return frames


def _write_table(path: Path, encoder: VideoEncoder, key: str, episodes: list[torch.Tensor]) -> None:
    """A table made window by window, independently of both code paths under test."""
    spec = LatentSpec(
        dataset="synthetic",
        dataset_revision=None,
        dataset_fingerprint="0",
        image_key=key,
        window=WINDOW,
        orientation="upright",
        versions={},
        **encoder.identity(),
    )
    with write_latents(path, spec) as writer:
        for frames in episodes:
            windows = [[frames[max(t - d, 0)] for d in reversed(range(WINDOW))] for t in range(len(frames))]
            writer.write_episode(torch.cat([encoder.encode(torch.stack(w)[None]) for w in windows]))


@pytest.fixture(scope="module")
def half(folder, tmp_path_factory):
    """The same tables, encoded in bfloat16."""
    half, encoder = tmp_path_factory.mktemp("half"), VideoEncoder.load(folder / "encoder", precision="bf16")
    for camera, key in enumerate((FRONT, WRIST)):
        _write_table(half / f"{key}.parquet", encoder, key, [_episode(n, camera) for n in EPISODE_LENGTHS])
    return half


@pytest.fixture(scope="module")
def table(folder):
    return LatentTable.open(folder / f"{FRONT}.parquet")


def _features() -> dict:
    state = {"observation.state": PolicyFeature(FeatureType.STATE, (8,))}
    images = {key: PolicyFeature(FeatureType.VISUAL, (3, SIZE, SIZE)) for key in (FRONT, WRIST)}
    return {
        "input_features": state | images,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
    }


def _smolvla_fields(folder: Path) -> dict:
    return {
        "vlm_model_name": str(folder / "vlm"),
        "freeze_vision_encoder": False,
        "train_expert_only": False,
        "resize_imgs_with_padding": (SIZE, SIZE),
        "num_vlm_layers": 2,
        "chunk_size": CHUNK,
        "n_action_steps": 3,
        "num_steps": 2,
        "device": "cpu",
        "push_to_hub": False,
    } | _features()


def _world_fields(folder: Path) -> dict:
    return {
        "world_image_keys": [FRONT],
        "world_encoder": str(folder / "encoder"),
        "world_latent_dim": 48,
        "world_prophet_width": 32,
    }


def _plain(folder: Path, seed: int = 0) -> SmolVLAPolicy:
    torch.manual_seed(seed)
    return SmolVLAPolicy(SmolVLAConfig(**_smolvla_fields(folder)))


def _world(folder: Path, table: LatentTable | None, seed: int = 0, **changes) -> SmolVLAWorldPolicy:
    torch.manual_seed(seed)
    policy = SmolVLAWorldPolicy(SmolVLAWorldConfig(**_smolvla_fields(folder) | _world_fields(folder) | changes))
    if table is not None:
        policy.attach_latents(table)
    return policy


def _open_gate(policy: SmolVLAWorldPolicy) -> SmolVLAWorldPolicy:
    """A policy as training might leave it: gate open, Prophet predicting changes."""
    policy.cross_attention.gate.data.fill_(0.7)
    torch.nn.init.normal_(policy.prophet.head.weight, std=0.1, generator=torch.Generator().manual_seed(1))
    return policy


def _batch(index: list[int]) -> dict:
    generator = torch.Generator().manual_seed(7)
    size = len(index)
    images = {key: torch.rand(size, 3, SIZE, SIZE, generator=generator) for key in (FRONT, WRIST)}
    return images | {
        "index": torch.tensor(index),
        "observation.state": torch.randn(size, 8, generator=generator),
        "observation.language.tokens": torch.arange(10, 16).expand(size, -1),
        "observation.language.attention_mask": torch.ones(size, 6, dtype=torch.bool),
        "action": torch.randn(size, CHUNK, 7, generator=generator),
        "action_is_pad": torch.zeros(size, CHUNK, dtype=torch.bool),
    }


def _observation(frames: torch.Tensor, key: str = FRONT) -> dict:
    """What the preprocessor hands the policy at a control step, of frames (B, 3, H, W) uint8."""
    return _batch([0] * len(frames)) | {key: frames.float() / 255}


def _noise(size: int) -> torch.Tensor:
    return torch.randn(size, CHUNK, 32, generator=torch.Generator().manual_seed(3))


# ---- the same policy until it learns otherwise ----------------------------------------------------------------------


def test_with_one_seed_smolvla_starts_from_the_same_weights_and_the_random_stream_goes_on_unchanged(folder, table):
    plain = _plain(folder, seed=5)
    drawn_after_plain = torch.rand(1)
    world = _world(folder, None, seed=5)
    assert torch.equal(torch.rand(1), drawn_after_plain)
    weights = world.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in plain.state_dict().items())


def test_with_the_gate_at_zero_the_loss_is_smolvlas_bit_for_bit(folder, table):
    batch, noise, time = _batch([3, 10]), _noise(2), torch.tensor([0.3, 0.8])
    _, plain_log = _plain(folder).forward(batch, noise, time)
    loss, log = _world(folder, table).forward(batch, noise, time)
    assert log["loss"] == plain_log["loss"]
    assert loss.item() == pytest.approx(log["loss"] + 0.2 * log["world_loss"])


def test_with_the_gate_at_zero_the_action_chunk_is_smolvlas_bit_for_bit(folder, table):
    batch, noise = _batch([0, 0]), _noise(2)
    chunk = _world(folder, table).predict_action_chunk(batch, noise)
    assert torch.equal(chunk, _plain(folder).predict_action_chunk(batch, noise))


def test_with_the_gate_open_the_memory_moves_the_actions(folder, table):
    policy = _open_gate(_world(folder, table))
    effect = world_effect(policy, _batch([3, 10]), _noise(2))
    assert effect["gate"] == pytest.approx(torch.tanh(torch.tensor(0.7)).item())
    assert effect["action_change_rms"] > 1e-3


def test_a_policy_trained_on_zero_memory_has_no_world_effect(folder, table):
    policy = _open_gate(_world(folder, table, world_memory="zero"))
    assert world_effect(policy, _batch([3, 10]), _noise(2))["action_change_rms"] == 0


def test_a_deep_copy_attends_with_its_own_gate(folder, table):
    policy = _open_gate(_world(folder, table))
    twin = copy.deepcopy(policy)
    twin.cross_attention.gate.data.zero_()
    batch, noise = _batch([0]), _noise(1)
    assert torch.equal(twin.predict_action_chunk(batch, noise), _plain(folder).predict_action_chunk(batch, noise))


# ---- training -------------------------------------------------------------------------------------------------------


def test_an_untrained_world_loss_is_copy_last(folder, table):
    _, log = _world(folder, table).forward(_batch([3, 10]))
    assert log["world_loss"] == pytest.approx(log["copy_last"])
    assert log["gate"] == 0
    assert all(isinstance(value, float) for value in log.values())


def test_an_unlogged_update_has_the_same_loss_and_computes_nothing_only_for_the_log(folder, table, monkeypatch):
    policy, given = _world(folder, table), (_batch([3, 10]), _noise(2), torch.tensor([0.3, 0.8]))
    loss, calls = modeling_smolvla_world.world_loss, []
    monkeypatch.setattr(modeling_smolvla_world, "world_loss", lambda *a: calls.append(1) or loss(*a))
    logged, log = policy.forward(*given)
    assert len(calls) == 2
    with policy.unlogged():
        silent, silent_log = policy.forward(*given)
    assert len(calls) == 3
    assert torch.equal(silent, logged)
    assert log.items() - silent_log.items() == {(k, log[k]) for k in ("world_loss", "copy_last", "gate")}
    assert policy.forward(*given)[1] == log


def test_a_few_steps_of_training_open_the_gate_and_beat_copy_last(folder, table):
    policy = _world(folder, table)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        loss, log = policy.forward(_batch([3, 10]))
        loss.backward()
        optimizer.step()
    assert log["gate"] != 0
    assert log["world_loss"] < 0.8 * log["copy_last"]


def test_the_action_loss_reaches_prophet_through_the_gate(folder, table):
    policy = _open_gate(_world(folder, table, world_loss_weight=0.0))
    policy.forward(_batch([3, 10]))[0].backward()
    assert policy.prophet.query.grad.abs().sum() > 0


def test_zero_memory_still_trains_prophet(folder, table):
    policy = _world(folder, table, world_memory="zero")
    policy.forward(_batch([3, 10]))[0].backward()
    assert policy.prophet.head.weight.grad.abs().sum() > 0


def test_per_sample_losses_average_to_the_mean_loss(folder, table):
    policy, batch, noise, time = _world(folder, table), _batch([0, 9]), _noise(2), torch.tensor([0.3, 0.8])
    mean, _ = policy.forward(batch, noise, time)
    losses, _ = policy.forward(batch, noise, time, reduction="none")
    assert losses.shape == (2,)
    assert losses.mean().item() == pytest.approx(mean.item())


def test_latents_are_opened_from_the_configured_path(folder, table):
    _, attached = _world(folder, table).forward(_batch([3]), _noise(1), torch.tensor([0.5]))
    lazy = _world(folder, None, world_latents=[str(folder / f"{FRONT}.parquet")])
    assert lazy.forward(_batch([3]), _noise(1), torch.tensor([0.5]))[1] == attached


def test_both_cameras_latents_are_joined_in_the_order_of_the_image_keys(folder):
    paths = [str(folder / f"{key}.parquet") for key in (FRONT, WRIST)]
    policy = _world(folder, None, world_image_keys=[FRONT, WRIST], world_latent_dim=96, world_latents=paths)
    _, log = policy.forward(_batch([3, 10]))
    assert log["world_loss"] > 0
    policy.config.world_latents = paths[::-1]
    policy._latents = None
    with pytest.raises(ValueError, match="world_image_keys are"):
        policy.forward(_batch([3, 10]))


def test_a_batch_without_frame_indices_is_refused(folder, table):
    batch = _batch([3])
    del batch["index"]
    with pytest.raises(ValueError, match="no `index` to look latents up by"):
        _world(folder, table).forward(batch)


def test_training_without_latents_is_refused(folder):
    with pytest.raises(ValueError, match="call attach_latents, or set world_latents"):
        _world(folder, None).forward(_batch([3]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_image_keys": [WRIST]}, "the latents are of"),
        ({"world_latent_dim": 64}, "the latents are 48 wide, world_latent_dim is 64"),
        ({"world_window": 2}, "window is 4, expected 2"),
        ({"world_encoder_sha256": "another"}, "encoder_sha256 is .* expected 'another'"),
        ({"world_encoder_precision": "bf16"}, "precision is 'fp32', expected 'bf16'"),
    ],
)
def test_latents_of_something_else_are_refused(folder, table, changes, message):
    with pytest.raises((ValueError, LatentTableError), match=message):
        _world(folder, table, **changes)


def test_a_memory_that_is_not_finite_is_an_error_and_never_the_baseline(folder, table):
    policy = _world(folder, table)
    policy.prophet.head.bias.data[0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"rows \[0, 1\]"):
        policy.forward(_batch([3, 10]))
    with pytest.raises(FloatingPointError, match=r"rows \[0\]"):
        policy.predict_action_chunk(_batch([0]), _noise(1))


def test_the_model_inside_the_policy_refuses_to_act_without_a_memory(folder, table):
    policy = _world(folder, table)
    with pytest.raises(RuntimeError, match="no memory here"):
        policy.model.action_out_proj(torch.zeros(1, CHUNK, 72))


# ---- rollout --------------------------------------------------------------------------------------------------------


def _online_history(policy):
    """The past latents of the frames that a policy has seen in this episode."""
    return policy.history_of({key: torch.stack(tuple(frames)) for key, frames in policy._frames.items()})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("keys", [[FRONT], [FRONT, WRIST]])
def test_a_recorded_episode_replayed_through_the_online_path_gives_the_tables_latents(folder, half, keys, precision):
    tables = [LatentTable.open((half if precision == "bf16" else folder) / f"{key}.parquet") for key in keys]
    table = join_tables(tables) if len(tables) > 1 else tables[0]
    policy = _world(folder, table, world_image_keys=keys, world_latent_dim=48 * len(keys))
    assert policy.config.world_encoder_precision == precision
    first = 0
    for length in EPISODE_LENGTHS:
        policy.reset()
        episodes = {key: _episode(length, camera) for camera, key in enumerate((FRONT, WRIST))}
        for t in range(length):
            policy.observe_world({key: episodes[key][t : t + 1].float() / 255 for key in keys})
            expected = table.history(torch.tensor([first + t]), HISTORY)
            assert torch.allclose(_online_history(policy), expected, atol=1e-3)
        first += length


def test_a_checkpoint_remembers_the_precision_of_its_latents(folder, half, tmp_path):
    policy = _world(folder, LatentTable.open(half / f"{FRONT}.parquet"))
    policy.save_pretrained(tmp_path)
    loaded = SmolVLAWorldPolicy.from_pretrained(tmp_path)
    assert loaded.config.world_encoder_precision == "bf16"
    assert loaded._load_encoder().precision == "bf16"


def test_a_checkpoint_from_before_there_was_a_choice_of_precision_computes_in_float32(folder, table, half, tmp_path):
    _world(folder, table).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["world_encoder_precision"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    old = SmolVLAWorldPolicy.from_pretrained(tmp_path)
    assert old._load_encoder().precision == "fp32"
    with pytest.raises(LatentTableError, match="precision is 'bf16', expected 'fp32'"):
        old.attach_latents(LatentTable.open(half / f"{FRONT}.parquet"))


def test_parallel_environments_keep_their_own_frames(folder, table):
    policy = _world(folder, table)
    short, long = _episode(9, 0), _episode(12, 0)
    for t in range(9):
        policy.observe_world({FRONT: torch.stack([short[t], long[t]])})
    expected = table.history(torch.tensor([8, 9 + 8]), HISTORY)
    assert torch.allclose(_online_history(policy), expected, atol=1e-3)


def test_acting_and_training_predict_the_same_from_the_same_frames(folder, table):
    policy = _open_gate(_world(folder, table))
    frames, noise = _episode(9, 0), _noise(1)
    for t in range(5):
        policy.observe_world({FRONT: frames[t : t + 1]})
    observation = _observation(frames[5:6])
    chunk = policy.predict_action_chunk(observation, noise)
    memory = policy.training_memory({"index": torch.tensor([5])})
    with torch.no_grad():
        expected = policy.chunk_attending_to(memory, observation, noise)
    assert torch.allclose(chunk, expected, atol=1e-3)


def test_select_action_sees_one_frame_a_step_and_a_chunk_is_executed_before_the_next(folder, table):
    policy = _open_gate(_world(folder, table))
    frames = _episode(9, 0)
    actions = [policy.select_action(_observation(frames[t : t + 1]), _noise(1)) for t in range(4)]
    by_hand = _open_gate(_world(folder, table))
    first = by_hand.predict_action_chunk(_observation(frames[0:1]), _noise(1))
    for t in (1, 2):
        by_hand.observe_world(_observation(frames[t : t + 1]))
    second = by_hand.predict_action_chunk(_observation(frames[3:4]), _noise(1))
    expected = [first[:, 0], first[:, 1], first[:, 2], second[:, 0]]
    assert all(torch.equal(a, b) for a, b in zip(actions, expected, strict=True))


def test_reset_forgets_the_episode(folder, table):
    policy = _open_gate(_world(folder, table))
    fresh = policy.predict_action_chunk(_observation(_episode(9, 0)[:1]), _noise(1))
    for frame in _episode(12, 0):
        policy.observe_world({FRONT: frame[None]})
    policy.reset()
    assert torch.equal(policy.predict_action_chunk(_observation(_episode(9, 0)[:1]), _noise(1)), fresh)


def test_zero_memory_acts_without_looking_at_the_world(folder, table):
    policy = _open_gate(_world(folder, table, world_memory="zero"))
    policy.config.world_encoder = "nowhere"
    assert not policy.watches_world
    policy.observe_world({})
    chunk = policy.predict_action_chunk(_observation(_episode(9, 0)[:1]), _noise(1))
    assert chunk.shape == (1, CHUNK, 7)


def test_a_missing_world_camera_is_refused_and_no_other_takes_its_place(folder, table):
    with pytest.raises(ValueError, match=f"no image {FRONT} of a world camera"):
        _world(folder, table).observe_world({WRIST: torch.zeros(1, 3, SIZE, SIZE)})


def test_a_batch_that_grows_within_an_episode_is_refused(folder, table):
    policy = _world(folder, table)
    policy.observe_world({FRONT: torch.zeros(1, 3, SIZE, SIZE)})
    with pytest.raises(ValueError, match="reset\\(\\) the policy between rollouts"):
        policy.observe_world({FRONT: torch.zeros(2, 3, SIZE, SIZE)})


def test_an_untrained_policy_refuses_to_act(folder):
    with pytest.raises(RuntimeError, match="never trained"):
        _world(folder, None).predict_action_chunk(_batch([0]), _noise(1))


def test_an_encoder_other_than_the_latents_is_refused(folder, table, experiment, tmp_path):
    build_small_encoder(experiment.encoder.model_copy(update={"seed": 1}), tmp_path / "encoder")
    policy = _world(folder, table, world_encoder=str(tmp_path / "encoder"))
    with pytest.raises(ValueError, match="the latents trained on were made with"):
        policy.predict_action_chunk(_batch([0]), _noise(1))


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_saved_and_reloaded_policy_acts_identically(folder, table, tmp_path):
    policy = _open_gate(_world(folder, table))
    policy.save_pretrained(tmp_path)
    loaded = SmolVLAWorldPolicy.from_pretrained(tmp_path)
    observation, noise = _observation(_episode(9, 0)[:1]), _noise(1)
    assert torch.equal(loaded.predict_action_chunk(observation, noise), policy.predict_action_chunk(observation, noise))
    assert loaded.config == policy.config


def test_the_frozen_encoder_is_no_part_of_the_checkpoint(folder, table):
    policy = _world(folder, table)
    policy.predict_action_chunk(_batch([0]), _noise(1))
    added = set(policy.state_dict()) - set(_plain(folder).state_dict())
    assert added
    assert all(name.startswith(WORLD_MODULES) for name in added)


def test_a_plain_smolvla_is_a_place_to_start_from(folder, table, tmp_path):
    plain = _plain(folder, seed=9)
    plain.save_pretrained(tmp_path)
    config = SmolVLAWorldConfig(**_smolvla_fields(folder) | _world_fields(folder))
    policy = SmolVLAWorldPolicy.from_pretrained(tmp_path, config=config)
    policy.attach_latents(table)
    batch, noise = _batch([0]), _noise(1)
    assert torch.equal(policy.predict_action_chunk(batch, noise), plain.predict_action_chunk(batch, noise))


def test_a_checkpoint_with_half_a_world_modality_is_refused(folder, table, tmp_path):
    policy = _world(folder, table)
    state = {name: value for name, value in policy.state_dict().items() if name != "cross_attention.gate"}
    policy.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=r"world weights do not fit: cross_attention\.gate"):
        SmolVLAWorldPolicy.from_pretrained(tmp_path)


# ---- configuration and LeRobot's discovery --------------------------------------------------------------------------


def test_lerobot_discovers_the_policy_type_by_the_distributions_name():
    register_third_party_plugins()
    assert get_policy_class("smolvla_world") is SmolVLAWorldPolicy
    assert make_policy_config("smolvla_world", world_image_keys=[FRONT], device="cpu").type == "smolvla_world"


def test_the_configuration_is_parsed_from_lerobots_command_line(folder):
    arguments = [
        f'--world_image_keys=["{FRONT}", "{WRIST}"]',
        '--world_latents=["front.parquet", "wrist.parquet"]',
        "--world_memory=zero",
        "--world_encoder_revision=null",
        "--device=cpu",
    ]
    config = draccus.parse(SmolVLAWorldConfig, args=arguments)
    assert config.world_image_keys == [FRONT, WRIST]
    assert config.world_latents == ["front.parquet", "wrist.parquet"]
    assert config.world_memory == "zero"


def test_the_configuration_survives_its_checkpoint(folder, tmp_path):
    config = SmolVLAWorldConfig(**_smolvla_fields(folder) | _world_fields(folder) | {"world_heads": 4})
    config.save_pretrained(tmp_path)
    assert PreTrainedConfig.from_pretrained(tmp_path) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_image_keys": []}, "world_image_keys is empty"),
        ({"world_image_keys": [FRONT, FRONT]}, "names a camera twice"),
        ({"world_latents": ["a", "b"]}, "2 tables for 1 world_image_keys"),
        ({"world_image_keys": [FRONT, WRIST], "world_latent_dim": 47}, "not a multiple of 2 cameras"),
        ({"world_memory": "none"}, "world_memory is 'none'; valid: predicted, zero"),
        ({"world_encoder_precision": "fp16"}, "world_encoder_precision is 'fp16'; valid: fp32, bf16"),
        ({"world_window": 0}, "world_window is 0, below 1"),
        ({"world_prophet_width": 30}, "not a multiple of world_heads 8"),
        ({"world_loss_weight": -1.0}, "world_loss_weight is -1.0"),
        ({"normalization_mapping": {"VISUAL": NormalizationMode.MEAN_STD}}, "the encoder needs IDENTITY pixels"),
    ],
)
def test_an_impossible_configuration_names_its_field(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        SmolVLAWorldConfig(**_smolvla_fields(folder) | _world_fields(folder) | changes)


def test_a_camera_the_dataset_does_not_have_is_named_with_those_it_has(folder):
    with pytest.raises(ValueError, match=f"no image observation.images.top; valid: {FRONT}, {WRIST}"):
        _world(folder, None, world_image_keys=["observation.images.top"])


# ---- processors -----------------------------------------------------------------------------------------------------


def test_the_processors_are_smolvlas(folder):
    plain, _ = make_pre_post_processors(SmolVLAConfig(**_smolvla_fields(folder)))
    world, _ = make_pre_post_processors(SmolVLAWorldConfig(**_smolvla_fields(folder) | _world_fields(folder)))
    assert [type(step) for step in world.steps] == [type(step) for step in plain.steps]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_blank_images_are_black_and_nothing_else_changes(dtype):
    observation = {FRONT: torch.ones(2, 3, 4, 4, dtype=dtype), "observation.state": torch.ones(2, 8)}
    blanked = BlankImagesProcessorStep().observation(observation)
    assert torch.equal(blanked[FRONT], torch.zeros(2, 3, 4, 4, dtype=dtype))
    assert torch.equal(blanked["observation.state"], torch.ones(2, 8))
    assert observation[FRONT].any()


def test_a_blinded_preprocessor_stays_blind_in_its_checkpoint(folder, tmp_path):
    config = SmolVLAConfig(**_smolvla_fields(folder))
    preprocessor, postprocessor = make_pre_post_processors(config)
    insert_blank_images(preprocessor)
    insert_blank_images(preprocessor)
    preprocessor.save_pretrained(tmp_path)
    postprocessor.save_pretrained(tmp_path)
    steps = json.loads((tmp_path / "policy_preprocessor.json").read_text())["steps"]
    assert [step["registry_name"] for step in steps].count("blank_images") == 1
    loaded, _ = make_pre_post_processors(config, pretrained_path=str(tmp_path))
    batch = loaded({FRONT: torch.ones(1, 3, SIZE, SIZE), "observation.state": torch.ones(1, 8), "task": [INSTRUCTION]})
    assert not batch[FRONT].any()
    assert batch["observation.state"].any()


# ---- memories -------------------------------------------------------------------------------------------------------


class _Injector:
    """Keeps what reaches the cross-attention."""

    def __init__(self, policy):
        self.memories = []
        attend = policy.cross_attention.forward
        policy.cross_attention.forward = lambda x, memory: self.memories.append(memory.detach()) or attend(x, memory)


def _trained_memory(folder, table, mode, index):
    """What the injector gets in a training step, next to Prophet's prediction and the true future."""
    policy = _open_gate(_world(folder, table, world_memory=mode))
    with torch.no_grad():
        policy.prophet.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    injector = _Injector(policy)
    policy.forward(_batch(index))
    history, future, _ = policy._look_up({"index": torch.tensor(index)})
    return injector.memories[0], policy.prophet(history).detach(), policy.prophet.standardize(future)


def test_in_training_each_memory_is_what_its_name_says(folder, table):
    index = [2, 5, 11]
    for mode in ("predicted", "zero", "random", "shuffle", "oracle"):
        memory, predicted, future = _trained_memory(folder, table, mode, index)
        assert memory.shape == predicted.shape == (3, HORIZON, table.dim), mode
        if mode == "predicted":
            assert torch.equal(memory, predicted)
        elif mode == "zero":
            assert not memory.any()
        elif mode == "oracle":
            assert torch.equal(memory, future)
        elif mode == "shuffle":
            assert all(any(torch.equal(m, p) for p in predicted) for m in memory)
        else:
            assert abs(float(memory.std()) - 1) < 0.1
            assert not torch.allclose(memory, predicted)


def test_a_random_memory_in_training_is_a_function_of_the_batch_and_moves_no_other_stream(folder, table):
    again = [_trained_memory(folder, table, "random", [2, 5])[0] for _ in range(2)]
    other = _trained_memory(folder, table, "random", [2, 6])[0]
    assert torch.equal(*again)
    assert not torch.equal(again[0], other)


def _rolled_out(folder, table, mode, steps=3, seed=0):
    """What the injector gets in each chunk of a rollout, next to what Prophet predicts there."""
    policy = _open_gate(_world(folder, table, world_memory=mode))
    with torch.no_grad():
        policy.prophet.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    injector, frames = _Injector(policy), _episode(9, 0)
    predicted, make = [], policy.memory_from
    policy.memory_from = lambda sources: predicted.append(sources.predicted) or make(sources)
    for t in range(steps):
        policy.draw.manual_seed(seed + t)
        policy.predict_action_chunk(_observation(frames[t : t + 1]), _noise(1))
    return injector.memories[:: len(injector.memories) // steps], predicted


@pytest.mark.parametrize("mode", ["predicted", "zero", "random", "random-scaled", "shuffle", "signflip"])
def test_at_rollout_each_memory_is_what_its_name_says(folder, table, mode):
    memories, predicted = _rolled_out(folder, table, mode)
    for chunk, (memory, prediction) in enumerate(zip(memories, predicted, strict=True)):
        if mode == "predicted":
            assert torch.equal(memory, prediction)
        elif mode == "zero":
            assert not memory.any()
        elif mode == "random-scaled":
            assert torch.allclose(memory.square().mean(), prediction.square().mean(), rtol=1e-4)
            assert not torch.allclose(memory, prediction)
        elif mode == "shuffle":
            assert any(torch.equal(memory, p) for p in predicted[: chunk + 1])
        elif mode == "signflip":
            assert torch.equal(memory.abs(), prediction.abs())
            flipped = (memory != prediction).any(dim=(0, 1))
            assert 0.2 < flipped.float().mean() < 0.8
    if mode == "shuffle":
        assert len({tuple(m.flatten().tolist()) for m in _rolled_out(folder, table, mode, steps=8)[0]}) > 1


@pytest.mark.parametrize("mode", ["random", "random-scaled", "shuffle", "signflip"])
def test_a_corrupted_rollout_repeats_from_its_seeds(folder, table, mode):
    first, again = (_rolled_out(folder, table, mode)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("mode", ["predicted", "zero", "random", "random-scaled", "shuffle", "signflip"])
def test_a_long_rollout_keeps_its_predictions_only_for_a_memory_that_exchanges_them(folder, table, mode):
    policy, frame = _open_gate(_world(folder, table, world_memory=mode)), _episode(9, 0)[:1]
    for _ in range(5):
        policy.predict_action_chunk(_observation(frame), _noise(1))
    assert len(policy._predictions) == (5 if mode == "shuffle" else 0)


def test_a_noise_memory_acts_without_looking_at_the_world(folder, table):
    assert not _world(folder, table, world_memory="random").watches_world
    assert _world(folder, table, world_memory="shuffle").watches_world


def test_nobody_knows_the_future_at_rollout(folder, table):
    with pytest.raises(ValueError, match="oracle: nobody knows the future at rollout"):
        _rolled_out(folder, table, "oracle")


def test_another_camera_can_be_seen_at_rollout_in_place_of_the_one_trained_on(folder, table):
    wrist = _world(folder, table, world_image_key_rollout=WRIST)
    front = _world(folder, table)
    for policy in (wrist, front):
        policy.observe_world(_observation(_episode(9, 0)[:1]) | {WRIST: _episode(9, 1)[:1]})
    assert wrist.config.rollout_image_keys == [WRIST]
    assert not torch.allclose(_online_history(wrist), _online_history(front))
    swapped = _world(folder, table)
    swapped.observe_world({FRONT: _episode(9, 1)[:1]})
    assert torch.equal(_online_history(wrist), _online_history(swapped))


def test_a_window_of_one_frame_at_rollout_encodes_single_frames(folder, table):
    policy = _world(folder, table)
    policy.config.world_window = 1
    frames = _episode(9, 0)[:HISTORY]
    for t in range(HISTORY):
        policy.observe_world({FRONT: frames[t : t + 1]})
    expected = policy._load_encoder().encode(frames[:, None]).half().float()
    assert torch.allclose(_online_history(policy)[0], expected, atol=1e-3)
