"""Training batches: LeRobot's samples in LeRobot's order, without decoding anything that a sample does not need.

Non-obvious behaviours of LeRobot's loading:
* One of its samples takes 13 ms, while a step of a small model takes 2 ms: to read the actions of some rows, it decodes
  every image of these rows. Here the columns without images are kept in memory as tensors, and so are the images if
  they fit (`training.cache_frames`).
* Actions past the end of an episode repeat the last one and are marked in `action_is_pad`, as in LeRobot.
* `index` is the frame's global index; the world modality uses it to look up its latents.
* When a signal kills a worker, an error is raised in the training process, whatever it is doing at that moment. But the
  signals that end a job reach all its processes, and the training still has to save its state. So on such a signal
  workers do not exit at once: they exit with the training, or when its time to save is up. They must not ignore the
  signal for good, because a Python program that exits sends it to its workers and then waits for them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from lerobot.datasets.sampler import EpisodeAwareSampler, compute_sampler_state
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from world_modality.data.dataset import CameraFrames, episode_bounds, instructions
from world_modality.data.stored import StoredDataset
from world_modality.program import SAVE_WITHIN, STOP_SIGNALS
from world_modality.progress import Progress


class FrameBatches(Dataset):
    """Training samples by the batch: indexing with a list of global frame indices gives a whole batch.

    A batch holds `observation.state` (B, 8) float32, `action` (B, chunk, 7) float32, `action_is_pad` (B, chunk) bool,
    each image key (B, 3, H, W) float32 in [0, 1], `index` (B,) int64 and `task`, a list of B instructions.
    """

    def __init__(self, dataset: StoredDataset, chunk_size: int, cache_frames: bool):
        self.chunk_size = chunk_size
        columns = dataset.columns(["task_index", "observation.state", "action"])
        self.state = torch.from_numpy(columns["observation.state"].astype(np.float32))
        self.action = torch.from_numpy(columns["action"].astype(np.float32))
        self.last_row = _last_rows(episode_bounds(dataset))
        by_index = instructions(dataset)
        self.tasks = [by_index[int(i)] for i in columns["task_index"]]
        cameras = {key: CameraFrames(dataset, key) for key in dataset.meta.camera_keys}
        self.images = {key: _Cached(c, key, len(self)) if cache_frames else _Decoded(c) for key, c in cameras.items()}

    def __len__(self) -> int:
        return len(self.state)

    def __getitem__(self, indices: list[int]) -> dict:
        index = torch.as_tensor(indices, dtype=torch.int64)
        steps = index[:, None] + torch.arange(self.chunk_size)  # (B, chunk)
        last = self.last_row[index][:, None]
        batch = {
            "index": index,
            "observation.state": self.state[index],
            "action": self.action[torch.minimum(steps, last)],
            "action_is_pad": steps > last,
            "task": [self.tasks[i] for i in indices],
        }
        return batch | {key: images[indices].float() / 255 for key, images in self.images.items()}


class _Decoded:
    """One camera's frames, decoded again on every request."""

    def __init__(self, frames: CameraFrames):
        self._frames = frames

    def __getitem__(self, indices: list[int]) -> Tensor:
        return torch.cat([self._frames.frames([row]) for row in indices])


class _Cached:
    """One camera's frames, decoded once and kept in memory, (N, 3, H, W) uint8."""

    def __init__(self, frames: CameraFrames, key: str, length: int):
        progress, decoded, done = Progress(f"decode {key.rsplit('.')[-1]}", length), [], 0
        for episode in frames.episodes():
            decoded.append(episode)
            done += len(episode)
            progress.update(done)
        self._frames = torch.cat(decoded)

    def __getitem__(self, indices: list[int]) -> Tensor:
        return self._frames[indices]


def training_batches(
    bounds: list[tuple[int, int]],
    frames: FrameBatches,
    seed: int,
    batch_size: int,
    step: int,
    workers: int,
    pinned: bool = False,
) -> Iterator[dict]:
    """Endless batches from optimizer step `step` on, in LeRobot's own order, which depends on (seed, epoch) alone.

    Args:
        bounds: first row and one past the last row of each episode to train on.
        pinned: put batches into pinned memory, from which a GPU copies them while it computes.
    """
    starts, ends = zip(*bounds, strict=True)
    sampler = EpisodeAwareSampler(starts, ends, shuffle=True, seed=seed)
    sampler.load_state_dict(compute_sampler_state(step, len(sampler), batch_size, num_processes=1))
    batches = DataLoader(
        frames,
        sampler=BatchSampler(sampler, batch_size, drop_last=False),
        batch_size=None,
        num_workers=workers,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_a_stop_request,
        generator=torch.Generator(),  # else every epoch, and every resume, would draw from the stream of the flow noise
    )
    while True:
        yield from batches


def _outlive_a_stop_request(_worker: int) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: signal.alarm(SAVE_WITHIN))


def _last_rows(bounds: list[tuple[int, int]]) -> Tensor:
    """For each row the last row of its episode, (N,) int64."""
    return torch.cat([torch.full((end - start,), end - 1) for start, end in bounds])
