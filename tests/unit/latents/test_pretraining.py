"""Pretraining: masked patches reach no context, held-out frames are never read, and what comes out is an encoder."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from torch.nn import functional
from transformers import VJEPA2Model

from tests.unit.conftest import INSTRUCTIONS, VECTOR_FEATURES, draw_vectors
from world_modality.artifacts.files import tree_sha256
from world_modality.artifacts.provenance import read_provenance
from world_modality.data.dataset import CameraFrames, episode_bounds, load_dataset
from world_modality.latents import pretraining
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import VideoEncoder
from world_modality.latents.pretraining import (
    CollapseError,
    Pretraining,
    TrainingWindows,
    build_predictor,
    draw_masks,
    encode_context,
    masked_targets,
    predict_masked,
    pretrain,
)

REPOSITORY = Path(__file__).resolve().parents[3]
KEYS = ["observation.images.image", "observation.images.image2"]
SIZE, LENGTH, PATCH = 64, 6, 16
EPISODES = 6  # of tasks 0, 1, 0, 1, …
GRID = (2, SIZE // PATCH, SIZE // PATCH)
TOKENS = 32
SPEC = Pretraining(steps=4, held_out_per_task=1, batch_size=4)


@pytest.fixture(scope="module")
def root(experiment, tmp_path_factory):
    """A dataset in which a bright square moves, and a random encoder."""
    root = tmp_path_factory.mktemp("pretraining")
    image = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channel"]}
    features = {key: dict(image) for key in KEYS} | VECTOR_FEATURES
    dataset = LeRobotDataset.create("local/square", 20, features, root / "dataset", use_videos=False)
    draw = np.random.default_rng(0)
    for episode in range(EPISODES):
        x, y = draw.integers(0, 32, 2)
        for t in range(LENGTH):
            frame = np.full((SIZE, SIZE, 3), 40, np.uint8)
            frame[y : y + 16, x + 2 * t : x + 2 * t + 16] = 220
            images = {KEYS[0]: frame, KEYS[1]: frame[::-1].copy()}
            dataset.add_frame(images | draw_vectors(draw) | {"task": INSTRUCTIONS[episode % 2]})
        dataset.save_episode()
    dataset.finalize()
    sizes = {"image_size": SIZE, "patch_size": PATCH, "hidden_size": 48, "layers": 2}
    build_small_encoder(experiment.encoder.model_copy(update=sizes), root / "encoder")
    return root


@pytest.fixture(scope="module")
def dataset(root):
    return load_dataset(root / "dataset")


@pytest.fixture(scope="module")
def pretrained(root, dataset):
    report = pretrain(root / "encoder", dataset, KEYS, SPEC, root / "pretrained")
    return root / "pretrained", report


@pytest.fixture
def model(root):
    return VJEPA2Model.from_pretrained(root / "encoder", attn_implementation="sdpa").eval()


def random_pixels(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(count))


def masks(count: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_masks(count, GRID, torch.Generator().manual_seed(seed))


def painted(pixels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The same windows with other pixels in the patches of each window's `tokens` (B, n)."""
    changed = pixels.clone()
    for window, numbers in zip(changed, tokens, strict=True):
        for token in numbers.tolist():
            t, y, x = np.unravel_index(token, GRID)
            window[2 * t : 2 * t + 2, :, PATCH * y : PATCH * (y + 1), PATCH * x : PATCH * (x + 1)] = 5.0
    return changed


# ---- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_mask_is_one_block_of_the_image_through_all_frames(seed):
    kept, masked = masks(20, seed)
    assert torch.equal(torch.cat([kept, masked], dim=1).sort(dim=1).values, torch.arange(TOKENS).expand(20, -1))
    for numbers in masked:
        block = torch.zeros(TOKENS, dtype=torch.bool).index_fill(0, numbers, True).reshape(GRID)
        assert torch.equal(block[0], block[1])
        assert block[0].any(1).sum() * block[0].any(0).sum() == block[0].sum()
        assert 0.5 <= block[0].float().mean() <= 0.8
    assert len({tuple(numbers.tolist()) for numbers in masked}) > 1


def test_an_image_of_one_patch_leaves_nothing_to_predict_from():
    with pytest.raises(ValueError, match="an image of 1 x 1 patches"):
        draw_masks(2, (2, 1, 1), torch.Generator())


@torch.no_grad()
def test_masked_patches_do_not_reach_the_context(model):
    pixels, (kept, masked) = random_pixels(), masks()
    context = encode_context(model.encoder, pixels, kept)
    assert torch.equal(encode_context(model.encoder, painted(pixels, masked), kept), context)
    assert not torch.allclose(encode_context(model.encoder, painted(pixels, kept[:, :1]), kept), context, atol=1e-3)


@torch.no_grad()
def test_the_context_mask_of_transformers_would_leak(model):
    pixels, (kept, masked) = random_pixels(), masks()
    contexts = [
        model(p, context_mask=[kept], target_mask=[masked]).masked_hidden_state
        for p in (pixels, painted(pixels, masked))
    ]
    assert not torch.allclose(*contexts, atol=1e-2)


@torch.no_grad()
def test_kept_tokens_keep_their_positions(model):
    pixels = random_pixels()
    whole = model(pixels, skip_predictor=True).last_hidden_state
    order = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(0))
    shuffled = encode_context(model.encoder, pixels, order.expand(len(pixels), -1))
    torch.testing.assert_close(shuffled, whole[:, order], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_predictor_sees_the_context_and_nothing_else(model):
    kept, masked = masks()
    context = torch.randn(3, kept.shape[1], 48)
    predictor = build_predictor(model, seed=0)
    garbage = torch.full((3, TOKENS, 48), 1e6).scatter(1, kept[..., None].expand_as(context), context)
    expected = predictor(garbage, [kept], [masked]).last_hidden_state
    assert torch.equal(predict_masked(predictor, context, kept, masked), expected)


def test_targets_are_normalized_latents_of_the_whole_window(model):
    pixels, (_, masked) = random_pixels(), masks()
    tokens = model(pixels, skip_predictor=True).last_hidden_state
    expected = functional.layer_norm(tokens, (48,))[torch.arange(3)[:, None], masked]
    targets = masked_targets(model.encoder, pixels, masked)
    assert not targets.requires_grad
    torch.testing.assert_close(targets, expected)


# ---- windows --------------------------------------------------------------------------------------------------------


def test_held_out_frames_are_never_decoded(root, dataset, monkeypatch, tmp_path):
    rows, frames = [], CameraFrames.frames
    monkeypatch.setattr(CameraFrames, "frames", lambda self, asked: (rows.extend(asked), frames(self, asked))[1])
    report = pretrain(root / "encoder", dataset, KEYS, SPEC, tmp_path / "encoder")
    assert (report["training_episodes"], report["held_out_episodes"]) == ([0, 1, 2, 3], [4, 5])
    assert sorted(rows) == sorted([*range(4 * LENGTH)] * len(KEYS))


def test_the_bounds_of_all_episodes_are_read_once(dataset, monkeypatch):
    calls = []
    monkeypatch.setattr(pretraining, "episode_bounds", lambda d: calls.append(d) or episode_bounds(d))
    TrainingWindows(dataset, KEYS, [0, 1, 3], 4, SIZE)
    assert len(calls) == 1


def test_windows_stay_within_their_episode_and_camera(dataset):
    windows = TrainingWindows(dataset, KEYS, [1, 3], 4, SIZE)
    for key, found in zip(KEYS, windows.spaced(1000), strict=True):
        camera = CameraFrames(dataset, key)
        episodes = [camera.frames(range(e * LENGTH, (e + 1) * LENGTH)) for e in (1, 3)]
        expected = [e[[max(0, t - 3), max(0, t - 2), max(0, t - 1), t]] for e in episodes for t in range(LENGTH)]
        assert torch.equal(found, torch.stack(expected))


def test_both_cameras_are_drawn_from(dataset):
    windows = TrainingWindows(dataset, KEYS, [0], 4, SIZE)
    cameras = [{w.numpy().tobytes() for w in found} for found in windows.spaced(LENGTH)]
    drawn = {w.numpy().tobytes() for w in windows.draw(200, torch.Generator().manual_seed(0))}
    assert drawn == cameras[0] | cameras[1]


def test_frames_are_kept_at_the_encoders_size(dataset):
    assert TrainingWindows(dataset, KEYS, [0], 4, 32).draw(2, torch.Generator()).shape == (2, 4, 3, 32, 32)


# ---- the encoder that comes out -------------------------------------------------------------------------------------


def test_the_result_is_an_encoder_of_the_same_format_with_other_weights(root, pretrained):
    folder, _ = pretrained
    before, after = VideoEncoder.load(root / "encoder"), VideoEncoder.load(folder)
    assert {p.name for p in folder.iterdir()} == {p.name for p in (root / "encoder").iterdir()} | {"pretraining.json"}
    for name in ("config.json", "video_preprocessor_config.json"):
        assert (folder / name).read_bytes() == (root / "encoder" / name).read_bytes()
    assert after.identity()["encoder_sha256"] != before.identity()["encoder_sha256"]
    changed = {n for n, w in after.model.state_dict().items() if not torch.equal(w, before.model.state_dict()[n])}
    assert {name.split(".")[0] for name in changed} == {"encoder"}
    assert "encoder.embeddings.patch_embeddings.proj.weight" in changed


def test_the_report_lies_beside_the_weights(pretrained):
    folder, report = pretrained
    assert json.loads((folder / "pretraining.json").read_text()) == report
    assert (report["steps"], report["seed"], report["training_frames"]) == (4, 0, 4 * LENGTH)
    assert report["latent_std"]["untrained"] != report["latent_std"]["pretrained"]
    assert report["latent_rank"]["pretrained"] >= 1


def test_the_same_seed_gives_the_same_bytes(root, dataset, pretrained, tmp_path):
    torch.manual_seed(123)  # of no consequence
    pretrain(root / "encoder", dataset, KEYS, SPEC, tmp_path / "same")
    pretrain(root / "encoder", dataset, KEYS, Pretraining(4, 1, batch_size=4, seed=1), tmp_path / "other")
    assert tree_sha256(tmp_path / "same") == tree_sha256(pretrained[0])
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("same", "other")]
    assert weights[0] != weights[1]


def test_the_loss_falls(root, dataset, tmp_path):
    spec = Pretraining(steps=60, held_out_per_task=1, batch_size=16, learning_rate=3e-3)
    loss = pretrain(root / "encoder", dataset, KEYS, spec, tmp_path / "encoder")["loss"]
    assert loss["last"] < 0.8 * loss["first"]


def test_a_collapsed_encoder_is_refused(root, dataset, monkeypatch, tmp_path):
    def collapse(video, *_):
        video.model.encoder.layernorm.weight.zero_()
        return [1.0]

    monkeypatch.setattr(pretraining, "_optimize", collapse)
    with pytest.raises(CollapseError, match=r"collapsed: .*deviation fell from .* to 0"):
        pretrain(root / "encoder", dataset, KEYS, SPEC, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("changes", "keys", "message"),
    [
        ({"held_out_per_task": 0}, KEYS, "0 held-out episodes"),
        ({"held_out_per_task": 3}, KEYS, "none is left to train on"),
        ({"window": 3}, KEYS, "a window of 3 frames"),
        ({}, ["observation.images.top"], r"no such camera; valid: .*image2"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(root, dataset, tmp_path, changes, keys, message):
    spec = Pretraining(**{"steps": 1, "held_out_per_task": 1} | changes)
    with pytest.raises(ValueError, match=message):
        pretrain(root / "encoder", dataset, keys, spec, tmp_path / "encoder")


def test_the_program_says_what_it_made_the_encoder_from(root, monkeypatch, tmp_path):
    program = REPOSITORY / "scripts" / "pretrain_encoder.py"
    output = tmp_path / "encoder"
    flags = ["--encoder", root / "encoder", "--dataset", root / "dataset", "--image_keys", *KEYS, "--held_out", 1]
    flags += ["--steps", 2, "--batch_size", 2, "--seed", 5, "--output", output]
    monkeypatch.setattr("sys.argv", [str(program), *map(str, flags)])
    runpy.run_path(str(program), run_name="__main__")
    record = read_provenance(output)
    assert {i.role for i in record.inputs} == {"encoder", "dataset"}
    assert record.seeds == {"pretraining": 5}
    assert VideoEncoder.load(output).dim == 48
