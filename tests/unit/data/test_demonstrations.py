"""Demonstrations: successes are recorded as LeRobot reads them, failures counted, the benchmark's states left alone."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from lerobot.datasets.lerobot_dataset import LeRobotDataset

from tests.unit.conftest import INSTRUCTIONS
from world_modality.artifacts.files import tree_sha256
from world_modality.data import demonstrations
from world_modality.data.dataset import instructions, load_dataset
from world_modality.data.demonstrations import RecordingError, aggregate_tasks, attempt_episode, record_task
from world_modality.experiment.sections import Simulation
from world_modality.experiment.specs import RecordSpec
from world_modality.simulation.benchmark import init_state_sha256
from world_modality.simulation.expert import ScriptedExpert
from world_modality.simulation.libero import LiberoSimulation

SPEC = RecordSpec(
    simulation=Simulation(suite="libero_spatial", camera_size=64, render="fast", spread=0, settle_steps=10),
    episodes=2,
    max_attempts=4,
    seed=1000,
    image_keys={"front": "observation.images.image", "wrist": "observation.images.image2"},
)
STEPS = 4


class FakeSimulation:
    """Episodes of four steps; those of the failing seeds never succeed, those of the solved ones need not."""

    failing: tuple[int, ...] = ()
    solved: tuple[int, ...] = ()

    def __init__(self, spec, task_id):
        self.task_description = INSTRUCTIONS[task_id]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def reset(self, seed, cameras):
        self.seed, self.now, self.init_state = seed, 0, np.array([seed])
        return self.observe(cameras)

    def step(self, action, cameras):
        self.now += 1
        return self.observe(cameras), self.now == STEPS and self.seed not in self.failing

    def is_solved(self):
        return self.seed in self.solved

    def observe(self, cameras):
        images = {camera: np.full((64, 64, 3), self.seed % 50 + self.now, np.uint8) for camera in cameras}
        return SimpleNamespace(state=np.full(8, self.now, np.float32), images=images)


@pytest.fixture
def fake(monkeypatch):
    sign = itertools.cycle((1, -1))  # closes the gripper and opens it again
    expert = SimpleNamespace(action=lambda: np.linspace(-1, 1, 7, dtype=np.float32) * next(sign))
    monkeypatch.setattr(demonstrations, "LiberoSimulation", FakeSimulation)
    monkeypatch.setattr(demonstrations, "ScriptedExpert", lambda _: expert)
    monkeypatch.setattr(demonstrations, "benchmark_init_states", lambda *_: np.zeros((50, 1)))
    monkeypatch.setattr(demonstrations, "HORIZON", 10)
    monkeypatch.setattr(FakeSimulation, "failing", ())
    return FakeSimulation


def recording(root):
    return json.loads((root / "recording.json").read_text())["tasks"]


def test_a_scene_that_is_solved_as_it_stands_is_no_demonstration(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(fake, "solved", (1000,))
    record_task(3, SPEC, tmp_path / "task_3")
    attempt = recording(tmp_path / "task_3")[0]["attempts"][0]
    assert (attempt["seed"], attempt["success"], attempt["steps"]) == (1000, False, 0)
    assert load_dataset(tmp_path / "task_3").num_episodes == 2


def test_failed_attempts_are_dropped_and_counted(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(fake, "failing", (1001,))
    record_task(3, SPEC, tmp_path / "task_3")
    dataset = load_dataset(tmp_path / "task_3")
    assert (dataset.num_episodes, dataset.num_frames) == (2, 2 * STEPS)
    [task] = recording(tmp_path / "task_3")
    assert [(a["seed"], a["success"], a["steps"]) for a in task["attempts"]] == [
        (1000, True, STEPS),
        (1001, False, 10),
        (1002, True, STEPS),
    ]
    assert (task["task_id"], task["successes"], task["instruction"]) == (3, 2, INSTRUCTIONS[3])


def test_too_many_failures_are_an_error_that_says_how_many(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(fake, "failing", (1001, 1002, 1003))
    with pytest.raises(RecordingError, match="task 0: 1 of 4 attempts succeeded, 2 wanted"):
        record_task(0, SPEC, tmp_path / "task_0")


def test_an_initial_state_of_the_benchmark_is_never_recorded(fake, monkeypatch, tmp_path):
    monkeypatch.setattr(demonstrations, "benchmark_init_states", lambda *_: np.array([[1001.0]]))
    with pytest.raises(RecordingError, match="seed 1001 drew an initial state of the benchmark"):
        record_task(0, SPEC, tmp_path / "task_0")


def test_a_frame_pairs_an_action_with_what_was_seen_before_it(fake, tmp_path):
    record_task(0, SPEC, tmp_path / "task_0")
    frame = LeRobotDataset("task_0", tmp_path / "task_0")[STEPS + 2]  # third frame of the second episode
    assert frame["frame_index"] == 2
    np.testing.assert_array_equal(frame["observation.state"], np.full(8, 2))
    np.testing.assert_allclose(frame["action"], np.linspace(-1, 1, 7), atol=1e-7)
    for key in SPEC.image_keys.values():
        np.testing.assert_allclose(frame[key], np.full((3, 64, 64), (1001 % 50 + 2) / 255), atol=1e-6)


def test_the_dataset_follows_the_published_ones_conventions(fake, tmp_path):
    record_task(0, SPEC, tmp_path / "task_0")
    meta = load_dataset(tmp_path / "task_0").meta
    assert meta.camera_keys == ["observation.images.image", "observation.images.image2"]
    assert meta.features["observation.state"]["shape"] == (8,)
    assert meta.features["action"]["shape"] == (7,)
    assert (meta.fps, meta.robot_type, meta.video_keys) == (20, "panda", [])


def test_tasks_are_joined_in_the_order_given_and_the_same_to_the_byte(fake, tmp_path):
    for task in (0, 1):
        record_task(task, SPEC, tmp_path / f"task_{task}")
    for name in ("once", "again"):
        aggregate_tasks([tmp_path / "task_1", tmp_path / "task_0"], tmp_path / name / "dataset")
    dataset = load_dataset(tmp_path / "once" / "dataset")
    stock = LeRobotDataset("dataset", tmp_path / "once" / "dataset")
    assert dataset.num_episodes == 4
    assert [stock[row]["task"] for row in (0, 4 * STEPS - 1)] == [INSTRUCTIONS[1], INSTRUCTIONS[0]]
    assert sorted(instructions(dataset).values()) == sorted(INSTRUCTIONS[:2])
    assert [task["task_id"] for task in recording(dataset.root)] == [1, 0]
    assert tree_sha256(tmp_path / "once") == tree_sha256(tmp_path / "again")


def test_recordings_of_different_settings_are_not_joined(fake, tmp_path):
    record_task(0, SPEC, tmp_path / "task_0")
    record_task(1, SPEC.model_copy(update={"seed": 5}), tmp_path / "task_1")
    with pytest.raises(RecordingError, match=r"task_1 and .*task_0 were recorded with different settings"):
        aggregate_tasks([tmp_path / "task_0", tmp_path / "task_1"], tmp_path / "dataset")


def test_a_folder_without_a_recording_is_refused(tmp_path):
    with pytest.raises(RecordingError, match=r"recording\.json is missing"):
        aggregate_tasks([tmp_path], tmp_path / "dataset")


@pytest.fixture(scope="module")
def real_attempt():
    with LiberoSimulation(SPEC.simulation, 0) as simulation:
        attempt, frames = attempt_episode(simulation, SPEC, 1001)
        simulation.reset(1001)
        replayed = [simulation.step(frame["action"]) for frame in frames]
        return attempt, frames, replayed, init_state_sha256(simulation.init_state)


def test_the_expert_solves_a_task_within_the_horizon(real_attempt):
    attempt, frames, _, _ = real_attempt
    assert attempt.success
    assert attempt.steps == len(frames) <= 120


def test_a_recorded_episode_replayed_is_the_episode_itself(real_attempt):
    attempt, frames, replayed, init_state = real_attempt
    assert init_state == attempt.init_state_sha256
    assert [success for _, success in replayed] == [False] * (len(frames) - 1) + [True]
    for frame, (observation, _) in zip(frames[1:], replayed[:-1], strict=True):
        np.testing.assert_array_equal(frame["observation.state"], observation.state)


def test_rotation_actions_are_exactly_zero_and_the_gripper_is_open_or_closed(real_attempt):
    actions = np.array([frame["action"] for frame in real_attempt[1]])
    assert actions.dtype == np.float32
    assert np.all(actions[:, 3:6] == 0)
    assert set(actions[:, 6]) == {-1, 1}
    assert np.abs(actions).max() <= 1
    assert np.all(actions[:, :3].std(axis=0) > 0.05)


def test_the_expert_begins_again_where_its_grasp_fails():
    with LiberoSimulation(SPEC.simulation, 0) as simulation:
        simulation.reset(1001)
        expert = ScriptedExpert(simulation)
        grippers = []
        for _ in range(75):
            action = expert.action()
            grippers.append(action[6])
            simulation.step([*action[:6], -1])  # the fingers never close
    closed = np.flatnonzero(np.array(grippers) == 1)
    assert np.any(np.array(grippers)[closed[0] :] == -1)
