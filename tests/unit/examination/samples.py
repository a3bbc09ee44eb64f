"""Attention tables of made-up weights."""

import numpy as np
import pyarrow as pa

from world_modality.examination.attention import (
    AttentionSpec,
    AttentionTable,
    ChunkAttention,
)

STEPS, HEADS, HORIZON = 2, 8, 8

CHUNK_ROWS = STEPS * HEADS * HORIZON

FRONT, WRIST = {"front": "observation.images.image"}, {"wrist": "observation.images.image2"}


def spec_of(option="E2", where="rollout", cameras=FRONT, shape=(1, 1, 2), actions=8, seeds=(0,)):
    denoise_steps, heads, horizon = shape
    return AttentionSpec(
        option=option,
        where=where,
        cameras=cameras,
        memory="predicted",
        denoise_steps=denoise_steps,
        heads=heads,
        horizon=horizon,
        actions=actions,
        checkpoints={str(seed): f"weights of {option} {seed}" for seed in seeds},
    )


def chunk(weights, episode=0, step=0, episode_steps=8, seed=0, task=0, norm=1.0, gate=0.5):
    """The rows of one chunk, of weights (denoising steps, heads, K)."""
    weights = np.array(weights, np.float32)[None]
    attention = ChunkAttention(weights, np.full((1, weights.shape[-1]), norm, np.float32), gate)
    return attention.rows(train_seed=seed, task=task, episode=episode, episode_steps=episode_steps, step=step)


def table(*chunks, **fields):
    return AttentionTable(spec_of(**fields), pa.concat_tables(chunks))
