"""Artifacts at the smallest scale that real classes take: a dataset of noise, backbones, latents."""

from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from world_modality.artifacts.provenance import making
from world_modality.data.dataset import load_dataset
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.suites import suite_instructions
from world_modality.latents.backbones import build_small_encoder, build_small_vlm
from world_modality.latents.encoder import VideoEncoder, encode_dataset
from world_modality.training.loop import TrainInputs

FRONT, WRIST = "observation.images.image", "observation.images.image2"
SIZE, CHUNK, FPS = 32, 4, 20
LENGTHS = (1, 5, 9)
INSTRUCTIONS = suite_instructions("libero_spatial")
VECTORS = {"observation.state": 8, "action": 7}
VECTOR_FEATURES = {key: {"dtype": "float32", "shape": (n,), "names": [key]} for key, n in VECTORS.items()}


def draw_vectors(draw: np.random.Generator) -> dict[str, np.ndarray]:
    """A state and an action as the simulator has them, of noise."""
    return {key: draw.uniform(-1, 1, n).astype(np.float32) for key, n in VECTORS.items()}


@pytest.fixture(scope="module")
def experiment():
    config = default_config()
    config["simulation"] |= {"spread": 0}
    config["demonstrations"] |= {"held_out_per_task": 0}
    config["encoder"] |= {"image_size": SIZE, "hidden_size": 48, "layers": 1}
    config["vlm"] |= {"image_size": SIZE}
    config["policy"] |= {"chunk_size": CHUNK, "flow_steps": 2}
    config["evaluation"] |= {"n_action_steps": 2}
    config["training"] |= {"steps": 7, "batch_size": 4, "warmup_steps": 1}
    return load_experiment(config)


@pytest.fixture(scope="module")
def folder(experiment, tmp_path_factory):
    """A dataset of noise in three episodes (one of a single frame), backbones, and the front camera's latents."""
    folder = tmp_path_factory.mktemp("training")
    image = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channel"]}
    features = {FRONT: dict(image), WRIST: dict(image)} | VECTOR_FEATURES
    dataset = LeRobotDataset.create("local/noise", FPS, features, folder / "dataset", use_videos=False)
    draw = np.random.default_rng(0)
    for episode, length in enumerate(LENGTHS):
        for _ in range(length):
            frame = {key: draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for key in (FRONT, WRIST)}
            dataset.add_frame(frame | draw_vectors(draw) | {"task": INSTRUCTIONS[episode % 2]})
        dataset.save_episode()
    dataset.finalize()
    build_small_encoder(experiment.encoder, folder / "encoder")
    build_small_vlm(experiment.vlm, folder / "vlm")
    encoder = VideoEncoder.load(folder / "encoder")
    inputs = {"dataset": folder / "dataset", "encoder": folder / "encoder"}
    program = Path(__file__).parents[2] / "scripts" / "precompute_world_latents.py"
    with making(folder / "front.parquet", str(program), inputs, foreign=inputs) as table:
        encode_dataset(load_dataset(folder / "dataset"), FRONT, encoder, 4, 8, table)
    return folder


@pytest.fixture
def inputs(folder):
    return TrainInputs(folder / "dataset", folder / "vlm", folder / "encoder", {"front": folder / "front.parquet"})
