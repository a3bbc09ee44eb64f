"""Prophet, the gated cross-attention through which a policy attends to its prediction, and the world loss (pure torch).

Non-obvious behaviours:

* `Prophet` standardizes latents per dimension, and everything it returns stays in those units. V-JEPA's mean latent
  dwarfs what changes from frame to frame, so the cosine of raw latents is nearly 1 whatever is predicted.
* Prophet's head starts at zero, so an untrained Prophet predicts no change: it is exactly the copy-last baseline.
* The world loss takes the cosine of predicted latents, not of predicted changes. A cosine of changes would leave their
  length untrained: on held-out episodes of the embedded scale, Prophet trained that way stays at a loss of 0.39, with
  copy-last at 0.41, while trained on latents it reaches 0.20. Nor could it score copy-last, the baseline that matters,
  whose change has no direction. A cosine of latents scores both with one function, but leaves the length of a latent
  free: compare predictions by cosine, not by MSE.
* `nn.TransformerEncoder` copies one layer's initial weights into all layers, so we build the layers one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from world_modality.errors import InputError


@dataclass(frozen=True)
class MemorySources:
    """What a memory can be made from, all in standard units.

    Attributes:
        predicted: (B, K, D) Prophet's prediction.
        candidates: (P, B, K, D) predictions that may replace a sample's own: in training those of the whole batch, at
            rollout those of the episode so far. Its own is among them, and the only one if the memory exchanges none.
        draw: generator on the CPU for anything random.
        future: (B, K, D) the latents that really follow; None at rollout, where they are unknown.
    """

    predicted: Tensor
    candidates: Tensor
    draw: torch.Generator
    future: Tensor | None = None


def _random(sources: MemorySources) -> Tensor:
    """Standard normal noise, the scale of standardized latents."""
    return torch.randn(sources.predicted.shape, generator=sources.draw).to(sources.predicted)


def _random_scaled(sources: MemorySources) -> Tensor:
    """Noise as strong as each sample's prediction (root mean square over K and D)."""
    noise = _random(sources)
    return noise * _rms(sources.predicted) / _rms(noise)


def _rms(memory: Tensor) -> Tensor:
    return memory.square().mean(dim=(1, 2), keepdim=True).sqrt()  # (B, 1, 1)


def _shuffled(sources: MemorySources) -> Tensor:
    """For each sample, one of its candidates at random."""
    count, batch = sources.candidates.shape[:2]
    chosen = torch.randint(count, (batch,), generator=sources.draw)
    return sources.candidates[chosen, torch.arange(batch)]


def _sign_flipped(sources: MemorySources) -> Tensor:
    """The prediction with the sign flipped in a random half of the dimensions, which is always the same half."""
    signs = torch.randint(2, (sources.predicted.shape[-1],), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return sources.predicted * signs.to(sources.predicted)


def _true_future(sources: MemorySources) -> Tensor:
    if sources.future is None:
        raise InputError("world_memory oracle: nobody knows the future at rollout; it is for training alone")
    return sources.future


@dataclass(frozen=True)
class Memory:
    """A kind of memory: how it is made, and what that needs.

    Attributes:
        of: makes the memory (B, K, D) from the sources.
        sees: whether it depends on what the world cameras see.
        exchanges: whether it takes predictions of other samples or moments, which must then be kept.
    """

    of: Callable[[MemorySources], Tensor]
    sees: bool = True
    exchanges: bool = False


# What the policy attends to. To corrupt the memory in a new way, add a row.
MEMORIES = {
    "predicted": Memory(lambda sources: sources.predicted),
    "zero": Memory(lambda sources: torch.zeros_like(sources.predicted), sees=False),
    "random": Memory(_random, sees=False),
    "random-scaled": Memory(_random_scaled),
    "shuffle": Memory(_shuffled, exchanges=True),
    "signflip": Memory(_sign_flipped),
    "oracle": Memory(_true_future),
}


class Prophet(nn.Module):
    """Predicts the next latents of the world cameras from the last: a transformer with a learned query per frame.

    Args:
        dim: width D of the latents, all world cameras together.
        history: T_ctx, number of past latents [frames].
        horizon: K, number of predicted latents [frames].
        width, layers, heads: of the transformer.
    """

    def __init__(self, dim: int, history: int, horizon: int, width: int, layers: int, heads: int):
        super().__init__()
        self.dim, self.history, self.horizon = dim, history, horizon
        self.register_buffer("mean", torch.full((dim,), torch.nan))
        self.register_buffer("std", torch.full((dim,), torch.nan))
        self.embed = nn.Linear(dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(history, width))
        self.query = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.layers = nn.ModuleList(_transformer_layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def is_standardized(self) -> bool:
        """Whether the latents' mean and standard deviation are known: from a table, or from a checkpoint."""
        return bool(self.mean.isfinite().all() and self.std.isfinite().all())

    def set_standardization(self, mean: Tensor, std: Tensor) -> None:
        """Fix the mean and standard deviation (D,) of the training latents.

        Raises:
            InputError: a shape is not (D,), a value is not finite, or a standard deviation is not positive.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != (self.dim,) or not value.isfinite().all():
                raise InputError(f"the latents' {name} is not {self.dim} finite values (shape {tuple(value.shape)})")
        if not (std > 0).all():
            raise InputError(f"the latents' std is not positive in dimension {int(std.argmin())}")
        self.mean.copy_(mean)
        self.std.copy_(std)

    def standardize(self, latents: Tensor) -> Tensor:
        """Latents (..., D) as the encoder gives them, in standard units."""
        return (latents - self.mean) / self.std

    def forward(self, history: Tensor) -> Tensor:
        """Predict the future.

        Args:
            history: (B, T_ctx, D) latents as the encoder gives them, oldest first.

        Returns:
            (B, K, D) predicted latents of the next K frames, in standard units.
        """
        past = self.standardize(history)
        tokens = self.embed(past) + self.position
        tokens = torch.cat([tokens, self.query.expand(len(past), -1, -1)], dim=1)  # (B, T_ctx + K, width)
        for layer in self.layers:
            tokens = layer(tokens)
        change = self.head(self.norm(tokens[:, -self.horizon :]))
        return past[:, -1:] + change


def _transformer_layer(width: int, heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


class GatedCrossAttention(nn.Module):
    """Lets a policy's features attend to a memory: y = x + tanh(gate) * attention(x, memory). The gate starts at 0.

    So a policy starts as exactly the policy it would be without a memory (Flamingo, arXiv:2204.14198, section 2.2).

    The biases of the projections start as a Linear's do, not at zero as MultiheadAttention's do. With them a memory of
    zeros is a constant input. With biases of zero it would be no input at all: the attention would be zero, so no
    gradient would reach the gate, and since the gate is 0 none would reach anything else. The capacity control, which
    attends to zeros, would never leave its start.

    Args:
        dim: width E of the features.
        memory_dim: width D of the memory.
        heads: attention heads; must divide `dim`.

    Raises:
        InputError: `dim` is not a multiple of `heads`.
    """

    def __init__(self, dim: int, memory_dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise InputError(f"the features' width {dim} is not a multiple of {heads} attention heads")
        self.attention = nn.MultiheadAttention(dim, heads, kdim=memory_dim, vdim=memory_dim, batch_first=True)
        for bias in (self.attention.in_proj_bias, self.attention.out_proj.bias):
            nn.init.uniform_(bias, -(dim**-0.5), dim**-0.5)
        self.gate = nn.Parameter(torch.zeros(()))

    @property
    def strength(self) -> Tensor:
        """tanh(gate), a scalar in (-1, 1)."""
        return torch.tanh(self.gate)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """Features x (B, chunk, E) and memory (B, K, D) to features (B, chunk, E)."""
        attended, _ = self.attention(x, memory, memory, need_weights=False)
        return x + self.strength * attended

    def attention_weights(self, x: Tensor, memory: Tensor) -> Tensor:
        """Attention (B, heads, chunk, K) that x pays to each predicted frame; sums to 1 over K."""
        return self.attention(x, memory, memory, average_attn_weights=False)[1]


def require_finite(memory: Tensor) -> Tensor:
    """Return the memory (B, K, D) as it is, once checked.

    Raises:
        FloatingPointError: the memory holds NaN or infinity; names the rows of the batch.
    """
    broken = (~memory.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if broken:
        raise FloatingPointError(f"the world memory is not finite in batch rows {broken}")
    return memory


def cosine_distance(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine of latents (..., D) in standard units: 0 where they point the same way, 1 where they are unrelated."""
    return 1 - F.cosine_similarity(predicted, target, dim=-1)


def masked_mean(values: Tensor, valid: Tensor, dim: int | None = None) -> Tensor:
    """Mean of the valid values (B, K), over everything or over `dim`; 0 where none is valid."""
    if dim is None:
        values, valid, dim = values.flatten(), valid.flatten(), 0
    return values.masked_fill(~valid, 0).sum(dim) / valid.sum(dim).clamp_min(1)


def world_loss(predicted: Tensor, target: Tensor, valid: Tensor, reduction: str = "mean") -> Tensor:
    """Masked cosine distance between predicted and true future latents.

    Args:
        predicted, target: (B, K, D) in standard units.
        valid: (B, K) bool, False past the end of the episode.
        reduction: "mean" over all valid frames, a scalar; "none" for one value per sample, (B,).
    """
    return masked_mean(cosine_distance(predicted, target), valid, dim=None if reduction == "mean" else 1)
