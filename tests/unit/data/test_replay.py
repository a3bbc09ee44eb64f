"""Replaying a recording: the objects' positions, from the recorded seed and actions alone, or a refusal."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tests.unit.conftest import INSTRUCTIONS
from world_modality.artifacts.files import write_json
from world_modality.data import replay
from world_modality.data.demonstrations import RECORDING, Attempt, RecordingError, add_episode, describe, features
from world_modality.data.replay import object_positions
from world_modality.experiment.sections import Simulation
from world_modality.experiment.specs import RecordSpec
from world_modality.simulation.benchmark import init_state_sha256
from world_modality.simulation.expert import BOWL, PLATE
from world_modality.simulation.libero import LiberoSimulation

SPEC = RecordSpec(
    simulation=Simulation(suite="libero_spatial", camera_size=16, render="fast", settle_steps=2, spread=0.05),
    episodes=2,
    max_attempts=4,
    seed=1000,
    image_keys={"front": "observation.images.image", "wrist": "observation.images.image2"},
)
STEPS = 4


def record(root, simulations, seeds, failed=()):
    """A recording of blind episodes with arbitrary actions, all of which count as successes but the failed ones."""
    dataset = LeRobotDataset.create("local/blind", 20, features(SPEC), root, robot_type="panda", use_videos=False)
    draw, tasks, expected = np.random.default_rng(0), [], []
    for task_id, simulation in simulations.items():
        attempts = []
        for seed in seeds:
            observation, frames = simulation.reset(seed), []
            attempts.append(Attempt(seed, init_state_sha256(simulation.init_state), seed not in failed, STEPS))
            for _ in range(STEPS):
                action = draw.uniform(-1, 1, 7).astype(np.float32)
                images = dict.fromkeys(SPEC.image_keys.values(), np.zeros((16, 16, 3), np.uint8))
                frames.append(images | {"observation.state": observation.state, "action": action})
                if seed not in failed:
                    expected.append([simulation.body_position(body) for body in (BOWL, PLATE)])
                observation, _ = simulation.step(action)
            if seed not in failed:
                add_episode(dataset, frames, INSTRUCTIONS[task_id])
        tasks.append(describe(task_id, INSTRUCTIONS[task_id], SPEC, attempts))
    dataset.finalize()
    write_json(root / RECORDING, {"tasks": tasks})
    return np.array(expected, np.float32)


def change_first_attempt(root, **values):
    content = json.loads((root / RECORDING).read_text())
    content["tasks"][0]["attempts"][0] |= values
    write_json(root / RECORDING, content)


class FakeSimulation:
    """The bowl moves by the sum of the actions, from where the seed and the task put it."""

    def __init__(self, spec, task_id):
        self.task_id = task_id

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def reset(self, seed):
        self.moved = self.init_state = np.full(3, seed + 10_000 * self.task_id, np.float64)
        return self.observe()

    def step(self, action):
        self.moved = self.moved + action[:3]
        return self.observe(), False

    def observe(self):
        return SimpleNamespace(state=np.resize(self.moved, 8).astype(np.float32), images={})

    def body_position(self, body):
        return self.moved if body == BOWL else -self.moved


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(replay, "LiberoSimulation", FakeSimulation)
    return {task: FakeSimulation(None, task) for task in (3, 1)}


def test_every_frame_gets_its_positions_and_failed_attempts_are_passed_over(fake, tmp_path):
    expected = record(tmp_path / "dataset", fake, seeds=(7, 8, 9), failed=(8,))
    found = object_positions(tmp_path / "dataset")
    np.testing.assert_array_equal(found.index, np.arange(4 * STEPS))
    np.testing.assert_array_equal(found.bowl, expected[:, 0])
    np.testing.assert_array_equal(found.plate, expected[:, 1])


def test_the_last_episodes_of_each_task_can_be_replayed_alone(fake, tmp_path):
    expected = record(tmp_path / "dataset", fake, seeds=(7, 8, 9))
    found = object_positions(tmp_path / "dataset", episodes_per_task=1)
    rows = [*range(2 * STEPS, 3 * STEPS), *range(5 * STEPS, 6 * STEPS)]
    np.testing.assert_array_equal(found.index, rows)
    np.testing.assert_array_equal(found.bowl, expected[rows, 0])


def test_a_state_that_is_not_the_recorded_one_is_refused(fake, monkeypatch, tmp_path):
    record(tmp_path / "dataset", fake, seeds=(7, 8))
    monkeypatch.setattr(FakeSimulation, "step", lambda self, action: (self.observe(), False))
    with pytest.raises(RecordingError, match="task 3, seed 7: step 1 of the replay is not the recorded one"):
        object_positions(tmp_path / "dataset")


def test_a_recording_of_other_episodes_is_refused(fake, tmp_path):
    record(tmp_path / "dataset", fake, seeds=(7, 8))
    change_first_attempt(tmp_path / "dataset", steps=3)
    with pytest.raises(RecordingError, match=r"episodes are not those of recording\.json"):
        object_positions(tmp_path / "dataset")


def test_the_simulator_gives_the_recorded_episode_again(monkeypatch, tmp_path):
    with LiberoSimulation(SPEC.simulation, 0) as simulation:
        monkeypatch.setattr(replay, "LiberoSimulation", lambda spec, task_id: simulation)
        monkeypatch.setattr(LiberoSimulation, "close", lambda _: None)
        expected = record(tmp_path / "dataset", {0: simulation}, seeds=(1000,))
        found = object_positions(tmp_path / "dataset")
        np.testing.assert_array_equal(found.bowl, expected[:, 0])
        np.testing.assert_array_equal(found.plate, expected[:, 1])
        change_first_attempt(tmp_path / "dataset", seed=1001)  # the robot starts the same, the bowl does not
        with pytest.raises(RecordingError, match="seed 1001: the replay does not begin at the recorded state"):
            object_positions(tmp_path / "dataset")
