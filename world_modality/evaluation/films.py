"""Films of evaluated episodes, each repeated by its actions: there is no policy and no GPU in it."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np

from world_modality.artifacts.files import atomic_path, write_json
from world_modality.errors import InputError
from world_modality.evaluation.actions import read_actions
from world_modality.evaluation.episodes import Episode, episode_of, filmed_episodes, read_rows
from world_modality.evaluation.rollout import View, drive, rolling_out
from world_modality.experiment.specs import RolloutSpec
from world_modality.experiment.suites import CONTROL_FREQUENCY
from world_modality.simulation.libero import LiberoSimulation

FILMED_EVERY = 2  # control steps; rendering the frames of a video takes longer than everything else in it
FILMS = "films.json"


def record_videos(
    spec: RolloutSpec,
    task_id: int,
    blocks: list[Path],
    actions: list[Path],
    states: dict[int, np.ndarray],
    size: int,
    folder: Path,
) -> None:
    """Repeat the first success and the first failure, and film them.

    `films.json` next to the films says how each episode ended, as evaluated and as filmed. On another device or driver
    an episode can end differently. Such a film is kept, with a warning.

    Args:
        blocks: the episodes of one option and task.
        actions: those of each block, in the same order.

    Raises:
        InputError: the blocks are of another option or task, or the actions of other episodes.
    """
    chosen = _chosen(spec, task_id, blocks, actions)
    with atomic_path(folder) as temporary, LiberoSimulation(spec.protocol.simulation, task_id) as simulation:
        temporary.mkdir()
        films = []
        for name, (episode, taken) in chosen.items():
            frames: list[np.ndarray] = []
            again = repeat(simulation, spec, episode, states[episode.init_state_id], taken, size, frames)
            imageio.mimwrite(temporary / name, frames, fps=CONTROL_FREQUENCY / FILMED_EVERY, macro_block_size=1)
            films.append(_film(name, evaluated=episode, filmed=again))
            if again != episode:
                where = f"{spec.option}, task {task_id}, init state {episode.init_state_id}"
                print(
                    f"warning: {where}: {name} does not show the evaluated episode: evaluated {_ending(episode)}, "
                    f"filmed {_ending(again)}",
                    file=sys.stderr,
                )
        write_json(temporary / FILMS, films)


def _chosen(
    spec: RolloutSpec, task_id: int, blocks: list[Path], actions: list[Path]
) -> dict[str, tuple[Episode, np.ndarray]]:
    """The episodes to film by the names of their films, with their actions."""
    table_of: dict[tuple[int, int], Path] = {}  # by training seed and initial state
    for path, table in zip(blocks, actions, strict=True):
        for row in read_rows([path]):
            if (row["option"], row["task"]) != (spec.option, task_id):
                raise InputError(f"{path}: holds rollouts of {row['option']} on task {row['task']}")
            table_of[row["train_seed"], row["init_state_id"]] = table
    chosen = {}
    for name, episode in filmed_episodes([episode_of(row) for row in read_rows(blocks)]).items():
        table = table_of[episode.train_seed, episode.init_state_id]
        taken = read_actions(table, episode.init_state_id)
        if len(taken) != episode.steps:
            raise InputError(
                f"{table}: initial state {episode.init_state_id} has {len(taken)} actions; its episode took "
                f"{episode.steps} steps"
            )
        chosen[name] = episode, taken
    return chosen


def repeat(
    simulation: LiberoSimulation,
    spec: RolloutSpec,
    episode: Episode,
    init_state: np.ndarray,
    actions: np.ndarray,
    size: int,
    frames: list[np.ndarray],
) -> Episode:
    """Repeat an episode by its actions (steps, 7), and append what the front camera sees to `frames`, (size, size, 3).

    Returns the episode as it went this time. On the machine that evaluated it, it is the same.
    """
    all_at_once = View(cameras=(), world_cameras=(), world_frames=0, n_action_steps=len(actions))
    until_its_end = spec.model_copy(update={"protocol": spec.protocol.model_copy(update={"horizon": len(actions)})})

    def watch(step: int) -> None:
        if step % FILMED_EVERY == 1:
            frames.append(simulation.render("front", size))

    roll = partial(rolling_out, simulation, until_its_end, all_at_once, episode.train_seed)
    return drive(roll(episode.init_state_id, init_state, watch), lambda _: actions).episode


def _film(name: str, evaluated: Episode, filmed: Episode) -> dict[str, Any]:
    """The entry of one film in `films.json`."""
    return {
        "file": name,
        "init_state_id": evaluated.init_state_id,
        "as_evaluated": filmed == evaluated,
        "evaluated": _ending(evaluated),
        "filmed": _ending(filmed),
    }


def _ending(episode: Episode) -> dict[str, Any]:
    return {"success": episode.success, "steps": episode.steps, "pickup": episode.pickup}
