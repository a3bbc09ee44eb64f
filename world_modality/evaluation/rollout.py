"""One rollout, from the simulator's side: an episode that asks for actions whenever a chunk is due.

An episode depends on the policy, the task, the init state and the seeds, and nothing else. The seeds follow from its
task and initial state (and from the option's noise stream, which differs only in a calibration). So every option gets
the same worlds and the same flow noise, and it does not matter in which order, in which process or next to which other
episodes it is rolled out. Another device or driver can end an episode differently.

Light: the process that runs a simulator holds neither torch nor a policy.

Non-obvious behaviours:
* Cameras are rendered only on steps where their images are used: all of the policy's cameras at the start of a chunk,
  the world cameras on the last `T_ctx + m - 1` steps up to that start, and none on any other step.
* A policy predicts `chunk_size` actions and executes the first `n_action_steps`.
* With its actions an episode can be repeated without its policy, as `films` does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from world_modality.evaluation.episodes import Episode
from world_modality.experiment.sections import Camera
from world_modality.experiment.seeds import env_seed, noise_seed
from world_modality.experiment.specs import RolloutSpec
from world_modality.experiment.suites import ACTION_DIM
from world_modality.simulation.benchmark import init_state_sha256
from world_modality.simulation.observation import Observation
from world_modality.simulation.stages import PickupTracker

if TYPE_CHECKING:
    from world_modality.simulation.libero import LiberoSimulation


@dataclass(frozen=True)
class View:
    """Which pictures a policy uses, and when.

    Attributes:
        cameras: whose images it sees at the start of each chunk.
        world_cameras: whose last `world_frames` frames, up to that of the chunk's start, its world modality sees.
        n_action_steps: how many actions of a chunk are executed.
    """

    cameras: tuple[Camera, ...]
    world_cameras: tuple[Camera, ...]
    world_frames: int
    n_action_steps: int

    def at(self, step: int) -> list[Camera]:
        """The cameras to render at control step `step` of an episode, because their images are used."""
        steps_to_chunk = -step % self.n_action_steps
        if steps_to_chunk == 0:
            return sorted({*self.cameras, *self.world_cameras})
        return sorted(self.world_cameras) if steps_to_chunk < self.world_frames else []


@dataclass(frozen=True, eq=False)
class Ask:
    """What a policy is told when a chunk of an episode is due.

    Attributes:
        chunk: which one, from 0.
        step: the control step at which it begins.
        frames: of each world camera the last frames (T_ctx + m - 1, H, W, 3) uint8, this moment's last. The first frame
            of an episode stands in for those before it.
    """

    init_state_id: int
    chunk: int
    step: int
    observation: Observation
    frames: dict[Camera, np.ndarray]


@dataclass(frozen=True, eq=False)
class Rollout:
    """An episode, and the actions (steps, 7) float32 that led to its end."""

    episode: Episode
    actions: np.ndarray


def rolling_out(
    simulation: LiberoSimulation,
    spec: RolloutSpec,
    view: View,
    train_seed: int,
    init_state_id: int,
    init_state: np.ndarray,
    watch: Callable[[int], None] = lambda _step: None,
) -> Generator[Ask, np.ndarray, Rollout]:
    """Run one episode until success or the horizon; `watch` is called after each control step, counted from 1.

    Yields an `Ask` whenever a chunk is due and takes its actions (n_action_steps, 7) float32; returns the rollout.
    """
    seed = env_seed(simulation.task_id, init_state_id)
    observation = simulation.reset(seed, init_state, view.at(0))
    tracker = PickupTracker() if simulation.placement else None
    frames: dict[Camera, deque[np.ndarray]] = {}
    success, taken, actions = False, [], np.empty((0, ACTION_DIM), np.float32)
    while not success and len(taken) < spec.protocol.horizon:
        for camera in view.world_cameras:
            if (image := observation.images.get(camera)) is not None:
                frames.setdefault(camera, deque([image] * view.world_frames, view.world_frames)).append(image)
        chunk, within = divmod(len(taken), view.n_action_steps)
        if within == 0:
            stacked = {camera: np.stack(seen) for camera, seen in frames.items()}
            actions = yield Ask(init_state_id, chunk, len(taken), observation, stacked)
        observation, success = simulation.step(actions[within], view.at(len(taken) + 1))
        taken.append(actions[within])
        if tracker is not None:
            tracker.update(simulation.pickup_state())
        watch(len(taken))
    episode = Episode(
        init_state_id=init_state_id,
        init_state_sha256=init_state_sha256(init_state),
        env_seed=seed,
        noise_seed=noise_seed(simulation.task_id, init_state_id, stream=spec.noise_stream),
        train_seed=train_seed,
        success=bool(success),
        steps=len(taken),
        pickup=None if tracker is None else asdict(tracker.progress()),
    )
    return Rollout(episode, np.array(taken, np.float32).reshape(-1, ACTION_DIM))


def drive(rolling: Generator[Ask, np.ndarray, Rollout], act: Callable[[Ask], np.ndarray]) -> Rollout:
    """Run a rollout to its end; `act` gives the actions of each chunk."""
    try:
        ask = next(rolling)
        while True:
            ask = rolling.send(act(ask))
    except StopIteration as end:
        return end.value
