"""Where a trained policy's attention goes on the frames it was trained on.

The frames are spread evenly over the training episodes, and the flow noise of each frame is fixed. Both are the same
for every option, so that options are compared on the same moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import make_pre_post_processors

from lerobot_policy_world_modality.modeling_smolvla_world import SmolVLAWorldPolicy
from world_modality.artifacts.files import file_sha256
from world_modality.data.dataset import dataset_fingerprint, episode_bounds, load_dataset, split_episodes
from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.examination.attention import AttentionSpec, ChunkAttention, join_specs, write_attention
from world_modality.latents.encoder import check_device
from world_modality.latents.table import LatentTable, join_tables
from world_modality.progress import Progress
from world_modality.training.checkpoint import read_training
from world_modality.training.loader import FrameBatches

NOISE_SEED = 0


def measure_training_attention(
    checkpoints: Sequence[Path],
    dataset: Path,
    latents: Sequence[Path],
    output: Path,
    *,
    frames: int,
    actions: int,
    batch_size: int,
    device: str,
) -> None:
    """Write the attention of one option's checkpoints, one per training seed, on evenly spaced training frames.

    Args:
        latents: tables of the option's world cameras, in any order.
        frames: how many frames of the training episodes to use; all of them if there are fewer.
        actions: the number of first actions of each chunk over which the attention is averaged.

    Raises:
        InputError: a checkpoint is not of a trained world option; two are of different options or of the same seed; the
            latents are not those of the option's cameras and of the dataset; or a policy predicts fewer than `actions`
            at once.
    """
    check_device(device)
    records = {checkpoint: _training_record(checkpoint) for checkpoint in checkpoints}
    spec = join_specs({c: _attention_spec(c, record, actions) for c, record in records.items()})
    if len(spec.checkpoints) < len(checkpoints):
        raise InputError(f"{checkpoints[-1]}: the training seeds {', '.join(spec.checkpoints)} are not all distinct")
    loaded = load_dataset(dataset)
    table = _open_latents(latents, loaded, list(spec.cameras.values()))
    parts = []
    for checkpoint, record in records.items():
        policy, preprocessor = _load(checkpoint, device)
        policy.attach_latents(table)
        trained, _ = split_episodes(loaded, record["spec"]["held_out_per_task"])
        rows = spread_frames(loaded, trained, frames)
        batches = FrameBatches(loaded, policy.config.chunk_size, cache_frames=False)
        attention = training_attention(policy, preprocessor, batches, rows, actions, batch_size)
        parts.append(attention.rows(train_seed=record["seed"], **_places(loaded, rows)))
    write_attention(output, spec, parts)


def _training_record(checkpoint: Path) -> dict:
    record = read_training(checkpoint)
    if not record["spec"]["world"]:
        raise InputError(f"{checkpoint}: option {record['spec']['option']} was trained without a world modality")
    return record


def _attention_spec(checkpoint: Path, record: dict, actions: int) -> AttentionSpec:
    spec = record["spec"]
    if actions > spec["policy"]["chunk_size"]:
        raise InputError(f"{checkpoint}: predicts {spec['policy']['chunk_size']} actions at once, not {actions}")
    return AttentionSpec(
        option=spec["option"],
        where="training",
        cameras={camera: spec["image_keys"][camera] for camera in spec["cameras"]},
        memory=spec["memory"],
        denoise_steps=spec["policy"]["flow_steps"],
        heads=spec["world"]["heads"],
        horizon=spec["world"]["horizon"],
        actions=actions,
        checkpoints={str(record["seed"]): file_sha256(checkpoint / "model.safetensors")},
    )


def spread_frames(dataset: StoredDataset, episodes: Sequence[int], count: int) -> list[int]:
    """`count` global indices spread evenly over the frames of some episodes; all of them if there are fewer."""
    bounds = episode_bounds(dataset)
    rows = np.concatenate([np.arange(*bounds[episode]) for episode in episodes])
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)].tolist()


@torch.no_grad()
def training_attention(
    policy: SmolVLAWorldPolicy,
    preprocessor: Callable[[dict], dict],
    frames: FrameBatches,
    rows: Sequence[int],
    actions: int,
    batch_size: int,
) -> ChunkAttention:
    """The attention of a policy, with its latents attached, while it predicts the chunks that start at `rows`."""
    policy.eval()
    config = policy.config
    shape = (len(rows), config.chunk_size, config.max_action_dim)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(NOISE_SEED))
    progress, heard = Progress("attention on training frames", len(rows)), []
    for start in range(0, len(rows), batch_size):
        chosen = slice(start, start + batch_size)
        batch = preprocessor(frames[list(rows[chosen])])
        with policy.listening() as attention:
            policy.chunk_attending_to(policy.training_memory(batch), batch, noise[chosen].to(config.device))
        heard.append(ChunkAttention.of(attention, actions))
        progress.update(min(chosen.stop, len(rows)))
    weights, norm = (np.concatenate([getattr(part, name) for part in heard]) for name in ("weights", "memory_norm"))
    return ChunkAttention(weights, norm, heard[0].gate)


def _open_latents(paths: Sequence[Path], dataset: StoredDataset, keys: list[str]) -> LatentTable:
    same = {"dataset_fingerprint": dataset_fingerprint(dataset)}
    tables = {table.specs[0].image_key: table for table in (LatentTable.open(path, same) for path in paths)}
    if sorted(tables) != sorted(keys) or len(paths) != len(keys):
        given = ", ".join(tables) or "nothing"
        raise InputError(f"the latents are of {given}, the option was trained on those of {', '.join(keys)}")
    return join_tables([tables[key] for key in keys])


def _places(dataset: StoredDataset, rows: list[int]) -> dict[str, np.ndarray]:
    """The place of each frame, in the form that `ChunkAttention.rows` takes."""
    names = ["task_index", "episode_index", "frame_index"]
    columns = dataset.columns(names)
    task, episode, step = (columns[name][rows] for name in names)
    lengths = np.array([end - start for start, end in episode_bounds(dataset)])
    return {"task": task, "episode": episode, "episode_steps": lengths[episode], "step": step}


def _load(checkpoint: Path, device: str) -> tuple[SmolVLAWorldPolicy, Callable[[dict], dict]]:
    config = PreTrainedConfig.from_pretrained(checkpoint)
    config.device = device
    policy = SmolVLAWorldPolicy.from_pretrained(checkpoint, config=config)
    overrides = {"device_processor": {"device": device}}
    preprocessor, _ = make_pre_post_processors(
        config, pretrained_path=str(checkpoint), preprocessor_overrides=overrides
    )
    return policy, preprocessor
