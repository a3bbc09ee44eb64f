"""Where each episode of a dataset lies in its video files.

A dataset says at which second of a file an episode begins. Nothing else holds its frames and its states together.
"""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from lerobot.datasets.video_utils import get_video_duration_in_s

from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError


def check_videos(dataset: StoredDataset) -> None:
    """Check that the episodes of each video file lie in it whole, in order and without gaps.

    Raises:
        InputError: naming the camera and the episode or the file.
    """
    for key in dataset.meta.video_keys:
        files: dict[Path, list[int]] = {}
        for episode in range(dataset.meta.total_episodes):
            files.setdefault(dataset.root / dataset.meta.get_video_file_path(episode, key), []).append(episode)
        for path, episodes in files.items():
            _check_video(dataset, key, path, episodes)


def _check_video(dataset: StoredDataset, key: str, path: Path, episodes: list[int]) -> None:
    frame = 1 / dataset.fps
    try:
        with av.open(str(path)) as container:
            rate = float(container.streams.video[0].average_rate)
        duration = get_video_duration_in_s(path)
    except (OSError, TypeError, IndexError) as error:
        raise InputError(f"{path}: no readable video ({str(error).partition(': ')[0]})") from None
    if abs(rate - dataset.fps) > 0.01 * dataset.fps:
        raise InputError(f"{path}: has {rate:g} frames per second, meta/info.json says {dataset.fps}")
    expected = 0.0  # where the next episode begins
    for episode in sorted(episodes, key=lambda e: np.nan_to_num(_span(dataset, key, e)[0], nan=-1)):
        begin, end = _span(dataset, key, episode)
        length = int(dataset.meta.episodes[episode]["length"])
        if not abs(begin - expected) < frame / 2:
            raise InputError(
                f"{dataset.repo_id}: {key}: episode {episode} begins at {begin:g} s of its video, not at {expected:g} s"
            )
        if not abs(end - begin - length * frame) < frame / 2:
            raise InputError(
                f"{dataset.repo_id}: {key}: episode {episode} has {length} frames at {dataset.fps} fps, but lasts from "
                f"{begin:g} to {end:g} s of its video"
            )
        expected = end
    if duration < expected - frame / 2:
        raise InputError(f"{path}: lasts {duration:g} s, its episodes need {expected:g} s")


def _span(dataset: StoredDataset, key: str, episode: int) -> tuple[float, float]:
    """Where an episode begins and ends in its file [s]."""
    row = dataset.meta.episodes[episode]
    begin, end = row[f"videos/{key}/from_timestamp"], row[f"videos/{key}/to_timestamp"]
    return tuple(np.nan if second is None else second for second in (begin, end))
