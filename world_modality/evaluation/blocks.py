"""Blocks of rollouts: the episodes of some initial states, rolled out by one policy in one or several simulators.

The simulators go in lockstep: each takes the control steps of a chunk, and when all of them wait for their next chunk,
the policy predicts these together. How many there are makes no difference to any episode (`pilot` says why).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from world_modality.artifacts.files import atomic_path, text_sha256
from world_modality.artifacts.provenance import package_versions
from world_modality.errors import InputError
from world_modality.evaluation.actions import write_actions
from world_modality.evaluation.episodes import Episode, block_row
from world_modality.evaluation.pilot import Pilot, check_checkpoint
from world_modality.evaluation.rollout import Ask, Rollout
from world_modality.evaluation.simulators import Job, Simulator
from world_modality.examination.attention import ChunkAttention, write_episodes
from world_modality.experiment.specs import RolloutSpec
from world_modality.experiment.suites import suite_instructions
from world_modality.progress import Progress


@dataclass(frozen=True)
class BlockFiles:
    """What a block is written to: one JSON line per episode, a table of actions and a table of attention."""

    episodes: Path
    actions: Path
    attention: Path


def evaluate_block(
    checkpoint: Path,
    spec: RolloutSpec,
    task_id: int,
    train_seed: int,
    block: range,
    states: dict[int, np.ndarray],
    files: BlockFiles,
    simulators: int = 1,
) -> None:
    """Roll out a block of initial states in `simulators` parallel processes; their number makes no difference.

    Args:
        states: the initial states (S,) by number.

    Raises:
        InputError: there is no such checkpoint, or an initial state is missing.
    """
    verified = check_checkpoint(checkpoint, spec, task_id, train_seed)
    if missing := [number for number in block if number not in states]:
        raise InputError(f"task {task_id}: no initial state {missing[0]}; there are {min(states)} to {max(states)}")
    progress, successes = Progress(f"evaluate {spec.option} task {task_id}", len(block), every=0), 0
    pilot = Pilot(checkpoint, spec, task_id, verified)
    job = Job(spec, task_id, train_seed, pilot.view)
    rolled: dict[int, tuple[Episode, np.ndarray, list[pa.Table]]] = {}
    with ExitStack() as stack:
        processes = [Simulator(job) for _ in range(min(simulators, len(block)))]
        for process in processes:
            stack.callback(process.close)
        for rollout, attention in roll_out(pilot, processes, {number: states[number] for number in block}):
            episode = rollout.episode
            place = {"train_seed": train_seed, "task": task_id, "episode": episode.init_state_id}
            place["episode_steps"] = episode.steps
            rows = [heard.rows(**place, step=step) for step, heard in attention.items()]
            rolled[episode.init_state_id] = episode, rollout.actions, rows
            successes += episode.success
            outcome = "success" if episode.success else "failure"
            progress.update(len(rolled), f"init state {episode.init_state_id}: {outcome}, {successes}/{len(rolled)}")
    made_from = {
        "option": spec.option,
        "task": task_id,
        "checkpoint_sha256": pilot.checkpoint_sha256,
        "protocol_sha256": text_sha256(spec.protocol.model_dump_json()),
        "versions": package_versions("lerobot", "hf-libero", "robosuite", "mujoco", "torch"),
        "instruction": suite_instructions(spec.protocol.simulation.suite)[task_id],
    }
    in_order = [rolled[number] for number in block]
    write_actions(files.actions, {episode.init_state_id: actions for episode, actions, _ in in_order})
    write_episodes(
        files.attention, pilot.attention_spec(train_seed), [table for *_, rows in in_order for table in rows]
    )
    with atomic_path(files.episodes) as temporary:
        temporary.write_text("".join(f"{block_row(episode, made_from)}\n" for episode, *_ in in_order))


@dataclass
class _Flight:
    """A simulator with the episode it rolls out: what it waits for, and what its chunks attended to, by step."""

    row: int
    simulator: Simulator
    ask: Ask | None = None
    attention: dict[int, ChunkAttention] = field(default_factory=dict)


def roll_out(
    pilot: Pilot, simulators: list[Simulator], states: dict[int, np.ndarray]
) -> Iterator[tuple[Rollout, dict[int, ChunkAttention]]]:
    """Roll out the episodes of some initial states, in lockstep.

    Yields each rollout when it ends, with the attention of its chunks by the step they begin at (none without a world
    modality).
    """
    waiting, flights, idle = dict(states), [], list(simulators)
    while waiting or flights:
        while idle and waiting:
            taken = {flight.row for flight in flights}
            number = next((n for n in waiting if pilot.row_of(n) not in taken), next(iter(waiting)))
            flights.append(_Flight(pilot.row_of(number), idle.pop()))
            flights[-1].simulator.begin(number, waiting.pop(number))
        for flight in [flight for flight in flights if flight.ask is None]:
            message = flight.simulator.receive()
            if isinstance(message, Ask):
                flight.ask = message
                continue
            flights.remove(flight)
            idle.append(flight.simulator)
            yield message, flight.attention
        if any(flight.ask is None for flight in flights) or (idle and waiting):
            continue  # a fresh episode joins before the next chunk
        chunks = pilot.act([flight.ask for flight in flights]) if flights else []
        for flight, chunk in zip(flights, chunks, strict=True):
            if flight.ask.chunk == 0:
                flight.attention.clear()  # of a first try that crashed
            if chunk.attention is not None:
                flight.attention[flight.ask.step] = chunk.attention
            flight.ask = None
            flight.simulator.answer(chunk.actions)
