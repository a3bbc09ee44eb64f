"""Blocks of rollouts: the episodes of some initial states, run in one process or in several, with the same result.

An episode depends only on the policy, the task, the initial state and the seeds. So it does not matter which process
rolls it out, or what that process rolled out before.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from world_modality.artifacts.files import atomic_path, text_sha256
from world_modality.artifacts.provenance import package_versions
from world_modality.errors import InputError
from world_modality.evaluation.episodes import Episode, block_row
from world_modality.evaluation.rollout import Pilot, check_checkpoint, roll_out
from world_modality.examination.attention import AttentionSpec, write_episodes
from world_modality.experiment.specs import RolloutSpec
from world_modality.program import die_with
from world_modality.progress import Progress
from world_modality.simulation.libero import LiberoSimulation, libero_task

InitState = tuple[int, np.ndarray]  # its number, and the flattened MuJoCo state (S,)


@dataclass(frozen=True)
class _Rolled:
    """The result of rolling out one initial state."""

    episode: Episode
    attention: list[pa.Table]
    attention_spec: AttentionSpec
    checkpoint_sha256: str


def evaluate_block(
    checkpoint: Path,
    spec: RolloutSpec,
    task_id: int,
    train_seed: int,
    block: range,
    states: dict[int, np.ndarray],
    output: Path,
    attention: Path,
    simulators: int = 1,
) -> None:
    """Roll out a block of initial states in `simulators` parallel processes.

    Writes one JSON line per episode, and one table with the attention in all of them. The number of processes makes no
    difference to either.

    Args:
        states: the initial states (S,) by number.

    Raises:
        InputError: there is no such checkpoint, or an initial state is missing.
    """
    verified = check_checkpoint(checkpoint, spec, task_id, train_seed)
    if missing := [number for number in block if number not in states]:
        raise InputError(f"task {task_id}: no initial state {missing[0]}; there are {min(states)} to {max(states)}")
    progress = Progress(f"evaluate {spec.option} task {task_id}", len(block), every=0)
    rolled: list[_Rolled] = []
    with _rolling(min(simulators, len(block)), (checkpoint, spec, verified, task_id, train_seed)) as roll:
        for one in roll((number, states[number]) for number in block):
            rolled.append(one)
            outcome = "success" if one.episode.success else "failure"
            successes = sum(r.episode.success for r in rolled)
            note = f"init state {one.episode.init_state_id}: {outcome}, {successes}/{len(rolled)}"
            progress.update(len(rolled), note)
    made_from = {
        "option": spec.option,
        "task": task_id,
        "checkpoint_sha256": rolled[0].checkpoint_sha256,
        "protocol_sha256": text_sha256(spec.protocol.model_dump_json()),
        "versions": package_versions("lerobot", "hf-libero", "robosuite", "mujoco", "torch"),
        "instruction": libero_task(spec.protocol.simulation.suite, task_id).language,
    }
    write_episodes(attention, rolled[0].attention_spec, [table for one in rolled for table in one.attention])
    with atomic_path(output) as temporary:
        temporary.write_text("".join(f"{block_row(one.episode, made_from)}\n" for one in rolled))


class _Worker:
    """A policy and a simulation in one process; an episode that crashes is tried once more in a fresh simulation."""

    def __init__(self, checkpoint: Path, spec: RolloutSpec, encoder_is_verified: bool, task_id: int, train_seed: int):
        self.spec, self.task_id, self.train_seed = spec, task_id, train_seed
        self.pilot = Pilot(checkpoint, spec, encoder_is_verified)
        self.recorder = self.pilot.attention_recorder(task_id, train_seed)
        self.simulation = self._fresh()

    def _fresh(self) -> LiberoSimulation:
        return LiberoSimulation(self.spec.protocol.simulation, self.task_id)

    def roll(self, init_state: InitState) -> _Rolled:
        try:
            episode = self._episode(*init_state)
        except InputError:  # not a crash: a second try would end in the same error
            raise
        except Exception as error:
            where = f"task {self.task_id}, init state {init_state[0]}"
            print(f"{where} crashed ({error!r}); once more in a fresh simulation")
            self.simulation.close()
            self.simulation = self._fresh()
            episode = self._episode(*init_state)
        return _Rolled(episode, self.recorder.take(), self.recorder.spec, self.pilot.checkpoint_sha256)

    def _episode(self, number: int, state: np.ndarray) -> Episode:
        return roll_out(self.pilot, self.simulation, number, state, self.train_seed, attention=self.recorder)


@contextmanager
def _rolling(simulators: int, about: tuple) -> Iterator[Callable[[Iterable[InitState]], Iterator[_Rolled]]]:
    """Yield a function that rolls out initial states in order, as `map` does."""
    if simulators == 1:
        worker = _Worker(*about)
        try:
            yield lambda init_states: map(worker.roll, init_states)
        finally:
            worker.simulation.close()
        return
    # A forked process would share its parent's OpenGL and CUDA.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(simulators, mp_context=context, initializer=_prepare_worker, initargs=about) as pool:
        try:
            yield lambda init_states: pool.map(_roll, init_states)
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare_worker(*about) -> None:
    global _worker
    die_with(os.getppid())
    # The first episode creates the worker: an error in an initializer would reach the caller as a broken pool.
    _worker = functools.cache(lambda: _Worker(*about))


def _roll(init_state: InitState) -> _Rolled:
    return _worker().roll(init_state)
