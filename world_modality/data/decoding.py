"""The frames of each episode in order, decoded by other processes while the last ones are being used.

Each worker decodes whole episodes, because the stored images of one share a row group. It is at most `AHEAD` episodes
ahead of what was asked for, so the memory that is needed depends on the length of an episode and not on how many there
are.

Non-obvious behaviours of torch's DataLoader:
* An error in a worker is raised as another one whose message is a whole traceback. Here a worker hands an `InputError`
  over as a value.
* A worker looks every five seconds whether its parent is still there, and only while it has nothing to do.
* Each worker's seed is drawn from the global generator, unless the loader has one of its own.
* Workers are forked. That is safe next to a GPU as long as they do not use it, and decoding does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from world_modality.data.dataset import CameraFrames
from world_modality.errors import InputError
from world_modality.program import die_with

AHEAD = 1  # episodes that each worker decodes ahead


def decoded_episodes(frames: CameraFrames, workers: int = 0) -> Iterator[Tensor]:
    """The frames of each episode in order, (n, 3, H, W) uint8, each decoded once.

    Args:
        workers: processes that decode ahead; with 0 each episode is decoded when it is asked for.

    Raises:
        InputError: a frame cannot be decoded; the episodes before it have been yielded.
    """
    if not workers:
        yield from frames.episodes()
        return
    parent = os.getpid()
    loader = DataLoader(
        _Episodes(frames),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        multiprocessing_context="fork",
        worker_init_fn=lambda _: die_with(parent),
        generator=torch.Generator(),
    )
    for episode in loader:
        if isinstance(episode, InputError):
            raise episode
        yield episode


class _Episodes(Dataset):
    """One camera's episodes by number, each as its frames or as the error that stands in their way."""

    def __init__(self, frames: CameraFrames):
        self._frames = frames

    def __len__(self) -> int:
        return self._frames.num_episodes

    def __getitem__(self, episode: int) -> Tensor | InputError:
        try:
            return self._frames.episode(episode)
        except InputError as error:
            return InputError(str(error))  # without its cause, which need not survive the way to another process
