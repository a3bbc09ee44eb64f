"""The seeds of the evaluation: functions of the episode alone, with a separate stream per use. Light (no torch)."""

from __future__ import annotations

import hashlib

EVALUATION_SEEDS = 2**31  # this seed and those above draw the evaluation's initial states, those below demonstrations


def env_seed(task_id: int, init_state_id: int) -> int:
    """Seed of the simulator's reset (fixtures are drawn from it); 31 bits."""
    return _seed("env", task_id, init_state_id)


def noise_seed(task_id: int, init_state_id: int, chunk: int = 0, stream: int = 0) -> int:
    """Seed of one chunk's flow noise; 31 bits. An episode records the seed of its first chunk."""
    return _seed("noise", task_id, init_state_id, chunk, *([stream] if stream else []))


def memory_seed(task_id: int, init_state_id: int, chunk: int) -> int:
    """Seed of what is random in one chunk's memory; 31 bits. With the flow noise's seed it would repeat that noise."""
    return _seed("memory", task_id, init_state_id, chunk)


def init_state_seed(task_id: int, init_state_id: int, draw: int) -> int:
    """Seed of the reset that draws an initial state; above all seeds of demonstrations."""
    return EVALUATION_SEEDS + _seed("init state", task_id, init_state_id, draw)


def _seed(*parts: str | int) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big") >> 1
