"""LeRobot's own command-line tools train and roll out `smolvla_world` with nothing but the installed package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from safetensors.torch import load_file

from world_modality.data.dataset import load_dataset
from world_modality.data.stored import StoredDataset
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.suites import suite_instructions
from world_modality.latents.backbones import build_small_encoder, build_small_vlm
from world_modality.latents.encoder import VideoEncoder, encode_dataset

FRONT, WRIST = "observation.images.image", "observation.images.image2"
SIZE = 64
INSTRUCTION = suite_instructions("libero_spatial")[0]


def _run(tool: str, *arguments: str) -> str:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
        "LIBERO_CONFIG_PATH": f"{sys.prefix}/libero",
    }
    command = [Path(sys.executable).with_name(tool), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    return run.stdout + run.stderr


def _record_noise(root: Path) -> StoredDataset:
    """A dataset of two episodes of noise, in the shapes of LIBERO."""
    image = {"dtype": "image", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channel"]}
    features = dict.fromkeys((FRONT, WRIST), image) | {
        "observation.state": {"dtype": "float32", "shape": (8,), "names": None},
        "action": {"dtype": "float32", "shape": (7,), "names": None},
    }
    dataset = LeRobotDataset.create("noise", fps=10, features=features, root=root, use_videos=False)
    random = np.random.default_rng(0)
    for length in (6, 9):
        for _ in range(length):
            images = {key: random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for key in (FRONT, WRIST)}
            state = random.normal(size=8).astype(np.float32)
            action = random.uniform(-1, 1, 7).astype(np.float32)
            dataset.add_frame(images | {"observation.state": state, "action": action, "task": INSTRUCTION})
        dataset.save_episode()
    dataset.finalize()
    return load_dataset(root)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The output of three steps of `lerobot-train --policy.type=smolvla_world`."""
    folder = tmp_path_factory.mktemp("lerobot")
    config = default_config()
    experiment = load_experiment(config)
    build_small_encoder(experiment.encoder, folder / "encoder")
    build_small_vlm(experiment.vlm, folder / "vlm")
    dataset = _record_noise(folder / "dataset")
    encode_dataset(dataset, FRONT, VideoEncoder.load(folder / "encoder"), 4, 16, folder / "front.parquet")
    _run(
        "lerobot-train",
        "--policy.type=smolvla_world",
        f'--policy.world_image_keys=["{FRONT}"]',
        f'--policy.world_latents=["{folder}/front.parquet"]',
        f"--policy.world_encoder={folder}/encoder",
        "--policy.world_latent_dim=192",
        "--policy.world_prophet_width=64",
        f"--policy.vlm_model_name={folder}/vlm",
        "--policy.num_vlm_layers=2",
        "--policy.freeze_vision_encoder=false",
        "--policy.train_expert_only=false",
        f"--policy.resize_imgs_with_padding=[{SIZE},{SIZE}]",
        "--policy.chunk_size=16",
        "--policy.n_action_steps=8",
        "--policy.num_steps=2",
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        "--dataset.repo_id=noise",
        f"--dataset.root={folder}/dataset",
        f"--output_dir={folder}/run",
        "--steps=3",
        "--batch_size=4",
        "--num_workers=0",
        "--log_freq=1",
        "--seed=0",
    )
    return folder / "run"


@pytest.fixture(scope="module")
def checkpoint(trained) -> Path:
    return trained / "checkpoints" / "000003" / "pretrained_model"


def test_lerobot_train_trains_the_world_modality(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    assert config["type"] == "smolvla_world"
    assert config["world_encoder_sha256"]
    weights = load_file(checkpoint / "model.safetensors")
    assert weights["cross_attention.gate"] != 0
    assert weights["prophet.head.weight"].any()


def test_lerobot_eval_rolls_it_out_in_libero(checkpoint, tmp_path):
    _run(
        "lerobot-eval",
        f"--policy.path={checkpoint}",
        "--env.type=libero",
        "--env.task=libero_spatial",
        "--env.task_ids=[0]",
        "--env.episode_length=20",
        f"--env.observation_height={SIZE}",
        f"--env.observation_width={SIZE}",
        "--eval.n_episodes=1",
        "--eval.batch_size=1",
        "--eval.use_async_envs=false",
        f"--output_dir={tmp_path}/eval",
    )
    report = json.loads((tmp_path / "eval" / "eval_info.json").read_text())
    assert report["overall"]["n_episodes"] == 1
