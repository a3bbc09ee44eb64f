"""Prophet's quality: how well the trained Prophets of one option predict episodes they were not trained on.

Non-obvious behaviours:
* Latents are compared in each checkpoint's own standard units, which its `prophet.mean` and `prophet.std` define.
* A frame near the end of its episode has fewer than K frames ahead, so the greater k is, the fewer frames count.
* The whole policy is loaded, because it checks that the latents are the right ones. Only its Prophet is run, on the
  CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lerobot.configs import PreTrainedConfig
from torch import Tensor
from torch.nn import functional as F

from lerobot_policy_world_modality import SmolVLAWorldConfig
from lerobot_policy_world_modality.modeling_smolvla_world import SmolVLAWorldPolicy
from lerobot_policy_world_modality.prophet import Prophet
from world_modality.data.dataset import dataset_fingerprint, episode_bounds, split_episodes
from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.examination.foresight import FUSED, PREDICTORS, Cosines, Foresight, HeldOut, Step, View
from world_modality.latents.table import LatentTable
from world_modality.training.checkpoint import read_training


@dataclass(frozen=True)
class WorldCheckpoint:
    """One training seed's checkpoint of an option with a world modality."""

    folder: Path
    config: SmolVLAWorldConfig
    spec: dict[str, Any]  # the spec it was trained with
    seed: int
    dataset: str  # fingerprint of the dataset it was trained on


@dataclass(frozen=True)
class _Frames:
    """The frames to measure on: their rows in the latent table, their episodes, and which of their futures exist."""

    rows: Tensor  # (F,) int64
    episode: Tensor  # (F,) int64
    valid: Tensor  # (F, K) bool

    @property
    def lengths(self) -> list[int]:
        """How many frames each episode has, in order."""
        return self.episode.unique_consecutive(return_counts=True)[1].tolist()


def read_checkpoints(folders: Sequence[Path]) -> list[WorldCheckpoint]:
    """Read the checkpoints of one option, without their weights.

    Raises:
        InputError: none is given, a file is missing, there is no world modality, a seed appears twice, or two were not
            trained as the same option.
    """
    if not folders:
        raise InputError("no checkpoints: give the folder of each training seed of one option")
    checkpoints = [_read_checkpoint(folder) for folder in folders]
    first, *others = checkpoints
    for other in others:
        for key, value in other.spec.items():
            if value != first.spec.get(key):
                raise InputError(
                    f"{other.folder}: trained with {key} {value!r}, but {first.folder} with {first.spec.get(key)!r}; "
                    "give the training seeds of one option"
                )
    for number, checkpoint in enumerate(checkpoints):
        if checkpoint.seed in [earlier.seed for earlier in checkpoints[:number]]:
            raise InputError(f"{checkpoint.folder}: a second checkpoint of training seed {checkpoint.seed}")
    return checkpoints


def _read_checkpoint(folder: Path) -> WorldCheckpoint:
    training = read_training(folder)
    config = PreTrainedConfig.from_pretrained(folder)
    if not isinstance(config, SmolVLAWorldConfig):
        option = training["spec"]["option"]
        raise InputError(f"{folder}: option {option} is a {config.type} without a world modality, so has no Prophet")
    return WorldCheckpoint(folder, config, training["spec"], training["seed"], training["inputs"]["dataset"])


@torch.no_grad()
def measure_foresight(
    folders: Sequence[Path],
    latents: LatentTable,
    dataset: StoredDataset,
    held_out_per_task: int,
    batch_size: int = 256,
) -> Foresight:
    """Compare what the Prophets of one option predict on held-out episodes with what really follows.

    Args:
        folders: one checkpoint per training seed.
        latents: the latents of the option's world cameras, joined in the order of the cameras.
        held_out_per_task: how many of the last episodes of each task were held out from training.
        batch_size: how many frames to predict from at once.

    Raises:
        InputError: the checkpoints are not those of one option with a world modality; the latents or the dataset are
            not those they were trained on; no episode was held out from training; or none reaches the horizon.
    """
    checkpoints = read_checkpoints(folders)
    _check_held_out(checkpoints[0], held_out_per_task)
    training, held_out = split_episodes(dataset, held_out_per_task)
    horizon = checkpoints[0].config.world_horizon
    _check_horizon(dataset, horizon, {"training": training, "held-out": held_out})
    _check_dataset(checkpoints, latents, dataset)
    prophets = [_load_prophet(checkpoint, latents) for checkpoint in checkpoints]

    delta = _mean_delta(latents, _frames(latents, dataset, training, horizon).rows, horizon, batch_size)
    frames = _frames(latents, dataset, held_out, horizon)
    cosines = [_cosines(prophet, latents, frames.rows, delta, batch_size) for prophet in prophets]
    spec, config = checkpoints[0].spec, checkpoints[0].config
    return Foresight(
        option=spec["option"],
        cameras=spec["cameras"],
        image_keys={camera: spec["image_keys"][camera] for camera in spec["cameras"]},
        window=config.world_window,
        history=config.world_history,
        horizon=horizon,
        training_episodes=len(training),
        held_out=[HeldOut(episode=e, frames=length) for e, length in zip(held_out, frames.lengths, strict=True)],
        seeds={c.seed: _views(spec["cameras"], found, frames) for c, found in zip(checkpoints, cosines, strict=True)},
        overall=_views(spec["cameras"], torch.stack(cosines).mean(0), frames),
    )


# ---- checkpoints, latents and frames --------------------------------------------------------------------------------


def _check_held_out(checkpoint: WorldCheckpoint, held_out_per_task: int) -> None:
    """Refuse to measure on no episodes, or on other episodes than those held out from training."""
    if held_out_per_task < 1:
        raise InputError(f"held_out_per_task {held_out_per_task}: hold out at least 1 episode of each task")
    trained = checkpoint.spec.get("held_out_per_task")
    if trained != held_out_per_task:
        raise InputError(f"{checkpoint.folder}: trained with held_out_per_task {trained}, not {held_out_per_task}")


def _check_horizon(dataset: StoredDataset, horizon: int, kinds: dict[str, list[int]]) -> None:
    """Refuse episodes that are all too short to have a frame `horizon` frames ahead: nothing to compare at that k."""
    bounds = episode_bounds(dataset)
    for kind, episodes in kinds.items():
        longest = max(bounds[episode][1] - bounds[episode][0] for episode in episodes)
        if horizon >= longest:
            raise InputError(
                f"{dataset.repo_id}: the longest {kind} episode has {longest} frames, so at most {longest - 1} lie "
                f"ahead of any; Prophet predicts {horizon}"
            )


def _check_dataset(checkpoints: Sequence[WorldCheckpoint], latents: LatentTable, dataset: StoredDataset) -> None:
    fingerprint = dataset_fingerprint(dataset)
    for spec in latents.specs:
        spec.require({"dataset_fingerprint": fingerprint}, f"latents of {spec.image_key}")
    for checkpoint in checkpoints:
        if checkpoint.dataset != fingerprint:
            raise InputError(
                f"{checkpoint.folder}: trained on a dataset with fingerprint {checkpoint.dataset[:12]}, "
                f"but {dataset.root} has {fingerprint[:12]}"
            )


def _load_prophet(checkpoint: WorldCheckpoint, latents: LatentTable) -> Prophet:
    """A checkpoint's Prophet, after its policy has checked that the latents are the ones it was trained with."""
    checkpoint.config.device = "cpu"
    policy = SmolVLAWorldPolicy.from_pretrained(checkpoint.folder, config=checkpoint.config)
    if not policy.prophet.is_standardized:
        raise InputError(f"{checkpoint.folder}: never trained: its Prophet does not know its latents' mean and std")
    try:
        policy.attach_latents(latents)
    except InputError as error:
        raise InputError(f"{checkpoint.folder}: {error}") from None
    for name, value in policy.prophet.state_dict().items():
        if not value.isfinite().all():
            raise InputError(f"{checkpoint.folder}: prophet.{name} is not finite")
    return policy.prophet.eval()


def _frames(latents: LatentTable, dataset: StoredDataset, episodes: Sequence[int], horizon: int) -> _Frames:
    bounds = episode_bounds(dataset)
    rows = torch.cat([torch.arange(*bounds[episode]) for episode in episodes])
    episode = torch.cat([torch.full((bounds[e][1] - bounds[e][0],), e) for e in episodes])
    ahead = torch.arange(1, horizon + 1)
    return _Frames(rows, episode, rows[:, None] + ahead <= latents.last_row[rows][:, None])


# ---- measuring ------------------------------------------------------------------------------------------------------


def _mean_delta(latents: LatentTable, rows: Tensor, horizon: int, batch_size: int) -> Tensor:
    """Mean of z[t+k] - z[t] over the frames t that have a frame k ahead: (K, D) float64, in the encoder's units."""
    total, count = torch.zeros(horizon, latents.dim, dtype=torch.float64), torch.zeros(horizon, dtype=torch.int64)
    for index in rows.split(batch_size):
        future, valid = latents.future(index, horizon)
        change = future.double() - latents.history(index, 1)  # (B, K, D)
        total += change.masked_fill(~valid[..., None], 0).sum(0)
        count += valid.sum(0)
    return total / count[:, None]


def _cosines(prophet: Prophet, latents: LatentTable, rows: Tensor, delta: Tensor, batch_size: int) -> Tensor:
    """Cosines between each prediction and the latents that follow each frame: (predictors, views, F, K) float64.

    Cosines past the end of an episode are meaningless, because nothing follows there.
    """
    dims = [spec.dim for spec in latents.specs]
    mean_change = (delta / prophet.std).float()
    found = []
    for index in rows.split(batch_size):
        history = latents.history(index, prophet.history)
        target = prophet.standardize(latents.future(index, prophet.horizon)[0])  # (B, K, D)
        last = prophet.standardize(history[:, -1:])  # (B, 1, D)
        predicted = torch.stack([prophet(history), last.expand_as(target), last + mean_change])
        views = zip(_split(predicted, dims), _split(target, dims), strict=True)
        found.append(torch.stack([F.cosine_similarity(p, t, dim=-1) for p, t in views], dim=1))
    return torch.cat(found, dim=2).clamp(-1, 1).double()


def _split(fused: Tensor, dims: Sequence[int]) -> list[Tensor]:
    """The dimensions of each camera and, if there are several cameras, all dimensions together."""
    return [*fused.split(dims, dim=-1), fused] if len(dims) > 1 else [fused]


def _views(cameras: Sequence[str], cosines: Tensor, frames: _Frames) -> dict[str, View]:
    """The file's entry for each view, by name, from cosines (predictors, views, F, K)."""
    names = [*cameras, FUSED][: cosines.shape[1]]
    return {name: _view(cosines[:, number], frames) for number, name in enumerate(names)}


def _view(cosines: Tensor, frames: _Frames) -> View:
    """The file's entry for one view, from its cosines (predictors, F, K)."""
    at_k = [cosines[:, valid, k].mean(1) for k, valid in enumerate(frames.valid.unbind(1))]
    counts = frames.valid.sum(0).tolist()
    episodes = zip(cosines.split(frames.lengths, dim=1), frames.valid.split(frames.lengths), strict=True)
    of_episode = [of_one[:, valid].mean(1) for of_one, valid in episodes if valid.any()]
    return View(
        steps=[Step(k=k + 1, frames=counts[k], **_by_name(mean)) for k, mean in enumerate(at_k)],
        mean=Cosines(**_by_name(cosines[:, frames.valid].mean(1))),
        episodes=len(of_episode),
        episodes_better=sum(bool(mean[0] > mean[1]) for mean in of_episode),  # in the order of PREDICTORS
    )


def _by_name(means: Tensor) -> dict[str, float]:
    return dict(zip(PREDICTORS, means.tolist(), strict=True))
