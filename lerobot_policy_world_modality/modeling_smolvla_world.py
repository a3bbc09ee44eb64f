"""SmolVLA that attends to a predicted future of its world cameras: LeRobot policy type `smolvla_world`.

In training, latents are looked up in a table by the frames' global index. At rollout, the encoder that made the table
encodes the frames themselves. Prophet predicts the next K latents, and the action expert's output attends to them just
before `action_out_proj`, through a gate that starts shut.

Non-obvious behaviours of LeRobot:

* SmolVLA's code is not copied. Instead a forward pre-hook on `model.action_out_proj` fires in training and at every
  denoising step; with the gate at 0 the policy equals SmolVLA bit for bit.
* The world modules are built after SmolVLA and on a forked random stream. So with the same seed SmolVLA's weights, and
  whatever is drawn after them, are those of a plain `smolvla`.
* `batch["index"]` survives LeRobot's preprocessing; none of a dataset's other extra columns does.
* Images reach the policy as uint8 / 255. Converted back, they are exactly the pixels the table was encoded from.
* `SmolVLAPolicy.__init__` calls `reset()` before the world modules exist.
* `from_pretrained` is not strict: it only logs a warning about missing weights. Here a checkpoint must hold all world
  weights, or none (a plain `smolvla` to start from).
* One call of `select_action` or `predict_action_chunk` is one control step: it sees exactly one frame per camera.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy
from lerobot.utils.constants import OBS_STATE
from safetensors import safe_open
from torch import Tensor

from lerobot_policy_world_modality.prophet import (
    MEMORIES,
    GatedCrossAttention,
    Memory,
    MemorySources,
    Prophet,
    require_finite,
    world_loss,
)
from world_modality.errors import InputError
from world_modality.latents.encoder import VideoEncoder
from world_modality.latents.table import LatentTable, join_tables
from world_modality.latents.transfer import to_device

from .configuration_smolvla_world import SmolVLAWorldConfig

WORLD_MODULES = ("prophet.", "cross_attention.")  # prefixes of the weights that a plain smolvla lacks


class Attention(NamedTuple):
    """What the action expert attends to in one denoising step."""

    weights: Tensor  # (B, heads, chunk, K), sums to 1 over K
    memory: Tensor  # (B, K, D) in standard units
    strength: Tensor  # tanh(gate), a scalar


class SmolVLAWorldPolicy(SmolVLAPolicy):
    """SmolVLA with a world modality.

    Train it after `attach_latents`, or with `config.world_latents` set. The frozen encoder and the table are not part
    of its state dict: the encoder is loaded when a rollout first needs it.
    """

    config_class = SmolVLAWorldConfig
    name = "smolvla_world"

    def __init__(self, config: SmolVLAWorldConfig, **kwargs):
        super().__init__(config, **kwargs)
        projection = self.model.action_out_proj
        with torch.random.fork_rng(devices=[]):
            self.prophet = Prophet(
                config.world_latent_dim,
                config.world_history,
                config.world_horizon,
                config.world_prophet_width,
                config.world_prophet_layers,
                config.world_heads,
            )
            self.cross_attention = GatedCrossAttention(
                projection.in_features, config.world_latent_dim, config.world_heads
            )
        projection.register_forward_pre_hook(self._attend)
        self._memory: Tensor | None = None
        self._heard: list[Attention] | None = None  # a list while `listening`
        self._logs_world = True
        self.encoder_is_verified = False  # a caller sets it that has compared the encoder's files itself
        self._latents: LatentTable | None = None
        self._encoder: VideoEncoder | None = None

    def reset(self) -> None:
        """Forget the episode: its queued actions and its frames."""
        super().reset()
        self._frames: dict[str, deque[Tensor]] = {}
        self._predictions: list[Tensor] = []  # (B, K, D) each, of the episode so far; kept if the memory exchanges
        self.draw = torch.Generator().manual_seed(0)  # for a random memory; seed it again to repeat a chunk

    # ---- attending to a memory ----------------------------------------------------------------------------------

    def _attend(self, _projection, features: tuple[Tensor]) -> tuple[Tensor]:
        """The hook: let the input of `action_out_proj` attend to the memory first."""
        if self._memory is None:
            raise RuntimeError("smolvla_world has no memory here: call the policy, not its model")
        if self._heard is not None:
            with torch.no_grad():
                weights = self.cross_attention.attention_weights(features[0], self._memory)
            self._heard.append(Attention(weights, self._memory.detach(), self.cross_attention.strength.detach()))
        return (self.cross_attention(features[0], self._memory),)

    @contextmanager
    def listening(self) -> Iterator[list[Attention]]:
        """Yield a list to which each denoising step in the block appends its attention; the outputs do not change."""
        self._heard = []
        try:
            yield self._heard
        finally:
            self._heard = None

    @contextmanager
    def _attending_to(self, memory: Tensor):
        self._memory = require_finite(memory) if self._logs_world else memory
        try:
            yield
        finally:
            self._memory = None

    @property
    def _kind(self) -> Memory:
        return MEMORIES[self.config.world_memory]

    def memory_from(self, sources: MemorySources) -> Tensor:
        """What the policy attends to, (B, K, D) in standard units."""
        return self._kind.of(sources)

    # ---- training -----------------------------------------------------------------------------------------------

    def attach_latents(self, table: LatentTable) -> None:
        """Train on the latents of `table`: those of `config.world_image_keys`, joined in that order.

        The configuration records which encoder made them, so that a rollout uses no other. A policy that already has a
        standardization (from a checkpoint) keeps it.

        Raises:
            InputError: the table has another camera, window, encoder, precision or width than the policy; names which.
        """
        config = self.config
        keys = [spec.image_key for spec in table.specs]
        if keys != config.world_image_keys:
            raise InputError(f"the latents are of {keys}, world_image_keys are {config.world_image_keys}")
        if table.dim != config.world_latent_dim:
            raise InputError(f"the latents are {table.dim} wide, world_latent_dim is {config.world_latent_dim}")
        config.world_encoder_sha256 = config.world_encoder_sha256 or table.specs[0].encoder_sha256
        config.world_encoder_image_size = config.world_encoder_image_size or table.specs[0].image_size
        config.world_encoder_precision = config.world_encoder_precision or table.specs[0].precision
        expected = {
            "window": config.world_window,
            "encoder_sha256": config.world_encoder_sha256,
            "image_size": config.world_encoder_image_size,
            "precision": config.world_encoder_precision,
        }
        for spec in table.specs:
            spec.require(expected, f"latents of {spec.image_key}")
        if not self.prophet.is_standardized:
            self.prophet.set_standardization(*table.standardization())
        self._latents = table

    def _look_up(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """A training batch's past latents (B, T_ctx, D), future ones (B, K, D), and which of these exist (B, K)."""
        if "index" not in batch:
            raise InputError(f"the batch has no `index` to look latents up by, only {', '.join(sorted(batch))}")
        if self._latents is None:
            self.attach_latents(_open_latents(self.config.world_latents))
        index = batch["index"].flatten().cpu()
        future, valid = self._latents.future(index, self.config.world_horizon)
        history = self._latents.history(index, self.config.world_history)
        device = self.prophet.mean.device
        return to_device(history, device), to_device(future, device), to_device(valid, device)

    def training_memory(self, batch: dict[str, Tensor]) -> Tensor:
        """What the policy attends to, (B, K, D) in standard units, for the frames of a training batch."""
        history, future, _ = self._look_up(batch)
        return self._memory_of_batch(batch, self.prophet(history), self.prophet.standardize(future))

    def _memory_of_batch(self, batch: dict[str, Tensor], predicted: Tensor, future: Tensor) -> Tensor:
        """Draws depend on the batch's frames alone: a resumed training repeats them, and no other stream moves."""
        index = batch["index"].flatten().cpu().numpy()
        draw = torch.Generator().manual_seed(zlib.crc32(index.tobytes()))
        candidates = predicted[:, None].expand(-1, len(predicted), -1, -1)  # sample p, offered to every sample b
        return self.memory_from(MemorySources(predicted, candidates, draw, future))

    def forward(
        self, batch: dict[str, Tensor], noise: Tensor | None = None, time: Tensor | None = None, reduction: str = "mean"
    ) -> tuple[Tensor, dict]:
        """Action loss + lambda_world * world loss, and SmolVLA's log with the world modality's floats added.

        `loss` in the log stays SmolVLA's action loss, comparable with a plain smolvla's. `world_loss` is Prophet's loss
        and `copy_last` that of predicting no change, both as a masked cosine distance. `gate` is tanh(gate).

        Raises:
            InputError: the batch has no `index`, or latents are neither attached nor configured.
            FloatingPointError: the memory is not finite.
        """
        history, future, valid = self._look_up(batch)
        predicted, target = self.prophet(history), self.prophet.standardize(future)
        with self._attending_to(self._memory_of_batch(batch, predicted, target)):
            action_loss, log = super().forward(batch, noise, time, reduction)
        world = world_loss(predicted, target, valid, reduction)
        if self._logs_world:
            last = self.prophet.standardize(history[:, -1:]).expand_as(target)
            values = [world.mean(), world_loss(last, target, valid), self.cross_attention.strength]
            log |= zip(("world_loss", "copy_last", "gate"), torch.stack(values).tolist(), strict=True)
        return action_loss + self.config.world_loss_weight * world, log

    @contextmanager
    def unlogged(self) -> Iterator[None]:
        """Keep `forward` from reading the world modality's values in the block: on a GPU that means waiting for them.

        LeRobot's training loop averages the log's floats over every update, so `forward` logs them by default. Nor is
        the memory checked in the block: if it is not finite, neither is the loss, which the caller has to look at.
        """
        self._logs_world = False
        try:
            yield
        finally:
            self._logs_world = True

    # ---- rollout ------------------------------------------------------------------------------------------------

    @property
    def watches_world(self) -> bool:
        """Whether a rollout needs the world cameras; some memories do not depend on what these see."""
        return self._kind.sees

    def observe_world(self, batch: dict[str, Tensor]) -> None:
        """See one control step: keep a frame of each world camera, (B, 3, H, W), uint8 or float in [0, 1].

        The first frame of an episode stands in for those before it, as in the table. Call this for steps on which you
        ask for no action; `select_action` and `predict_action_chunk` call it themselves.

        Raises:
            InputError: a world camera is missing, or the batch size changed within an episode.
        """
        if not self.watches_world:
            return
        kept = self.config.world_history + self.config.world_window - 1
        for key in self.config.rollout_image_keys:
            if key not in batch:
                raise InputError(f"the observation has no image {key} of a world camera, only {', '.join(batch)}")
            frame = _as_pixels(batch[key])
            frames = self._frames.get(key)
            if frames is None:
                self._frames[key] = deque([frame] * kept, maxlen=kept)
            elif frame.shape != frames[-1].shape:
                before, after = tuple(frames[-1].shape), tuple(frame.shape)
                raise InputError(f"{key}: frames {after} after frames {before}; reset() the policy between rollouts")
            else:
                frames.append(frame)

    def select_action(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        """See one control step and return its action (B, action_dim); predicts a chunk when none is queued."""
        self.observe_world(batch)
        return super().select_action(batch, noise, **kwargs)

    def predict_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        """See one control step and predict the chunk (B, chunk_size, action_dim) that follows it."""
        self.observe_world(batch)
        return super().predict_action_chunk(batch, noise, **kwargs)

    def _get_action_chunk(self, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs) -> Tensor:
        return self.chunk_attending_to(self._online_memory(len(batch[OBS_STATE])), batch, noise, **kwargs)

    def chunk_attending_to(self, memory: Tensor, batch: dict[str, Tensor], noise: Tensor | None = None, **kwargs):
        """The normalized action chunk (B, chunk_size, action_dim) when attending to a given memory (B, K, D)."""
        with self._attending_to(memory):
            return super()._get_action_chunk(batch, noise, **kwargs)

    def _online_memory(self, batch_size: int) -> Tensor:
        predicted = self.foresee({key: torch.stack(tuple(seen)) for key, seen in self._frames.items()}, batch_size)
        memory = self.rollout_memory(predicted, self._predictions, self.draw)
        self._predictions += [predicted] if self.exchanges else []
        return memory

    @property
    def exchanges(self) -> bool:
        """Whether the memory at rollout is made of predictions of the whole episode, which must then be kept."""
        return self._kind.exchanges

    def rollout_memory(self, predicted: Tensor, earlier: Sequence[Tensor], draw: torch.Generator) -> Tensor:
        """What the policy attends to at rollout, (B, K, D) in standard units.

        Args:
            predicted: (B, K, D), as `foresee` gives it.
            earlier: the predictions of the episode so far, this one not among them; needed if the memory `exchanges`.
            draw: for anything random.
        """
        candidates = torch.stack([*earlier, predicted]) if self.exchanges else predicted[None]
        return self.memory_from(MemorySources(predicted, candidates, draw))

    def foresee(self, frames: dict[str, Tensor], batch_size: int) -> Tensor:
        """Prophet's prediction (B, K, D) in standard units; zeros if the memory does not depend on what is seen.

        Args:
            frames: of each world camera by image key, the last (T_ctx + m - 1, B, 3, H, W) uint8.
        """
        prophet = self.prophet
        if not self.watches_world:
            return prophet.mean.new_zeros(batch_size, prophet.horizon, prophet.dim)
        if not prophet.is_standardized:
            raise RuntimeError("this smolvla_world was never trained: it does not know its latents' mean and std")
        return prophet(self.history_of(frames))

    def history_of(self, frames: dict[str, Tensor]) -> Tensor:
        """Past latents (B, T_ctx, D) of the frames that `foresee` takes, rounded to float16 as in a table of them."""
        latents = []
        for key in self.config.rollout_image_keys:
            windows = last_windows(frames[key], self.config.world_window)
            encoded = self._load_encoder().encode(windows.flatten(0, 1))  # (B * T_ctx, D)
            latents.append(encoded.half().float().unflatten(0, windows.shape[:2]))
        return torch.cat(latents, dim=-1).to(self.prophet.mean.device)

    def _load_encoder(self) -> VideoEncoder:
        if self._encoder is None:
            config = self.config
            encoder = VideoEncoder.load(
                config.world_encoder,
                revision=config.world_encoder_revision,
                device=self.prophet.mean.device,
                image_size=config.world_encoder_image_size,
                precision=config.world_encoder_precision,
            )
            if not self.encoder_is_verified:
                self._check_encoder(encoder)
            self._encoder = encoder
        return self._encoder

    def _check_encoder(self, encoder: VideoEncoder) -> None:
        """Hash the encoder's weights (slow for a published one), and refuse any encoder but the one trained with."""
        found, expected = encoder.identity()["encoder_sha256"], self.config.world_encoder_sha256
        if found != expected:
            raise InputError(
                f"{self.config.world_encoder}: the weights are {found}, the latents trained on were made with "
                f"{expected} (world_encoder_sha256)"
            )

    # ---- checkpoints --------------------------------------------------------------------------------------------

    @classmethod
    def _load_as_safetensor(cls, model, model_file: str, map_location: str, strict: bool):
        """Load as LeRobot does, but refuse a checkpoint that holds only some of the world modality's weights."""
        with safe_open(model_file, framework="pt") as weights:
            stored = {name for name in weights.keys() if name.startswith(WORLD_MODULES)}  # noqa: SIM118
        wanted = {name for name in model.state_dict() if name.startswith(WORLD_MODULES)}
        if stored and stored != wanted:
            raise InputError(f"{model_file}: world weights do not fit: {', '.join(sorted(stored ^ wanted))}")
        return super()._load_as_safetensor(model, model_file, map_location, strict)


@torch.no_grad()
def world_effect(policy: SmolVLAWorldPolicy, batch: dict[str, Tensor], noise: Tensor | None = None) -> dict[str, float]:
    """Whether the world path of a trained policy has an effect, measured on a preprocessed training batch.

    Args:
        noise: (B, chunk_size, max_action_dim) flow noise; drawn where None.

    Returns:
        `gate`, which is |tanh(gate)|, and `action_change_rms`, how much the normalized actions change (root mean square
        over the whole chunk) when the memory is zeroed.
    """
    policy.eval()
    memory = policy.training_memory(batch)
    if noise is None:
        shape = (len(memory), policy.config.chunk_size, policy.config.max_action_dim)
        noise = policy.model.sample_noise(shape, memory.device)
    seen = policy.chunk_attending_to(memory, batch, noise)
    blind = policy.chunk_attending_to(torch.zeros_like(memory), batch, noise)
    return {
        "gate": policy.cross_attention.strength.abs().item(),
        "action_change_rms": (seen - blind).square().mean().sqrt().item(),
    }


def last_windows(frames: Tensor, window: int) -> Tensor:
    """Encoder windows that end at each of the last frames: (T + m - 1, B, 3, H, W) to (B, T, m, 3, H, W)."""
    return frames.unfold(0, window, 1).permute(1, 0, 5, 2, 3, 4)


def _as_pixels(image: Tensor) -> Tensor:
    image = image[:, -1] if image.ndim == 5 else image  # (B, n_obs_steps, 3, H, W)
    return image if image.dtype == torch.uint8 else (image * 255).round().to(torch.uint8)


def _open_latents(paths: list[str]) -> LatentTable:
    if not paths:
        raise InputError("no latents to train on: call attach_latents, or set world_latents")
    tables = [LatentTable.open(path) for path in paths]
    return join_tables(tables) if len(tables) > 1 else tables[0]
