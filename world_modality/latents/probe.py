"""Can one read off an encoder's latents where things are? A linear probe, compared with pixels and untrained weights.

A ridge regression predicts a position from the features of a frame. It is fitted on training episodes and judged on
held-out ones. Knowing a frame's task earns no credit: features and positions are taken relative to their mean over the
task's training frames, so always answering that mean gives an R² of 0.

Features:
* of each encoder, the latents exactly as a latent table holds them (float16, window ending at the frame),
* `pixels`: the frame itself, averaged to 16 x 16 RGB,
* `constant`: no features, so the answer is the task's training mean.

Positions: `gripper` (the first three values of the recorded state) and, where objects were replayed, `bowl`, `plate`
and `resting_bowl`. The last is the bowl while it still stands where it stood at the start of its episode, because a
carried bowl is where the gripper is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from world_modality.artifacts.files import read_json
from world_modality.data.dataset import CameraFrames, dataset_fingerprint, episode_bounds, split_episodes
from world_modality.data.positions import ObjectPositions
from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.latents.encoder import VideoEncoder, encode_episodes
from world_modality.latents.pretraining import REPORT

PIXELS = 16  # side of the averaged image [px]
FOLDS = 5  # of training episodes, for choosing the penalty
PENALTIES = 10.0 ** np.arange(-7, 3)  # relative to the number of frames, features standardized
RESTING = 0.005  # a bowl farther than this from where it stood at the start no longer rests [m]
CONSTANT = "constant"


@dataclass(frozen=True, eq=False)
class Split:
    """Frames to fit on and frames to judge on, as boolean masks (N,), and each frame's episode and task (N,)."""

    training: np.ndarray
    held_out: np.ndarray
    episode: np.ndarray
    task: np.ndarray

    def only(self, rows: np.ndarray) -> Split:
        """The same split, restricted to the frames in `rows`, a boolean mask (N,)."""
        return Split(self.training & rows, self.held_out & rows, self.episode, self.task)


def probe_encoders(
    dataset: StoredDataset,
    cameras: Mapping[str, str],
    encoders: Mapping[str, str | Path],
    window: int,
    held_out_per_task: int,
    objects: ObjectPositions | None = None,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Compare encoders by what a linear probe reads off their latents, for each camera and for all together.

    Args:
        cameras: image key by camera.
        encoders: folder by name.
        objects: where the bowl and the plate are, in some or all frames.

    Returns:
        `protocol`; `scores`, one for each target, camera and features: `dimensions`, `penalty`, `r2`, `rms_m` and
        `rms_m_by_episode` over held-out frames; `best`, for each target and camera the features with the least error
        and in how many held-out episodes they beat the runner-up.

    Raises:
        InputError: there is no held-out episode, a task has a single training episode, a camera is unknown, an
            encoder has the name of a baseline, or an encoder was pretrained on a held-out episode.
    """
    names = [CONSTANT, "pixels", *encoders]
    if len(set(names)) != len(names):
        raise InputError(f"encoders cannot be called {CONSTANT} or pixels")
    split = split_frames(dataset, held_out_per_task)
    held_out = np.unique(split.episode[split.held_out]).tolist()
    for folder in encoders.values():
        check_unseen(folder, dataset, held_out)
    loaded = {name: VideoEncoder.load(folder) for name, folder in encoders.items()}
    features = {
        camera: camera_features(CameraFrames(dataset, key), loaded, window, batch_size)
        for camera, key in cameras.items()
    }
    if len(cameras) > 1:
        views = list(features.values())
        features[" + ".join(cameras)] = {name: np.hstack([view[name] for view in views]) for name in views[0]}
    scores = []
    for target, (positions, rows) in targets(dataset, objects).items():
        part = split.only(rows)
        for camera, by_name in features.items():
            for name, values in by_name.items():
                scores.append({"target": target, "camera": camera, "features": name, **score(values, positions, part)})
    return {
        "protocol": {
            "dataset_fingerprint": dataset_fingerprint(dataset),
            "cameras": dict(cameras),
            "encoders": {name: encoder.identity()["encoder_sha256"] for name, encoder in loaded.items()},
            "window": window,
            "held_out_episodes": held_out,
            "training_episodes": np.unique(split.episode[split.training]).tolist(),
            "pixels": f"the window's last frame, averaged to {PIXELS} x {PIXELS} RGB",
        },
        "scores": scores,
        "best": best(scores),
    }


def split_frames(dataset: StoredDataset, held_out_per_task: int) -> Split:
    """Split a dataset's frames by episode.

    Raises:
        InputError: there is no held-out episode, or a task has fewer than two training episodes.
    """
    if held_out_per_task < 1:
        raise InputError(f"{held_out_per_task} held-out episodes: there is nothing to judge the probe on")
    training, held_out = split_episodes(dataset, held_out_per_task)
    columns = dataset.columns(["episode_index", "task_index"])
    episode, task = columns["episode_index"], columns["task_index"]
    bounds = episode_bounds(dataset)
    first_rows = [bounds[e][0] for e in training]
    for number, count in zip(*np.unique(task[first_rows], return_counts=True), strict=True):
        if count < 2:
            raise InputError(f"task {number} has 1 training episode: choosing the penalty needs 2")
    return Split(np.isin(episode, training), np.isin(episode, held_out), episode, task)


def check_unseen(folder: str | Path, dataset: StoredDataset, held_out: list[int]) -> None:
    """Refuse an encoder that was pretrained on one of the held-out episodes of this dataset."""
    report = Path(folder) / REPORT
    if not report.is_file():
        return
    made = read_json(report)
    seen = sorted(set(held_out) & set(made["training_episodes"]))
    if made["dataset_fingerprint"] == dataset_fingerprint(dataset) and seen:
        raise InputError(f"{folder}: was pretrained on episode {seen[0]}, which is held out here")


def camera_features(
    frames: CameraFrames, encoders: Mapping[str, VideoEncoder], window: int, batch_size: int
) -> dict[str, np.ndarray]:
    """Features of every frame of one camera, by their name, each (N, d) float64; `constant` is (N, 0)."""
    episodes = list(frames.episodes())
    pixels = torch.cat([functional.adaptive_avg_pool2d(e.float() / 255, PIXELS).flatten(1) for e in episodes])
    features = {CONSTANT: pixels[:, :0], "pixels": pixels}
    for name, encoder in encoders.items():
        encoder.check_window(window)
        features[name] = torch.cat(list(encode_episodes(encoder, episodes, window, batch_size))).half()
    return {name: values.double().numpy() for name, values in features.items()}


def targets(dataset: StoredDataset, objects: ObjectPositions | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By its name, the position (N, 3) [m] in every frame, and the frames (N,) bool in which it is probed."""
    states = dataset.columns(["observation.state"])["observation.state"]
    everywhere = np.ones(len(dataset), bool)
    found = {"gripper": (states[:, :3].astype(np.float64), everywhere)}
    if objects is None:
        return found
    known = np.zeros(len(dataset), bool)
    known[objects.index] = True
    for name in ("bowl", "plate"):
        positions = np.zeros((len(dataset), 3))
        positions[objects.index] = getattr(objects, name)
        found[name] = positions, known
    bowl, _ = found["bowl"]
    resting = known & (np.linalg.norm(bowl - bowl[_episode_starts(dataset)], axis=1) < RESTING)
    return found | {"resting_bowl": (bowl, resting)}


def _episode_starts(dataset: StoredDataset) -> np.ndarray:
    """The first row of each row's episode, (N,)."""
    return np.concatenate([np.full(end - start, start) for start, end in episode_bounds(dataset)])


# ---- the probe ------------------------------------------------------------------------------------------------------


def score(features: np.ndarray, positions: np.ndarray, split: Split) -> dict[str, Any]:
    """Fit a probe from features (N, d) to positions (N, 3) [m] and judge it on the held-out frames."""
    inputs = _relative_to_task(features, split)
    outputs = _relative_to_task(positions, split)
    inputs = _standardized(inputs, inputs[split.training])
    penalty = choose_penalty(inputs, outputs, split) if inputs.shape[1] else None
    errors = outputs[split.held_out]
    if penalty is not None:
        errors = errors - inputs[split.held_out] @ fit(inputs[split.training], outputs[split.training], penalty)
    squared = (errors**2).sum(1)
    episodes = split.episode[split.held_out]
    return {
        "dimensions": features.shape[1],
        "penalty": penalty,
        "r2": float(1 - squared.sum() / (outputs[split.held_out] ** 2).sum()),
        "rms_m": float(np.sqrt(squared.mean())),
        "rms_m_by_episode": {str(e): float(np.sqrt(squared[episodes == e].mean())) for e in np.unique(episodes)},
    }


def fit(features: np.ndarray, positions: np.ndarray, penalty: float) -> np.ndarray:
    """Ridge regression without intercept of (n, d) onto (n, k): weights (d, k); penalty relative to n."""
    return _solutions(features, positions, np.array([penalty]))[0]


def choose_penalty(features: np.ndarray, positions: np.ndarray, split: Split) -> float:
    """The penalty with the least squared error when training episodes are left out in turn (cross-validation)."""
    episodes = np.unique(split.episode[split.training])
    fold = np.searchsorted(episodes, split.episode) % min(FOLDS, len(episodes))
    errors = np.zeros(len(PENALTIES))
    for left_out in np.unique(fold[split.training]):
        inside, outside = split.training & (fold != left_out), split.training & (fold == left_out)
        for i, weights in enumerate(_solutions(features[inside], positions[inside], PENALTIES)):
            errors[i] += ((positions[outside] - features[outside] @ weights) ** 2).sum()
    return float(PENALTIES[errors.argmin()])


def _solutions(features: np.ndarray, positions: np.ndarray, penalties: np.ndarray) -> list[np.ndarray]:
    """The weights (d, k) of each penalty, from one decomposition of the smaller of the two Gram matrices."""
    count, dimensions = features.shape
    if dimensions > count:
        values, vectors = np.linalg.eigh(features @ features.T / count)
        left, right = features.T @ vectors / count, vectors.T @ positions
    else:
        values, vectors = np.linalg.eigh(features.T @ features / count)
        left, right = vectors, vectors.T @ (features.T @ positions) / count
    return [left @ (right / (values.clip(0)[:, None] + penalty)) for penalty in penalties]


def _relative_to_task(values: np.ndarray, split: Split) -> np.ndarray:
    """Values (N, d) minus their mean over the training frames of their task."""
    relative = np.zeros_like(values)
    for task in np.unique(split.task):
        rows = split.task == task
        relative[rows] = values[rows] - values[rows & split.training].mean(0)
    return relative


def _standardized(values: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Values divided by their standard deviation over the training frames; a dimension constant there becomes 0."""
    std = training.std(0)
    return np.divide(values, std, out=np.zeros_like(values), where=std > 1e-9)


# ---- what it says ---------------------------------------------------------------------------------------------------


def best(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each target and camera, the features with the least error, and in how many episodes they beat the next."""
    found = []
    for target, camera in dict.fromkeys((s["target"], s["camera"]) for s in scores):
        rivals = [s for s in scores if (s["target"], s["camera"]) == (target, camera)]
        first, second = sorted(rivals, key=lambda s: s["rms_m"])[:2]
        pairs = [(rms, second["rms_m_by_episode"][e]) for e, rms in first["rms_m_by_episode"].items()]
        found.append(
            {
                "target": target,
                "camera": camera,
                "features": first["features"],
                "next": second["features"],
                "better_in": sum(a < b for a, b in pairs),
                "episodes": len(pairs),
            }
        )
    return found


def render(report: Mapping[str, Any]) -> str:
    """A probe's report as text."""
    protocol, rows = report["protocol"], report["best"]
    names = list(dict.fromkeys(s["features"] for s in report["scores"]))
    by_place = {(s["target"], s["camera"], s["features"]): s for s in report["scores"]}
    wins = ", ".join(f"{name} {sum(row['features'] == name for row in rows)}" for name in names)
    lines = [f"Least error of {len(rows)} comparisons: {wins}"]
    first, *others = (name for name in names if name in protocol["encoders"])
    for other in others:
        less = sum(
            by_place[row["target"], row["camera"], other]["rms_m"]
            < by_place[row["target"], row["camera"], first]["rms_m"]
            for row in rows
        )
        lines.append(f"Less error with {other} than with {first}: {less} of {len(rows)}")
    width = max(map(len, (*names, "resting_bowl", "front + wrist"))) + 2
    lines += [
        "",
        f"Linear probe, RMS error [mm] (and R²) on {len(protocol['held_out_episodes'])} held-out episodes; fitted on "
        f"{len(protocol['training_episodes'])}.",
        f"constant: the task's mean. pixels: {protocol['pixels']}. Latents of windows of {protocol['window']} frames.",
        "",
        "".join(f"{cell:<{width}}" for cell in ("target", "camera", *names)) + "best",
    ]
    for row in rows:
        place = (row["target"], row["camera"])
        cells = [by_place[(*place, name)] for name in names]
        numbers = "".join(f"{f'{1000 * cell["rms_m"]:.1f} ({cell["r2"]:.2f})':<{width}}" for cell in cells)
        verdict = f"{row['features']}, before {row['next']} in {row['better_in']} of {row['episodes']} episodes"
        lines.append("".join(f"{cell:<{width}}" for cell in place) + numbers + verdict)
    return "\n".join(lines) + "\n"
