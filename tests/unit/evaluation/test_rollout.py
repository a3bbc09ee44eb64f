"""An episode is f(policy, task, init state, seeds); what no one looks at is not rendered, and nothing changes by it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from world_modality.artifacts.files import read_json, write_json
from world_modality.errors import InputError
from world_modality.evaluation import blocks, rollout
from world_modality.evaluation.blocks import evaluate_block
from world_modality.evaluation.episodes import block_row
from world_modality.evaluation.rollout import Pilot, record_videos, roll_out
from world_modality.experiment.seeds import env_seed, memory_seed, noise_seed
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import VideoEncoder
from world_modality.simulation.libero import Observation
from world_modality.simulation.pickup import PickupState
from world_modality.training.loop import TrainInputs, train

REPOSITORY = Path(__file__).parents[3]
SIZE = 32
CAMERAS = ("front", "wrist")


class Scene:
    """Stands where the simulator does: images are noise drawn from the step, and are all that cost is counted by."""

    task_id, task_description = 0, "pick up the bowl"
    placement = ("on", "bowl", "plate")

    def __init__(self, *_, show_all=False, success_at=None, crashes=0):
        self.show_all, self.success_at, self.crashes = show_all, success_at, crashes
        self.rendered, self.actions = [], []

    def reset(self, seed, init_state, cameras):
        self.actions, self.rendered = [], []
        return self._observe(cameras)

    def step(self, action, cameras):
        if self.crashes and len(self.actions) == 3:
            type(self).crashes_left -= 1
            raise RuntimeError("the simulator crashed")
        self.actions.append(action)
        return self._observe(cameras), len(self.actions) == self.success_at

    def pickup_state(self):
        """The gripper comes 1 cm nearer on every step, and touches nothing."""
        distance = max(0.2 - 0.01 * len(self.actions), 0.05)
        return PickupState(distance, False, False, 0.08, False, 0.9, 0.2, placed=False)

    def _observe(self, cameras):
        self.rendered.append(tuple(cameras))
        shown = CAMERAS if self.show_all else cameras
        images = {c: self._image(c) for c in shown}
        return Observation(np.full(8, len(self.actions), np.float32), images)

    def _image(self, camera):
        draw = np.random.default_rng([len(self.actions), CAMERAS.index(camera)])
        return draw.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)

    def close(self):
        pass


@pytest.fixture(scope="module")
def checkpoints(experiment, folder, tmp_path_factory):
    """E0, E2 and S0 after a few updates."""
    root = tmp_path_factory.mktemp("checkpoints")
    front = {"front": folder / "front.parquet"}
    for option, latents in (("E0", {}), ("E2", front), ("S0", {})):
        inputs = TrainInputs(folder / "dataset", folder / "vlm", folder / "encoder" if latents else None, latents)
        train(experiment.train_spec(option), inputs, 0, root / option, root / "progress")
    return root


def pilot(experiment, checkpoints, option, n_action_steps, horizon=24):
    spec = experiment.rollout_spec(option)
    simulation = spec.protocol.simulation.model_copy(update={"camera_size": SIZE})
    changes = {"n_action_steps": n_action_steps, "horizon": horizon, "simulation": simulation}
    spec = spec.model_copy(update={"protocol": spec.protocol.model_copy(update=changes)})
    return Pilot(checkpoints / spec.source_option, spec)


def play(pilot, scene):
    return roll_out(pilot, scene, 3, np.zeros(5), train_seed=0)


@pytest.mark.parametrize("n_action_steps", [1, 2, 4])
@pytest.mark.parametrize("option", ["E0", "E2", "E2-zero", "S0"])
def test_images_that_no_one_looks_at_change_nothing(experiment, checkpoints, option, n_action_steps):
    lazy, full = Scene(), Scene(show_all=True)
    driver = pilot(experiment, checkpoints, option, n_action_steps)
    assert play(driver, lazy) == play(driver, full)
    np.testing.assert_array_equal(lazy.actions, full.actions)


def test_skipped_frames_are_those_no_window_holds(experiment, checkpoints, monkeypatch):
    """With chunks longer than the 7 frames of the ring buffer, the first steps of a chunk are not rendered."""
    driver = pilot(experiment, checkpoints, "E2", 4)
    monkeypatch.setattr(driver, "_world_frames", lambda: 3)
    assert [driver.cameras_at(step) for step in range(9)] == [
        ["front", "wrist"],
        [],
        ["front"],
        ["front"],
        ["front", "wrist"],
        [],
        ["front"],
        ["front"],
        ["front", "wrist"],
    ]


@pytest.mark.parametrize(
    ("option", "between", "at_chunks"),
    [("E0", (), CAMERAS), ("E2", ("front",), CAMERAS), ("E2-zero", (), CAMERAS), ("S0", (), ())],
)
def test_each_option_renders_what_it_uses(experiment, checkpoints, option, between, at_chunks):
    scene = Scene()
    play(pilot(experiment, checkpoints, option, 2, horizon=6), scene)
    assert scene.rendered == [at_chunks, between, at_chunks, between, at_chunks, between, at_chunks]


def test_a_blind_policy_does_not_depend_on_what_is_shown(experiment, checkpoints):
    blind, seeing = Scene(), Scene(show_all=True)
    seeing._image = lambda camera: np.full((SIZE, SIZE, 3), 200, np.uint8)
    driver = pilot(experiment, checkpoints, "S0", 2)
    play(driver, blind)
    play(driver, seeing)
    np.testing.assert_array_equal(blind.actions, seeing.actions)


def test_every_chunk_gets_the_noise_of_its_own_seed(experiment, checkpoints, monkeypatch):
    driver, drawn = pilot(experiment, checkpoints, "E0", 2, horizon=6), []
    predict = driver.policy.predict_action_chunk
    monkeypatch.setattr(
        driver.policy, "predict_action_chunk", lambda b, noise: drawn.append(noise) or predict(b, noise)
    )
    play(driver, Scene())
    assert len(drawn) == 3
    for chunk, noise in enumerate(drawn):
        generator = torch.Generator().manual_seed(noise_seed(0, 3, chunk))
        assert torch.equal(noise, torch.randn(noise.shape, generator=generator))


def test_a_random_memory_shares_no_value_with_the_flow_noise(experiment, checkpoints, monkeypatch):
    """One seed for both would make the memory begin with the very noise that the actions are denoised from."""
    driver, noises, memories = pilot(experiment, checkpoints, "E2", 2, horizon=6), [], []
    driver.policy.config.world_memory = "random"
    predict, attend = driver.policy.predict_action_chunk, driver.policy.memory_from
    monkeypatch.setattr(
        driver.policy, "predict_action_chunk", lambda b, noise: noises.append(noise) or predict(b, noise)
    )

    def remember(sources):
        memories.append(attend(sources))
        return memories[-1]

    monkeypatch.setattr(driver.policy, "memory_from", remember)
    play(driver, Scene())
    drawn = [values.flatten().tolist() for values in [*noises, *memories]]
    assert len(drawn) == 6
    assert sum(map(len, drawn)) == len({value for values in drawn for value in values})


def test_no_two_streams_of_an_episode_have_one_seed():
    chunks = range(28)
    streams = [noise_seed(0, 3, chunk, stream) for chunk in chunks for stream in (0, 1)]
    streams += [memory_seed(0, 3, chunk) for chunk in chunks] + [env_seed(0, 3)]
    assert len(set(streams)) == len(streams)


def test_an_episode_ends_at_success(experiment, checkpoints):
    scene = Scene(success_at=5)
    episode = play(pilot(experiment, checkpoints, "E0", 2), scene)
    assert episode.success
    assert episode.steps == 5 == len(scene.actions)


def test_an_episode_records_how_its_pickup_went(experiment, checkpoints):
    assert play(pilot(experiment, checkpoints, "E0", 2), Scene()).pickup == {
        "furthest": "approached",
        "stage_steps": {"approached": 11},
        "grasp_attempts": 0,
        "slips": 0,
        "contact_to_closing": None,
    }


def test_an_episode_of_a_task_that_places_nothing_records_no_pickup(experiment, checkpoints):
    scene = Scene()
    scene.placement = scene.pickup_state = None
    assert play(pilot(experiment, checkpoints, "E0", 2), scene).pickup is None


def test_zeroing_the_memory_changes_the_actions_of_a_policy_that_uses_it(experiment, checkpoints):
    seen, zeroed = Scene(), Scene()
    driver = pilot(experiment, checkpoints, "E2", 2)
    torch.nn.init.ones_(driver.policy.cross_attention.gate)
    play(driver, seen)
    driver.policy.config.world_memory = "zero"
    play(driver, zeroed)
    assert not np.array_equal(seen.actions, zeroed.actions)


@pytest.mark.parametrize(("crashes", "survives"), [(1, True), (2, False)])
def test_a_crash_is_tried_once_more_and_is_never_a_failure_of_the_policy(
    experiment, checkpoints, tmp_path, monkeypatch, crashes, survives
):
    class Crashing(Scene):
        crashes_left = crashes

        def __init__(self, *_):
            super().__init__(crashes=type(self).crashes_left)

    monkeypatch.setattr(blocks, "LiberoSimulation", Crashing)
    states = dict(enumerate(np.zeros((50, 5))))
    spec = pilot(experiment, checkpoints, "E0", 2, horizon=6).spec
    block, attention = tmp_path / "block_0.jsonl", tmp_path / "block_0_attention.parquet"
    if survives:
        evaluate_block(checkpoints / "E0", spec, 0, 0, range(2), states, block, attention)
        assert [json.loads(line)["init_state_id"] for line in block.read_text().splitlines()] == [0, 1]
    else:
        with pytest.raises(RuntimeError, match="the simulator crashed"):
            evaluate_block(checkpoints / "E0", spec, 0, 0, range(2), states, block, attention)
        assert list(tmp_path.iterdir()) == []


def test_what_an_episode_refuses_is_no_crash_to_try_again(experiment, checkpoints, tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise InputError("the encoder is another")

    monkeypatch.setattr(blocks, "LiberoSimulation", Scene)
    monkeypatch.setattr(blocks, "roll_out", refuse)
    spec, states = pilot(experiment, checkpoints, "E0", 2).spec, dict(enumerate(np.zeros((50, 5))))
    with pytest.raises(InputError, match="the encoder is another"):
        evaluate_block(checkpoints / "E0", spec, 0, 0, range(2), states, tmp_path / "b.jsonl", tmp_path / "a.parquet")
    assert "once more" not in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["opening", "episode"])
def test_what_one_of_two_simulators_refuses_is_told_in_one_line(tmp_path, fault):
    command = [sys.executable, "tests/unit/failing_workers.py", fault, "2", tmp_path]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    lines = [line for line in ended.stderr.splitlines() if "robosuite" not in line]
    assert lines == ["error: encoder: content 1234 is not that of the checkpoint"]
    assert ended.stdout == ""
    assert list(tmp_path.iterdir()) == []


class FilmedScene(Scene):
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def render(self, camera, size):
        return self._image(camera)


@pytest.mark.parametrize("success_at", [None, 5])
def test_a_film_that_ends_otherwise_than_its_episode_is_kept_and_says_so(
    experiment, checkpoints, tmp_path, monkeypatch, capsys, success_at
):
    driver = pilot(experiment, checkpoints, "E0", 2, horizon=6)
    evaluated = roll_out(driver, Scene(), 3, np.zeros(5), train_seed=0)
    (tmp_path / "block_0.jsonl").write_text(block_row(evaluated, {"option": "E0", "task": 0}))
    monkeypatch.setattr(rollout, "LiberoSimulation", lambda *_: FilmedScene(success_at=success_at))
    blocks, states, folder = [tmp_path / "block_0.jsonl"], {3: np.zeros(5)}, tmp_path / "task_0"
    record_videos(checkpoints / "E0", driver.spec, 0, blocks, states, SIZE, folder)
    [film] = read_json(folder / "films.json")
    assert film["file"] == "failure_init_state_03.mp4"
    assert (folder / film["file"]).stat().st_size
    assert film["as_evaluated"] == (success_at is None)
    assert (film["evaluated"]["success"], film["evaluated"]["steps"]) == (False, 6)
    assert (film["filmed"]["success"], film["filmed"]["steps"]) == ((True, 5) if success_at else (False, 6))
    warned = "warning: E0, task 0, init state 3: failure_init_state_03.mp4 does not show the evaluated episode"
    assert (warned in capsys.readouterr().err) == (success_at is not None)


def test_a_block_of_states_that_do_not_exist_is_refused_before_anything_is_loaded(experiment, checkpoints, tmp_path):
    spec, states = pilot(experiment, checkpoints, "E0", 2).spec, dict(enumerate(np.zeros((3, 5))))
    with pytest.raises(InputError, match="task 0: no initial state 3; there are 0 to 2"):
        evaluate_block(
            checkpoints / "E0", spec, 0, 0, range(2, 5), states, tmp_path / "block_0.jsonl", tmp_path / "a.parquet"
        )


def test_the_encoder_is_hashed_once_a_job_and_by_no_worker(experiment, checkpoints, tmp_path, monkeypatch):
    hashed, content = [], rollout.content_sha256
    monkeypatch.setattr(rollout, "content_sha256", lambda path: hashed.append(path.name) or content(path))
    monkeypatch.setattr(VideoEncoder, "identity", lambda _: hashed.append("weights"))
    monkeypatch.setattr(blocks, "LiberoSimulation", Scene)
    spec, states = pilot(experiment, checkpoints, "E2", 2, horizon=6).spec, dict(enumerate(np.zeros((50, 5))))
    evaluate_block(checkpoints / "E2", spec, 0, 0, range(2), states, tmp_path / "b.jsonl", tmp_path / "a.parquet")
    assert hashed == ["encoder"]


def test_an_encoder_other_than_the_one_trained_with_is_refused_before_anything_is_loaded(
    experiment, checkpoints, tmp_path
):
    build_small_encoder(experiment.encoder.model_copy(update={"seed": 1}), tmp_path / "other")
    copy = shutil.copytree(checkpoints / "E2", tmp_path / "E2")
    write_json(copy / "config.json", read_json(copy / "config.json") | {"world_encoder": str(tmp_path / "other")})
    with pytest.raises(InputError, match=r"other: has content .*, but .*E2 was trained with an encoder of content"):
        rollout.check_checkpoint(copy, pilot(experiment, checkpoints, "E2", 2).spec, 0, 0)
    assert not rollout.check_checkpoint(copy, experiment.rollout_spec("E2-zero"), 0, 0)  # which never uses it
