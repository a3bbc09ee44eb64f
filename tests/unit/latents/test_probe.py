"""The probe: it finds what is there and nothing else, looks at whole episodes, and says plainly which features win."""

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tests.unit.conftest import INSTRUCTIONS, VECTOR_FEATURES, draw_vectors
from world_modality.artifacts.files import write_json
from world_modality.artifacts.records import read_content
from world_modality.data.dataset import CameraFrames, dataset_fingerprint, episode_bounds, load_dataset
from world_modality.data.positions import ObjectPositions, read_positions, write_positions
from world_modality.latents import probe
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import VideoEncoder, encode_dataset
from world_modality.latents.probe import (
    PENALTIES,
    Split,
    camera_features,
    choose_penalty,
    fit,
    probe_encoders,
    render,
    score,
    split_frames,
    targets,
)
from world_modality.latents.table import LatentTable

REPOSITORY = Path(__file__).resolve().parents[3]
CAMERAS = {"front": "observation.images.image", "wrist": "observation.images.image2"}
SIZE, LENGTH, EPISODES = 32, 6, 8  # episodes of tasks 0, 1, 0, 1, …


# ---- ridge regression -----------------------------------------------------------------------------------------------


def synthetic_split(episodes: int = 12, length: int = 40, tasks: int = 2) -> Split:
    """The last quarter of the episodes is held out."""
    episode = np.repeat(np.arange(episodes), length)
    held_out = episode >= episodes - episodes // 4
    return Split(~held_out, held_out, episode, episode % tasks)


def noise(split: Split, dimensions: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(len(split.task), dimensions))


def test_a_linear_map_is_recovered():
    split = synthetic_split()
    features = noise(split, 10) * np.logspace(-3, 3, 10)
    positions = features / features.std(0) @ noise(split, 3)[:10] + [1.0, 2.0, 3.0]
    found = score(features, positions, split)
    assert found["r2"] > 0.9999
    assert found["penalty"] == PENALTIES[0]


def test_noise_tells_nothing():
    split = synthetic_split()
    found = score(noise(split, 20), noise(split, 3, seed=1), split)
    assert -0.1 < found["r2"] <= 0.01


def test_no_features_are_the_tasks_mean():
    split = synthetic_split()
    positions = noise(split, 3, seed=1) + 100 * split.task[:, None]
    found = score(positions[:, :0], positions, split)
    assert (found["r2"], found["dimensions"], found["penalty"]) == (0, 0, None)
    assert found["rms_m"] == pytest.approx(np.sqrt(3), rel=0.1)


def test_to_know_the_task_is_worth_nothing():
    split = synthetic_split()
    positions = noise(split, 3, seed=1) + 100 * split.task[:, None]
    assert score(split.task[:, None].astype(float), positions, split)["r2"] == pytest.approx(0, abs=1e-6)


def test_the_error_is_the_distance_in_each_episode():
    split = synthetic_split(episodes=4, tasks=1)
    positions = np.zeros((len(split.task), 3))
    positions[split.held_out] = [0.03, 0, 0.04]
    found = score(positions[:, :0], positions, split)
    assert found["rms_m"] == pytest.approx(0.05)
    assert found["rms_m_by_episode"] == {"3": pytest.approx(0.05)}


def test_held_out_frames_are_not_fitted_on():
    split = synthetic_split()
    features, positions = noise(split, 4), noise(split, 3, seed=1)
    penalty = choose_penalty(features, positions, split)
    features[split.held_out] = positions[split.held_out] = np.nan
    assert choose_penalty(features, positions, split) == penalty


def test_the_penalty_is_chosen_on_whole_episodes():
    """Features that tell episodes apart fit every frame of those they know, and say nothing about another one."""
    split = synthetic_split()
    features, positions = noise(split, 30)[split.episode], noise(split, 3, seed=1)[split.episode]
    assert choose_penalty(features, positions, split) >= 1
    frames = Split(split.training, split.held_out, np.arange(len(split.task)), split.task)
    assert choose_penalty(features, positions, frames) == PENALTIES[0]


def test_more_features_than_frames_are_fitted_the_same_way():
    features, positions = np.random.default_rng(0).normal(size=(2, 20, 20))
    wide = fit(np.hstack([features, np.zeros((20, 1))]), positions, 0.1)
    np.testing.assert_allclose(wide[:20], fit(features, positions, 0.1), atol=1e-9)


def test_features_that_never_change_while_training_are_left_out():
    split = synthetic_split()
    features = noise(split, 3)
    constant = np.where(split.held_out, 1e6, 1.0)[:, None]
    positions = features @ np.eye(3)
    assert score(np.hstack([features, constant]), positions, split)["r2"] > 0.9999


# ---- a dataset ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(experiment, tmp_path_factory):
    """A dataset in which a bright square shows where the gripper is, two encoders, and object positions."""
    root = tmp_path_factory.mktemp("probe")
    image = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channel"]}
    features = {key: dict(image) for key in CAMERAS.values()} | VECTOR_FEATURES
    dataset = LeRobotDataset.create("local/square", 20, features, root / "dataset", use_videos=False)
    draw, bowl = np.random.default_rng(0), []
    for episode in range(EPISODES):
        start = draw.integers(0, 8, 2)
        for t in range(LENGTH):
            x, y = start + t
            frame = np.zeros((SIZE, SIZE, 3), np.uint8)
            frame[2 * y : 2 * y + 6, 2 * x : 2 * x + 6] = 255
            vectors = draw_vectors(draw)
            vectors["observation.state"][:3] = x / 100, y / 100, 0.1 + 0.001 * (t % 2)
            bowl.append([*start / 100, 0.01 * max(0, t - 2)])  # lifted from step 3 on
            images = dict.fromkeys(CAMERAS.values(), frame)
            dataset.add_frame(images | vectors | {"task": INSTRUCTIONS[episode % 2]})
        dataset.save_episode()
    dataset.finalize()
    for seed, name in enumerate(("first", "second")):
        sizes = {"image_size": SIZE, "hidden_size": 48, "layers": 1, "seed": seed}
        build_small_encoder(experiment.encoder.model_copy(update=sizes), root / name)
    fingerprint = dataset_fingerprint(load_dataset(root / "dataset"))
    bowl = np.array(bowl, np.float32)
    write_positions(ObjectPositions(fingerprint, np.arange(len(bowl)), bowl, bowl[::-1]), root / "objects.parquet")
    return root


@pytest.fixture(scope="module")
def dataset(root):
    return load_dataset(root / "dataset")


@pytest.fixture(scope="module")
def objects(root, dataset):
    return read_positions(root / "objects.parquet", dataset_fingerprint(dataset))


def encoders(root) -> dict[str, Path]:
    return {name: root / name for name in ("first", "second")}


@pytest.fixture(scope="module")
def report(root, dataset, objects):
    return probe_encoders(dataset, CAMERAS, encoders(root), 4, 1, objects)


def test_the_bounds_of_all_episodes_are_read_once(dataset, monkeypatch):
    calls = []
    monkeypatch.setattr(probe, "episode_bounds", lambda d: calls.append(d) or episode_bounds(d))
    split_frames(dataset, 1)
    assert len(calls) == 1


def test_frames_are_split_by_episode(dataset):
    split = split_frames(dataset, 1)
    assert set(split.episode[split.held_out]) == {6, 7}
    assert set(split.episode[split.training]) == set(range(6))


def test_latents_are_those_of_the_latent_table(root, dataset, tmp_path):
    encoder, key = VideoEncoder.load(root / "first"), CAMERAS["front"]
    encode_dataset(dataset, key, encoder, 4, 8, tmp_path / "latents.parquet")
    table = LatentTable.open(tmp_path / "latents.parquet")
    features = camera_features(CameraFrames(dataset, key), {"first": encoder}, 4, 8)
    np.testing.assert_array_equal(features["first"], table.latents.double())


def test_pixels_are_averaged_blocks_of_the_frame(dataset):
    key = CAMERAS["front"]
    pixels = camera_features(CameraFrames(dataset, key), {}, 4, 8)["pixels"]
    stock = LeRobotDataset("moving", root=dataset.root)
    blocks = stock[9][key].reshape(3, 16, 2, 16, 2).mean((2, 4))
    np.testing.assert_allclose(pixels[9], blocks.flatten(), atol=1e-6)


def test_every_target_camera_and_feature_is_scored(report):
    assert {s["target"] for s in report["scores"]} == {"gripper", "bowl", "plate", "resting_bowl"}
    assert {s["camera"] for s in report["scores"]} == {"front", "wrist", "front + wrist"}
    assert len(report["scores"]) == 4 * 3 * 4
    dimensions = {(s["camera"], s["features"]): s["dimensions"] for s in report["scores"]}
    assert dimensions["front", "pixels"] == 768
    assert dimensions["front + wrist", "first"] == 96
    assert report["protocol"]["held_out_episodes"] == [6, 7]
    json.dumps(report, allow_nan=False)


def test_a_square_is_found_in_the_pixels(report):
    [found] = [
        s for s in report["scores"] if (s["target"], s["camera"], s["features"]) == ("gripper", "front", "pixels")
    ]
    assert found["r2"] > 0.5


def test_the_bowl_rests_until_it_is_lifted(dataset, objects):
    _, rows = targets(dataset, objects)["resting_bowl"]
    np.testing.assert_array_equal(rows, np.tile(np.arange(LENGTH) < 3, EPISODES))


def test_without_object_positions_the_gripper_alone_is_asked_for(dataset):
    assert list(targets(dataset, None)) == ["gripper"]


def test_frames_without_positions_are_left_out(dataset, objects):
    some = ObjectPositions(objects.dataset_fingerprint, objects.index[10:], objects.bowl[10:], objects.plate[10:])
    found = targets(dataset, some)
    assert [rows.sum() for _, rows in found.values()][:2] == [len(dataset), len(dataset) - 10]


def test_the_best_is_the_one_with_the_least_error(report):
    for row in report["best"]:
        errors = {
            s["features"]: s["rms_m"]
            for s in report["scores"]
            if (s["target"], s["camera"]) == (row["target"], row["camera"])
        }
        assert errors[row["features"]] == min(errors.values())
        assert errors[row["next"]] == sorted(errors.values())[1]
        assert 0 <= row["better_in"] <= row["episodes"] == 2


def test_the_text_says_who_wins(report):
    lines = render(report).splitlines()
    assert lines[0].startswith("Least error of 12 comparisons: constant ")
    assert sum(map(int, re.findall(r" (\d+)(?:,|$)", lines[0].partition(":")[2]))) == 12
    assert re.fullmatch(r"Less error with second than with first: \d+ of 12", lines[1])
    [line] = [line for line in lines if line.startswith("gripper        front          ")]
    winner = next(r for r in report["best"] if (r["target"], r["camera"]) == ("gripper", "front"))
    assert f"{winner['features']}, before {winner['next']} in {winner['better_in']} of 2 episodes" in line


def test_the_probe_repeats_itself(root, dataset, objects, report):
    assert probe_encoders(dataset, CAMERAS, encoders(root), 4, 1, objects) == report


@pytest.mark.parametrize(
    ("cameras", "held_out", "message"),
    [
        (CAMERAS, 0, "0 held-out episodes: there is nothing to judge the probe on"),
        (CAMERAS, 3, "task 0 has 1 training episode: choosing the penalty needs 2"),
        (CAMERAS, 4, "none is left to train on"),
        ({"top": "observation.images.top"}, 1, "no such camera; valid: .*image2"),
    ],
)
def test_what_cannot_be_probed_is_refused(root, dataset, cameras, held_out, message):
    with pytest.raises(ValueError, match=message):
        probe_encoders(dataset, cameras, encoders(root), 4, held_out)


def test_an_encoder_cannot_take_the_name_of_a_baseline(root, dataset):
    with pytest.raises(ValueError, match="cannot be called constant or pixels"):
        probe_encoders(dataset, CAMERAS, {"pixels": root / "first"}, 4, 1)


def test_an_encoder_that_has_seen_a_held_out_episode_is_refused(experiment, root, dataset, tmp_path):
    build_small_encoder(experiment.encoder, tmp_path / "encoder")
    made = {"dataset_fingerprint": dataset_fingerprint(dataset), "training_episodes": [0, 1, 2, 3, 4, 5, 6]}
    write_json(tmp_path / "encoder" / "pretraining.json", made)
    with pytest.raises(ValueError, match="was pretrained on episode 6, which is held out here"):
        probe_encoders(dataset, CAMERAS, {"seen": tmp_path / "encoder"}, 4, 1)


def test_the_program_writes_numbers_and_a_table(root, monkeypatch, tmp_path, capsys, report):
    program = REPOSITORY / "scripts" / "probe_encoder.py"
    flags = ["--dataset", root / "dataset", "--held_out", 1]
    flags += ["--encoders", *(f"{name}={folder}" for name, folder in encoders(root).items())]
    flags += ["--image_keys", *(f"{camera}={key}" for camera, key in CAMERAS.items())]
    flags += ["--output", tmp_path / "probe.json"]
    monkeypatch.setattr("sys.argv", [str(program), *map(str, flags)])
    runpy.run_path(str(program), run_name="__main__")
    found = read_content(tmp_path / "probe.json")
    assert found["scores"] == [s for s in report["scores"] if s["target"] == "gripper"]
    assert capsys.readouterr().out.endswith(render(found))


# ---- object positions -----------------------------------------------------------------------------------------------


def some_positions(**changes) -> ObjectPositions:
    fields = {"index": np.array([0, 1, 5]), "bowl": np.arange(9.0).reshape(3, 3), "plate": np.ones((3, 3))}
    return ObjectPositions("fingerprint", **fields | changes)


def test_positions_come_back_as_written(tmp_path):
    write_positions(some_positions(), tmp_path / "objects.parquet")
    found = read_positions(tmp_path / "objects.parquet", "fingerprint")
    np.testing.assert_array_equal(found.index, [0, 1, 5])
    np.testing.assert_array_equal(found.bowl, some_positions().bowl)
    assert found.plate.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index": np.array([0, 5, 1])}, "not in ascending order"),
        ({"bowl": np.full((3, 3), np.nan)}, "NaN or infinite"),
    ],
)
def test_positions_that_cannot_be_are_refused(tmp_path, changes, message):
    write_positions(some_positions(**changes), tmp_path / "objects.parquet")
    with pytest.raises(ValueError, match=message):
        read_positions(tmp_path / "objects.parquet", "fingerprint")


def test_positions_of_another_dataset_are_refused(tmp_path):
    write_positions(some_positions(), tmp_path / "objects.parquet")
    with pytest.raises(ValueError, match="of dataset fingerprint, expected another"):
        read_positions(tmp_path / "objects.parquet", "another")
    torch.save([], tmp_path / "objects.parquet")
    with pytest.raises(ValueError, match="truncated or damaged Parquet"):
        read_positions(tmp_path / "objects.parquet", "another")
    with pytest.raises(ValueError, match="no such file"):
        read_positions(tmp_path / "nothing.parquet", "another")
