"""Replay recorded episodes to learn what a recording does not hold: where the objects were.

A recording names each episode's seed, its actions are recorded as they were taken, and the simulation repeats itself
bit for bit. So the initial state and the robot's recorded states must come back exactly; otherwise the replay is
refused. Nothing is rendered.

Non-obvious behaviour: a seed draws the objects, not the robot. Until the robot touches an object, its states are the
same for any seed. They alone would not show that the objects are elsewhere, so the initial state is compared as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from world_modality.data.dataset import dataset_fingerprint, episode_bounds, load_dataset
from world_modality.data.demonstrations import RECORDING, RecordingError, read_recording
from world_modality.data.positions import ObjectPositions
from world_modality.data.stored import StoredDataset
from world_modality.experiment.specs import RecordSpec
from world_modality.progress import Progress
from world_modality.simulation.benchmark import init_state_sha256
from world_modality.simulation.expert import BOWL, PLATE
from world_modality.simulation.libero import LiberoSimulation


@dataclass(frozen=True)
class RecordedEpisode:
    """A recorded episode: the seed of its reset, the hash of the state it began with, and its rows of the dataset."""

    seed: int
    init_state_sha256: str
    rows: range


def object_positions(folder: str | Path, episodes_per_task: int | None = None) -> ObjectPositions:
    """Replay a recording to find where bowl and plate are in its frames, at the moment each state was observed.

    Args:
        episodes_per_task: only this many, the last ones of each task; None: all.

    Raises:
        RecordingError: `recording.json` is missing or not of these episodes, or a replayed episode is not the
            recorded one.
    """
    dataset = load_dataset(folder)
    columns = dataset.columns(["observation.state", "action"])
    states, actions = (columns[key] for key in ("observation.state", "action"))
    tasks = [
        (task, episodes[-(episodes_per_task or 0) :]) for task, episodes in recorded_episodes(dataset, Path(folder))
    ]
    progress, done = Progress("replay", sum(len(episodes) for _, episodes in tasks)), 0
    index, bowl, plate = [], [], []
    for task, episodes in tasks:
        with LiberoSimulation(RecordSpec.model_validate(task["spec"]).simulation, task["task_id"]) as simulation:
            for episode in episodes:
                rows = list(episode.rows)
                for positions in replay(simulation, episode, states[rows], actions[rows]):
                    bowl.append(positions[0])
                    plate.append(positions[1])
                index += rows
                done += 1
                progress.update(done, f"task {task['task_id']} seed {episode.seed}")
    found = (np.array(values, np.float32).reshape(-1, 3) for values in (bowl, plate))
    return ObjectPositions(dataset_fingerprint(dataset), np.array(index, np.int64), *found)


def recorded_episodes(dataset: StoredDataset, folder: Path) -> list[tuple[dict[str, Any], list[RecordedEpisode]]]:
    """What `recording.json` says about each task, with the task's episodes: its successful attempts, in order.

    Raises:
        RecordingError: the dataset's episodes are not those of the recording.
    """
    tasks = read_recording(folder)
    attempts = [attempt for task in tasks for attempt in task["attempts"] if attempt["success"]]
    bounds = episode_bounds(dataset)
    if [attempt["steps"] for attempt in attempts] != [end - start for start, end in bounds]:
        raise RecordingError(f"{folder}: its episodes are not those of {RECORDING}")
    episodes = iter(
        [RecordedEpisode(a["seed"], a["init_state_sha256"], range(*b)) for a, b in zip(attempts, bounds, strict=True)]
    )
    return [(task, [next(episodes) for a in task["attempts"] if a["success"]]) for task in tasks]


def replay(
    simulation: LiberoSimulation, episode: RecordedEpisode, states: np.ndarray, actions: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (3,) [m] of bowl and plate at each state (n, 8) of an episode, before its action (n, 7) is taken.

    Raises:
        RecordingError: the initial state or a later one is not the recorded one.
    """
    where = f"task {simulation.task_id}, seed {episode.seed}"
    observation = simulation.reset(episode.seed)
    if init_state_sha256(simulation.init_state) != episode.init_state_sha256:
        raise RecordingError(f"{where}: the replay does not begin at the recorded state: other versions or code?")
    for step, (state, action) in enumerate(zip(states, actions, strict=True)):
        if not np.array_equal(observation.state, state):
            far = np.abs(observation.state - state).max()
            raise RecordingError(f"{where}: step {step} of the replay is not the recorded one (off by {far:.2g})")
        yield simulation.body_position(BOWL), simulation.body_position(PLATE)
        observation, _ = simulation.step(action)
