"""The demonstrations as a LeRobotDataset: load it, name it, and decode its frames once.

Non-obvious behaviours of LeRobotDataset:
* LeRobot joins a camera's episodes into a few video files, so an episode's clock starts at its offset in the file.
* `meta.episodes` may be None for a dataset without episode metadata; such a dataset is not one long episode.
* If a part of a folder is missing, LeRobot looks for a dataset of the folder's name on the hub.
* `datasets` reads an Arrow copy of a Parquet file, made once for each path and time of it (in HF_HOME). A file that is
  replaced and keeps its time, as rsync and reproducible archives do, would be read as it was before. LeRobot reads
  `meta/episodes` through it, so here these copies are made in a folder that is removed again.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets.exceptions import DatasetsError
from huggingface_hub import snapshot_download
from lerobot.datasets import LeRobotDatasetMetadata
from lerobot.datasets.video_utils import FrameTimestampError, decode_video_frames
from lerobot.utils.constants import HF_LEROBOT_HUB_CACHE
from torch import Tensor

from world_modality.artifacts.files import read_json, text_sha256, tree_sha256
from world_modality.data.contract import check_features, check_values
from world_modality.data.stored import StoredDataset
from world_modality.data.videos import check_videos
from world_modality.errors import InputError
from world_modality.experiment.suites import check_language

FOLDER_PARTS = ("meta/info.json", "meta/tasks.parquet", "meta/episodes", "data")


def load_dataset(dataset: str | Path, revision: str | None = None) -> StoredDataset:
    """Load a dataset from a folder, or from the hub by its id.

    Raises:
        InputError: `dataset` is not a dataset or cannot be loaded, an instruction is empty or missing, none is one of
            LIBERO's, the frames do not match the episodes, were not taken at the dataset's fps or cannot be decoded, or
            the dataset breaks its `contract` with the simulator and the policy.
    """
    loaded = _load(dataset, revision)
    episode_bounds(loaded)
    _check_frames(loaded)
    check_language(loaded.repo_id, demonstrated(loaded))
    check_values(loaded)
    check_videos(loaded)
    _check_decoding(loaded)
    return loaded


def _load(dataset: str | Path, revision: str | None) -> StoredDataset:
    folder = Path(dataset)
    if folder.is_dir():
        _check_version(folder)
        for part in FOLDER_PARTS:
            if not (folder / part).exists():
                raise InputError(f"{dataset}: {part} is missing; a LeRobotDataset has {', '.join(FOLDER_PARTS)}")
        arguments = {"repo_id": folder.name, "root": folder}
    elif str(dataset).count("/") == 1 and not str(dataset).startswith((".", "/")):
        arguments = {"repo_id": str(dataset), "revision": revision}
    else:
        raise InputError(f"{dataset}: neither a folder nor a hub id (owner/name)")
    try:
        with _passing_copies():
            meta = LeRobotDatasetMetadata(**arguments)
        check_features(meta)
        _check_episodes(meta)
        if not folder.is_dir() and _missing(meta):
            download = {"repo_type": "dataset", "revision": meta.revision, "cache_dir": HF_LEROBOT_HUB_CACHE}
            meta.root = Path(snapshot_download(meta.repo_id, **download))
        if missing := _missing(meta):
            raise InputError(f"{meta.root}: {missing} is missing")
        stored = StoredDataset(meta)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DatasetsError) as error:
        problem = (
            "not a whole LeRobotDataset" if folder.is_dir() else "no such folder, and no LeRobotDataset on the hub"
        )
        reason = str(error.__cause__ or error).partition("\n")[0]
        raise InputError(f"{dataset}: {problem} ({reason})") from error
    if len(stored) != meta.total_frames:
        raise InputError(f"{dataset}: meta/info.json says {meta.total_frames} frames, its data have {len(stored)}")
    return stored


def _check_version(folder: Path) -> None:
    info = folder / "meta/info.json"
    version = str(read_json(info).get("codebase_version", "v3")) if info.is_file() else "v3"
    if not version.startswith("v3"):
        raise InputError(f"{folder}: is a LeRobotDataset {version}; convert it to v3.0 with LeRobot's converter")


def _check_episodes(meta: LeRobotDatasetMetadata) -> None:
    """Refuse episodes that are not as many as `meta/info.json` says, empty ones, and gaps between them."""
    if meta.episodes is None:
        return
    if len(meta.episodes) != meta.total_episodes:
        found = f"meta/episodes has {len(meta.episodes)}"
        raise InputError(f"{meta.root}: meta/info.json says {meta.total_episodes} episodes, {found}")
    begin = 0
    for episode, (start, end) in enumerate(_bounds(meta)):
        if start != begin or end <= start:
            found = f"episode {episode} from frame {start} to {end}; expected one or more frames from {begin} on"
            raise InputError(f"{meta.root}: meta/episodes has {found}")
        begin = end


def _bounds(meta: LeRobotDatasetMetadata) -> list[tuple[int, int]]:
    return list(zip(meta.episodes["dataset_from_index"], meta.episodes["dataset_to_index"], strict=True))


def _missing(meta: LeRobotDatasetMetadata) -> str | None:
    """The first file of an episode that is not there."""
    for episode in range(meta.total_episodes if meta.episodes is not None else 0):
        videos = [meta.get_video_file_path(episode, key) for key in meta.video_keys]
        for path in (meta.get_data_file_path(episode), *videos):
            if not (meta.root / path).is_file():
                return f"{path}, with episode {episode},"
    return None


@contextlib.contextmanager
def _passing_copies() -> Iterator[None]:
    """Let `datasets` keep its Arrow copies in a folder that is removed at the end."""
    usual = datasets.config.HF_DATASETS_CACHE
    # NFS keeps a file that is still open under another name; it vanishes when the program ends.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder)
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = usual


def _check_frames(dataset: StoredDataset) -> None:
    """Refuse frames of a task without an instruction, and frames whose times do not match the dataset's fps."""
    names = ["task_index", "episode_index", "frame_index", "timestamp"]
    columns = dataset.columns(names)
    unknown = ~np.isin(columns["task_index"], list(instructions(dataset)))
    if unknown.any():
        row = unknown.argmax()
        raise InputError(
            f"{dataset.repo_id}: episode {columns['episode_index'][row]} is of task {columns['task_index'][row]}, "
            "which has no instruction in meta/tasks.parquet"
        )
    late = np.abs(columns["timestamp"] - columns["frame_index"] / dataset.fps) > dataset.tolerance_s
    if late.any():
        row = late.argmax()
        raise InputError(
            f"{dataset.repo_id}: meta/info.json says {dataset.fps} fps, but frame {columns['frame_index'][row]} of "
            f"episode {columns['episode_index'][row]} is at {columns['timestamp'][row]:g} s"
        )


def _check_decoding(dataset: StoredDataset) -> None:
    """Decode the ends of the first, the middle and the last episode, so that a damaged file is found at once.

    PyAV decodes the videos: it leaves no file open, whose position a loader's workers would share.
    """
    bounds = episode_bounds(dataset)
    for key in dataset.meta.camera_keys:
        frames = CameraFrames(dataset, key, video_backend="pyav")
        for episode in sorted({0, len(bounds) // 2, len(bounds) - 1}):
            start, end = bounds[episode]
            for row in sorted({start, end - 1}):
                frames.frames([row])


def dataset_fingerprint(dataset: StoredDataset) -> str:
    """Hash of a dataset's data, videos and metadata; where and when it was written does not matter."""
    parts = [f"{name} {tree_sha256(dataset.root / name)}" for name in ("data", "meta", "videos")]
    return text_sha256("\n".join(parts))


def instructions(dataset: StoredDataset) -> dict[int, str]:
    """The instruction of each task index.

    Raises:
        InputError: one is empty, two have one task index, or the instructions are not the index of the table.
    """
    tasks = dataset.meta.tasks
    if not all(isinstance(task, str) for task in tasks.index):
        columns = ", ".join(map(str, tasks.columns))
        raise InputError(
            f"{dataset.repo_id}: meta/tasks.parquet has {tasks.index[0]!r} where an instruction is expected; "
            f"instructions are the index of that table, not one of its columns ({columns})"
        )
    by_index = {int(row.task_index): str(task) for task, row in tasks.iterrows()}
    if len(by_index) < len(tasks):
        twice = tasks.index[tasks["task_index"].duplicated(keep=False)]
        raise InputError(f"{dataset.repo_id}: meta/tasks.parquet gives one task_index to {', '.join(map(repr, twice))}")
    for number, instruction in by_index.items():
        if not instruction.strip():
            raise InputError(f"{dataset.repo_id}: task {number} has an empty instruction")
    return by_index


def demonstrated(dataset: StoredDataset) -> list[str]:
    """The instructions of the tasks that the dataset has frames of."""
    tasks = dataset.columns(["task_index"])["task_index"]
    by_index = instructions(dataset)
    return [by_index[task] for task in np.unique(tasks).tolist()]


def check_image_key(dataset: StoredDataset, image_key: str) -> None:
    """Raise InputError, naming the valid keys, if the dataset has no such camera."""
    if image_key not in dataset.meta.camera_keys:
        raise InputError(f"{image_key}: the dataset has no such camera; valid: {', '.join(dataset.meta.camera_keys)}")


def episode_bounds(dataset: StoredDataset) -> list[tuple[int, int]]:
    """First row and one past the last row of each episode, checked against the frames themselves."""
    if dataset.meta.episodes is None:
        raise InputError(f"{dataset.repo_id}: no episode metadata, so no way to keep windows within episodes")
    bounds = _bounds(dataset.meta)
    columns = dataset.columns(["index", "episode_index"])
    lengths = [end - start for start, end in bounds]
    expected = np.repeat(np.arange(len(bounds)), lengths)
    whole = np.array_equal(columns["index"], np.arange(sum(lengths)))
    if not whole or not np.array_equal(columns["episode_index"], expected):
        raise InputError(
            f"{dataset.repo_id}: its {len(columns['index'])} frames are not those of its {len(bounds)} episodes "
            f"({sum(lengths)} frames in order); load the whole dataset"
        )
    return bounds


def split_episodes(dataset: StoredDataset, held_out_per_task: int) -> tuple[list[int], list[int]]:
    """Episodes to train on, and held-out ones: the last `held_out_per_task` of each task. Both in order.

    Raises:
        InputError: a task has no episode left to train on.
    """
    of_task: dict[int, list[int]] = {}
    tasks = dataset.columns(["task_index"])["task_index"]
    for episode, (start, _) in enumerate(episode_bounds(dataset)):
        of_task.setdefault(int(tasks[start]), []).append(episode)
    for task, episodes in of_task.items():
        if len(episodes) <= held_out_per_task:
            raise InputError(
                f"{dataset.repo_id}: task {task} has {len(episodes)} episodes, of which {held_out_per_task} are held "
                "out: none is left to train on"
            )
    held_out = sorted(e for episodes in of_task.values() for e in episodes[len(episodes) - held_out_per_task :])
    return sorted({e for episodes in of_task.values() for e in episodes} - set(held_out)), held_out


class CameraFrames:
    """One camera's frames, decoded on demand.

    Args:
        video_backend: LeRobot's name of what decodes videos; None: the fastest, which keeps its files open.
    """

    def __init__(self, dataset: StoredDataset, image_key: str, video_backend: str | None = None):
        check_image_key(dataset, image_key)
        self._dataset, self._key, self._video_backend = dataset, image_key, video_backend
        self._is_video = image_key in dataset.meta.video_keys
        self._timestamps = dataset.columns(["timestamp"])["timestamp"] if self._is_video else None
        self._bounds = episode_bounds(dataset)
        self._starts = np.array([start for start, _ in self._bounds])

    def episodes(self) -> Iterator[Tensor]:
        """The frames of each episode, (n, 3, H, W) uint8, each decoded once; no other image is decoded."""
        for episode in range(self.num_episodes):
            yield self.episode(episode)

    @property
    def num_episodes(self) -> int:
        return len(self._bounds)

    def episode(self, number: int) -> Tensor:
        """The frames of one episode, (n, 3, H, W) uint8; raises as `frames` does."""
        return self.frames(range(*self._bounds[number]))

    def frames(self, rows: range | list[int]) -> Tensor:
        """The frames of some rows of one episode, (n, 3, H, W) uint8.

        Raises:
            InputError: one cannot be decoded; names the camera, the episode and the frames.
        """
        try:
            return self._video_frames(rows) if self._is_video else self._stored_images(rows)
        except (OSError, RuntimeError, ValueError, AssertionError, FrameTimestampError) as error:
            episode = self._episode_of(rows[0])
            first, last = (row - int(self._starts[episode]) for row in (rows[0], rows[-1]))
            which = f"frame {first}" if first == last else f"frames {first} to {last}"
            raise InputError(
                f"{self._dataset.repo_id}: {self._key}: {which} of episode {episode} cannot be "
                f"decoded ({str(error).strip().partition(chr(10))[0]})"
            ) from error

    def _episode_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _stored_images(self, rows: range | list[int]) -> Tensor:
        stored = ({"bytes": image, "path": None} for image in self._dataset.images(self._key, rows))
        images = [np.asarray(datasets.Image().decode_example(image).convert("RGB")) for image in stored]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)

    def _video_frames(self, rows: range | list[int]) -> Tensor:
        episode = self._episode_of(rows[0])
        meta = self._dataset.meta
        offset = meta.episodes[episode][f"videos/{self._key}/from_timestamp"]
        path = self._dataset.root / meta.get_video_file_path(episode, self._key)
        timestamps = [float(self._timestamps[row]) + offset for row in rows]
        return decode_video_frames(path, timestamps, self._dataset.tolerance_s, self._video_backend, return_uint8=True)
