"""Batches for training: LeRobot's samples and LeRobot's order, without decoding what a sample does not need.

Non-obvious behaviours of LeRobotDataset:
* `dataset[i]` reads its action chunk through `hf_dataset["action"][rows]`, which decodes every image of those rows:
  13 ms a sample where the model's step needs 2. Here the columns without images live in memory as tensors.
* Actions past the end of an episode repeat the last one and are marked in `action_is_pad`, as LeRobot does.
* `index` is the frame's global index; the world modality looks its latents up by it.
"""

from __future__ import annotations

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.sampler import EpisodeAwareSampler, compute_sampler_state
from torch.utils.data import BatchSampler, DataLoader, Dataset

from world_modality.progress import Progress


class FrameBatches(Dataset):
    """Whole batches of training samples by lists of global frame indices.

    A batch holds `observation.state` (B, 8) float32, `action` (B, chunk, 7) float32, `action_is_pad` (B, chunk) bool,
    each image key (B, 3, H, W) float32 in [0, 1], `index` (B,) int64 and `task`, a list of B instructions.
    """

    def __init__(self, dataset: LeRobotDataset, image_keys: list[str], chunk_size: int, cache_frames: bool):
        self.image_keys, self.chunk_size = image_keys, chunk_size
        columns = dataset.hf_dataset.select_columns(
            ["index", "episode_index", "task_index", "observation.state", "action"]
        )
        table = columns.with_format("numpy")[:]
        self.state = torch.from_numpy(np.stack(table["observation.state"]).astype(np.float32))
        self.action = torch.from_numpy(np.stack(table["action"]).astype(np.float32))
        self.episode_end = torch.from_numpy(_episode_ends(table["index"], table["episode_index"]))
        self.tasks = _instructions(dataset, table["task_index"])
        self.images = {key: _Images(dataset, key, cache_frames) for key in image_keys}

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, indices: list[int]) -> dict:
        index = torch.as_tensor(indices, dtype=torch.int64)
        steps = index[:, None] + torch.arange(self.chunk_size)  # (B, chunk)
        last = self.episode_end[index][:, None] - 1
        batch = {
            "index": index,
            "observation.state": self.state[index],
            "action": self.action[torch.minimum(steps, last)],
            "action_is_pad": steps > last,
            "task": [self.tasks[i] for i in indices],
        }
        for key, images in self.images.items():
            batch[key] = images[indices].float() / 255
        return batch


class _Images:
    """One camera's frames as uint8 (N, 3, H, W): decoded once into memory, or on each use."""

    def __init__(self, dataset: LeRobotDataset, key: str, cache: bool):
        if key not in dataset.meta.camera_keys:
            raise KeyError(f"{key}: not an image of the dataset; valid: {', '.join(dataset.meta.camera_keys)}")
        self.dataset, self.key = dataset, key
        self.column = None
        if key in dataset.meta.image_keys:
            self.column = dataset.hf_dataset.select_columns([key]).with_format(None)
        self.frames = self._decode_all() if cache else None

    def __getitem__(self, indices: list[int]) -> torch.Tensor:
        if self.frames is not None:
            return self.frames[indices]
        return torch.stack([self._decode(i) for i in indices])

    def _decode(self, index: int) -> torch.Tensor:
        if self.column is None:  # a video: LeRobot decodes it
            return (self.dataset[index][self.key] * 255).round().to(torch.uint8)
        return torch.from_numpy(np.array(self.column[index][self.key])).permute(2, 0, 1)

    def _decode_all(self) -> torch.Tensor:
        progress = Progress(f"decode {self.key.rsplit('.')[-1]}", len(self.dataset))
        first = self._decode(0)
        frames = torch.empty((len(self.dataset), *first.shape), dtype=torch.uint8)
        for i in range(len(frames)):
            frames[i] = self._decode(i)
            progress.update(i + 1)
        return frames


def training_batches(
    dataset: LeRobotDataset, frames: FrameBatches, seed: int, batch_size: int, step: int, workers: int
):
    """Endless batches from optimizer step `step` on, in LeRobot's own order, a function of (seed, epoch) alone."""
    episodes = dataset.meta.episodes
    sampler = EpisodeAwareSampler(episodes["dataset_from_index"], episodes["dataset_to_index"], shuffle=True, seed=seed)
    sampler.load_state_dict(compute_sampler_state(step, len(sampler), batch_size, num_processes=1))
    batches = DataLoader(
        frames,
        sampler=BatchSampler(sampler, batch_size, drop_last=False),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        yield from batches


def _episode_ends(index: np.ndarray, episode_index: np.ndarray) -> np.ndarray:
    """For each frame the global index one past its episode's last frame; (N,) int64."""
    if not np.array_equal(index, np.arange(len(index))):
        raise ValueError("the dataset's frames are not numbered 0 … N-1")
    last_of_episode = np.flatnonzero(np.append(np.diff(episode_index) != 0, True)) + 1
    return last_of_episode[np.searchsorted(last_of_episode, index, side="right")].astype(np.int64)


def _instructions(dataset: LeRobotDataset, task_index: np.ndarray) -> list[str]:
    by_index = {int(row.task_index): str(task) for task, row in dataset.meta.tasks.iterrows()}
    for number, task in by_index.items():
        if not task.strip():
            raise ValueError(f"task {number} of the dataset has an empty instruction")
    return [by_index[int(i)] for i in task_index]
