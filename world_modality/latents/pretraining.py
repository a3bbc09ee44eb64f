"""Pretrain a small V-JEPA 2 on demonstrations by masked latent prediction (V-JEPA 2, arXiv:2506.09985).

In each window of frames, one block of the image is masked in all frames. The context encoder sees the rest of the
window, and a predictor predicts the latents of the masked tokens from it. The targets come from the target encoder,
which sees the whole window and is a moving average of the context encoder. The target encoder is the one saved.

Non-obvious behaviours of transformers' V-JEPA 2:
* `VJEPA2Model.forward(context_mask=…)` selects tokens from the encoder's *output*. By then every token has attended to
  every other, so a masked patch would reach the context. Here tokens are dropped before the layers, and
  `position_mask` keeps the others at their own rotary positions.
* `VJEPA2Predictor` selects its context from a whole sequence. Here the places of dropped tokens hold zeros, which it
  never reads.
* `VideoEncoder` never runs the predictor, and the one in a small encoder's folder is as small as possible. The one
  trained here has its own sizes and is not saved.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import VJEPA2Model
from transformers.models.vjepa2.modeling_vjepa2 import VJEPA2Encoder, VJEPA2Predictor, apply_masks

from world_modality.artifacts.files import atomic_path, write_json
from world_modality.data.dataset import CameraFrames, dataset_fingerprint, episode_bounds, split_episodes
from world_modality.data.stored import StoredDataset
from world_modality.errors import InputError
from world_modality.latents.encoder import VideoEncoder
from world_modality.latents.table import past_rows
from world_modality.progress import Progress

REPORT = "pretraining.json"
MASKED_AREA = (0.5, 0.8)  # smallest and largest share of the image
WARMUP = 0.1  # share of the steps with a linear rise; then a cosine to 0
WEIGHT_DECAY = 0.04
FIRST_MOMENTUM = 0.98  # of the moving average, rising linearly to 1
GRAD_CLIP_NORM = 1.0
MEASURED_WINDOWS = 256  # of each camera
LOSS_STEPS = 10  # over which the first and the last loss are averaged
COLLAPSED = 0.1  # the latents' spread, as a share of the untrained encoder's, below which it has collapsed


class CollapseError(InputError):
    """The pretrained encoder gives nearly the same latent to every window."""


@dataclass(frozen=True)
class Pretraining:
    """How an encoder is pretrained."""

    steps: int
    held_out_per_task: int  # how many of the last episodes of each task the encoder never sees
    window: int = 4  # frames
    batch_size: int = 32  # windows
    learning_rate: float = 1e-3  # peak, of AdamW
    seed: int = 0


def pretrain(
    encoder: str | Path, dataset: StoredDataset, image_keys: Sequence[str], spec: Pretraining, output: str | Path
) -> dict:
    """Write a pretrained encoder to the folder `output`, in the format of `encoder`, with `pretraining.json` in it.

    On one machine, torch version and number of threads, the same arguments give the same bytes.

    Returns:
        the content of `pretraining.json`: the settings, the episodes held out, the first and last `loss`, and how much
        the pooled latents of training windows differ within a camera, untrained and pretrained: `latent_std` and
        `latent_rank` (see `_spread`).

    Raises:
        InputError: there is no held-out or no training episode, a camera is unknown, or sizes do not fit.
        CollapseError: the latents' spread fell below a tenth of the untrained encoder's.
    """
    if spec.held_out_per_task < 1:
        raise InputError(f"{spec.held_out_per_task} held-out episodes: none would be left to judge the encoder by")
    video = VideoEncoder.load(encoder)
    video.check_window(spec.window)
    training, held_out = split_episodes(dataset, spec.held_out_per_task)
    windows = TrainingWindows(dataset, image_keys, training, spec.window, video.image_size)
    measured = windows.spaced(MEASURED_WINDOWS)
    untrained = _spread(video, measured)
    losses = _optimize(video, windows, spec)
    pretrained = _spread(video, measured)
    if pretrained[0] < COLLAPSED * untrained[0]:
        raise CollapseError(
            f"{encoder}: collapsed: over the training windows its latents' standard deviation fell from "
            f"{untrained[0]:.2g} to {pretrained[0]:.2g}"
        )
    report = {
        **dataclasses.asdict(spec),
        "image_keys": list(image_keys),
        "dataset_fingerprint": dataset_fingerprint(dataset),
        "held_out_episodes": held_out,
        "training_episodes": training,
        "training_frames": windows.rows,
        "loss": {"first": _mean(losses[:LOSS_STEPS]), "last": _mean(losses[-LOSS_STEPS:])},
        "latent_std": {"untrained": untrained[0], "pretrained": pretrained[0]},
        "latent_rank": {"untrained": untrained[1], "pretrained": pretrained[1]},
    }
    with atomic_path(output) as folder:
        video.model.save_pretrained(folder)
        for config in Path(encoder).glob("*processor_config.json"):
            shutil.copy(config, folder)
        write_json(folder / REPORT, report)
    return report


class TrainingWindows:
    """Windows of frames that may end at any frame of the given episodes; no other episode is decoded."""

    def __init__(
        self, dataset: StoredDataset, image_keys: Sequence[str], episodes: Sequence[int], window: int, image_size: int
    ):
        all_bounds = episode_bounds(dataset)
        bounds = [all_bounds[episode] for episode in episodes]
        frames, first, rows = [], [], 0
        progress = Progress("decode", len(bounds) * len(image_keys))
        for camera in [CameraFrames(dataset, key) for key in image_keys]:
            for start, end in bounds:
                first.append(torch.full((end - start,), rows))
                rows += end - start
                frames.append(_resized(camera.frames(range(start, end)), image_size))
                progress.update(len(frames))
        self.rows = sum(end - start for start, end in bounds)
        self._camera_starts = range(0, len(image_keys) * self.rows, self.rows)
        self._frames = torch.cat(frames)  # (cameras x rows, 3, S, S) uint8
        self._first = torch.cat(first)  # first row of each row's episode
        self._window = window

    def __len__(self) -> int:
        return len(self._frames)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Random windows, (count, m, 3, S, S) uint8; one at an episode's start repeats the first frame."""
        return self._ending_at(torch.randint(len(self), (count,), generator=generator))

    def spaced(self, count: int) -> list[Tensor]:
        """At most `count` windows (n, m, 3, S, S) uint8 of each camera, evenly spaced."""
        stride = -(-self.rows // count)
        return [self._ending_at(torch.arange(start, start + self.rows, stride)) for start in self._camera_starts]

    def _ending_at(self, rows: Tensor) -> Tensor:
        return self._frames[past_rows(rows, self._first[rows], self._window)]


def draw_masks(
    count: int, grid: tuple[int, int, int], generator: torch.Generator, area: tuple[float, float] = MASKED_AREA
) -> tuple[Tensor, Tensor]:
    """Indices of the tokens that are kept, (count, k), and masked, (count, n), int64, in ascending order.

    In each window one rectangle of the image is masked in all frames. All windows share its shape; each has its place.

    Args:
        grid: tokens along (time, height, width).

    Raises:
        InputError: no rectangle of patches covers that much of the image.
    """
    frames, rows, columns = grid
    least, most = (share * rows * columns for share in area)
    shapes = [(h, w) for h in range(1, rows + 1) for w in range(1, columns + 1) if least <= h * w <= most]
    if not shapes:
        raise InputError(f"an image of {rows} x {columns} patches: no block of them is {area[0]:.0%} to {area[1]:.0%}")
    height, width = shapes[int(torch.randint(len(shapes), (), generator=generator))]
    in_rows = _interval(count, rows, height, generator)  # (count, rows)
    in_columns = _interval(count, columns, width, generator)  # (count, columns)
    masked = (in_rows[:, :, None] & in_columns[:, None, :]).flatten(1).repeat(1, frames)  # (count, tokens)
    order = masked.long().argsort(dim=1, stable=True)  # the kept tokens first
    return order.tensor_split([-frames * height * width], dim=1)


def encode_context(encoder: VJEPA2Encoder, pixels: Tensor, kept: Tensor) -> Tensor:
    """Latents (B, k, D) of the kept tokens (B, k) of windows (B, m, 3, S, S); they attend to each other alone."""
    tokens = apply_masks(encoder.embeddings(pixels), [kept])
    for layer in encoder.layer:
        tokens = layer(tokens, position_mask=kept)[0]
    return encoder.layernorm(tokens)


def predict_masked(predictor: VJEPA2Predictor, context: Tensor, kept: Tensor, masked: Tensor) -> Tensor:
    """Predicted latents (B, n, D) of the masked tokens (B, n) from those (B, k, D) of the kept ones (B, k)."""
    tokens = kept.shape[1] + masked.shape[1]
    places = kept[..., None].expand_as(context)
    whole = context.new_zeros(len(context), tokens, context.shape[2]).scatter(1, places, context)
    return predictor(whole, [kept], [masked]).last_hidden_state


@torch.no_grad()
def masked_targets(encoder: VJEPA2Encoder, pixels: Tensor, masked: Tensor) -> Tensor:
    """Normalized latents (B, n, D) of the masked tokens, which the target encoder makes from the whole window."""
    tokens = encoder(pixels).last_hidden_state
    return apply_masks(functional.layer_norm(tokens, tokens.shape[-1:]), [masked])


def build_predictor(model: VJEPA2Model, seed: int) -> VJEPA2Predictor:
    """A predictor half as deep and about half as wide as the encoder, with weights drawn from `seed`."""
    config = copy.deepcopy(model.config)
    heads = -(-config.num_attention_heads // 2)
    config.pred_hidden_size = heads * config.hidden_size // config.num_attention_heads
    config.pred_num_attention_heads = heads
    config.pred_num_hidden_layers = -(-config.num_hidden_layers // 2)
    config.pred_num_mask_tokens = 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VJEPA2Model(config).predictor


def _optimize(video: VideoEncoder, windows: TrainingWindows, spec: Pretraining) -> list[float]:
    """Take `spec.steps` updates and leave the averaged weights in the encoder; returns the loss of each step."""
    target = video.model.encoder
    context = copy.deepcopy(target).requires_grad_(True)
    predictor = build_predictor(video.model, spec.seed)
    weights = [*context.parameters(), *predictor.parameters()]
    optimizer = torch.optim.AdamW(_decay_groups(weights), spec.learning_rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, spec.steps))
    generator = torch.Generator().manual_seed(spec.seed)
    progress, losses = Progress("pretrain the encoder", spec.steps), []
    for step in range(spec.steps):
        pixels = _pixels(video, windows.draw(spec.batch_size, generator))
        kept, masked = draw_masks(spec.batch_size, _grid(video, spec.window), generator)
        predicted = predict_masked(predictor, encode_context(context, pixels, kept), kept, masked)
        loss = functional.l1_loss(predicted, masked_targets(target, pixels, masked))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, GRAD_CLIP_NORM)
        optimizer.step()
        schedule.step()
        _average(target, context, FIRST_MOMENTUM + (1 - FIRST_MOMENTUM) * step / spec.steps)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of step {step + 1} is {losses[-1]}")
        progress.update(step + 1, f"loss {losses[-1]:.3f}")
    return losses


def _decay_groups(weights: list[nn.Parameter]) -> list[dict]:
    """Weight decay for matrices, but not for biases and norms."""
    matrices, vectors = [w for w in weights if w.ndim > 1], [w for w in weights if w.ndim <= 1]
    return [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]


def _rate(step: int, steps: int) -> float:
    """The learning rate at a step, as a share of the peak."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


@torch.no_grad()
def _average(target: nn.Module, context: nn.Module, momentum: float) -> None:
    for mean, live in zip(target.parameters(), context.parameters(), strict=True):
        mean.lerp_(live, 1 - momentum)


def _pixels(video: VideoEncoder, windows: Tensor) -> Tensor:
    """(B, m, 3, S, S) uint8 → float32, as the encoder takes it."""
    return video.preprocess(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])


def _grid(video: VideoEncoder, window: int) -> tuple[int, int, int]:
    """Tokens of a window along (time, height, width)."""
    config = video.model.config
    side = config.crop_size // config.patch_size
    return max(1, window // config.tubelet_size), side, side


def _interval(count: int, length: int, size: int, generator: torch.Generator) -> Tensor:
    """Whether each of `length` places lies in an interval of `size` at a random place: (count, length) bool."""
    start = torch.randint(length - size + 1, (count, 1), generator=generator)
    place = torch.arange(length)
    return (place >= start) & (place < start + size)


def _resized(frames: Tensor, size: int) -> Tensor:
    """(n, 3, H, W) uint8 → (n, 3, size, size) uint8."""
    if frames.shape[-2:] == (size, size):
        return frames
    pixels = functional.interpolate(frames.float(), (size, size), mode="bilinear", antialias=True, align_corners=False)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def _spread(video: VideoEncoder, windows: list[Tensor]) -> tuple[float, float]:
    """How much the latents of one camera's windows differ, and in how many directions; averaged over the cameras.

    How much: their standard deviation, mean over the dimensions. In how many directions: the participation ratio
    (Σλ)² / Σλ² of the eigenvalues of their covariance.
    """
    encoded = [torch.cat([video.encode(part) for part in of_camera.split(64)]).double() for of_camera in windows]
    covariances = [latents.T.cov() for latents in encoded]
    std = _mean([float(covariance.diagonal().sqrt().mean()) for covariance in covariances])
    rank = _mean([float(covariance.trace() ** 2 / covariance.square().sum()) for covariance in covariances])
    return std, rank


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
