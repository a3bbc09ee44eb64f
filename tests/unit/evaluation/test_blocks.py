"""Blocks: several simulators, one policy, and the same episodes whoever rolls them out; films of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.unit.evaluation.scenes import SIZE, Scene
from world_modality.artifacts.files import read_json, write_json
from world_modality.errors import InputError
from world_modality.evaluation import films, simulators
from world_modality.evaluation import pilot as pilots
from world_modality.evaluation.actions import SCHEMA, read_actions, write_actions
from world_modality.evaluation.blocks import BlockFiles, evaluate_block
from world_modality.evaluation.episodes import block_row
from world_modality.evaluation.films import record_videos
from world_modality.evaluation.pilot import check_checkpoint
from world_modality.evaluation.rollout import drive, rolling_out
from world_modality.latents.backbones import build_small_encoder
from world_modality.latents.encoder import VideoEncoder

STATES = {number: np.full(5, steps, np.float64) for number, steps in enumerate([7, 0, 4, 11, 5, 0, 9])}


def files(folder):
    return BlockFiles(folder / "block.jsonl", folder / "actions.parquet", folder / "attention.parquet")


@pytest.fixture
def evaluate(checkpoints, spec, tmp_path, monkeypatch):
    """Evaluate a block of scenes in simulators of their own; returns the bytes of its files."""

    def run(option, block=range(2), count=1, fault="", faults=0, horizon=12, **changes):
        monkeypatch.setattr(simulators.Simulator, "program", "scenes")
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("FAULTS", str(tmp_path / "faults"))
        (tmp_path / "faults").write_text("x" * faults)
        rolled = spec(option, horizon=horizon, **changes)
        folder = tmp_path / f"out_{option}_{count}_{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        written = files(folder)
        try:
            evaluate_block(checkpoints / rolled.source_option, rolled, 0, 0, block, STATES, written, count)
        except BaseException:
            assert list(folder.iterdir()) == []
            raise
        return [path.read_bytes() for path in (written.episodes, written.actions, written.attention)]

    return run


@pytest.mark.parametrize("option", ["E0", "E2"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_number_of_simulators_makes_no_difference(evaluate, option, batch_size):
    alone, many = (evaluate(option, range(7), count, batch_size=batch_size) for count in (1, 3))
    assert alone == many
    rows = [json.loads(line) for line in alone[0].splitlines()]
    assert [(row["init_state_id"], row["steps"], row["success"]) for row in rows] == [
        (number, int(state[0]) or 12, bool(state[0])) for number, state in STATES.items()
    ]


def test_a_simulator_holds_no_torch(evaluate):
    with pytest.raises(InputError, match="there is no torch here"):
        evaluate("E0", fault="torch", faults=1)


@pytest.mark.parametrize("fault", ["crash", "die"])
def test_a_crash_is_tried_once_more_and_is_never_a_failure_of_the_policy(evaluate, capsys, fault):
    undisturbed = evaluate("E2", range(3), 2)
    assert evaluate("E2", range(3), 2, fault=fault, faults=1) == undisturbed
    assert "crashed (" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="task 0, init state 0 crashed twice"):
        evaluate("E2", range(1), fault=fault, faults=2)


def test_what_an_episode_refuses_is_no_crash_to_try_again(evaluate, capsys):
    with pytest.raises(InputError, match="the encoder is another"):
        evaluate("E0", range(2), 2, fault="refuse", faults=1)
    assert "once more" not in capsys.readouterr().out


def test_a_block_of_states_that_do_not_exist_is_refused_before_anything_is_loaded(checkpoints, spec, tmp_path):
    with pytest.raises(InputError, match="task 0: no initial state 7; there are 0 to 6"):
        evaluate_block(checkpoints / "E0", spec("E0"), 0, 0, range(5, 8), STATES, files(tmp_path))


def test_the_encoder_is_hashed_once_a_job(evaluate, monkeypatch):
    hashed, content = [], pilots.content_sha256
    monkeypatch.setattr(pilots, "content_sha256", lambda path: hashed.append(path.name) or content(path))
    monkeypatch.setattr(VideoEncoder, "identity", lambda _: hashed.append("weights"))
    evaluate("E2", range(3), 2)
    assert hashed == ["encoder"]


def test_an_encoder_other_than_the_one_trained_with_is_refused_before_anything_is_loaded(
    experiment, checkpoints, spec, tmp_path
):
    build_small_encoder(experiment.encoder.model_copy(update={"seed": 1}), tmp_path / "other")
    copy = shutil.copytree(checkpoints / "E2", tmp_path / "E2")
    write_json(copy / "config.json", read_json(copy / "config.json") | {"world_encoder": str(tmp_path / "other")})
    with pytest.raises(InputError, match=r"other: has content .*, but .*E2 was trained with an encoder of content"):
        check_checkpoint(copy, spec("E2"), 0, 0)
    assert not check_checkpoint(copy, spec("E2-zero"), 0, 0)  # which never uses it


# ---- actions and films ----------------------------------------------------------------------------------------------


def test_actions_come_back_as_they_were_taken(evaluate, tmp_path):
    (tmp_path / "read.parquet").write_bytes(evaluate("E0", range(3))[1])
    table = pq.read_table(tmp_path / "read.parquet")
    assert table.schema.equals(SCHEMA)
    for number, steps in enumerate((7, 12, 4)):
        actions = read_actions(tmp_path / "read.parquet", number)
        assert (actions.shape, actions.dtype) == ((steps, 7), np.float32)
    with pytest.raises(InputError, match="holds no actions of initial state 3"):
        read_actions(tmp_path / "read.parquet", 3)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: table.slice(1), "the actions of initial state 3 are not whole, or not in order"),
        (lambda table: table.drop_columns(["step"]), "a table of actions has init_state_id int32"),
        (lambda table: table.slice(0, 0), "holds no actions of initial state 3"),
    ],
)
def test_a_table_that_holds_no_whole_episode_is_refused(tmp_path, spoil, message):
    write_actions(tmp_path / "actions.parquet", {3: np.zeros((4, 7))})
    pq.write_table(spoil(pq.read_table(tmp_path / "actions.parquet")), tmp_path / "actions.parquet")
    with pytest.raises(InputError, match=message):
        read_actions(tmp_path / "actions.parquet", 3)


def test_an_action_that_is_not_a_number_is_refused(tmp_path):
    write_actions(tmp_path / "actions.parquet", {3: np.array([[0.0] * 6 + [np.nan]])})
    with pytest.raises(InputError, match="an action of initial state 3 is not 7 finite numbers"):
        read_actions(tmp_path / "actions.parquet", 3)


@pytest.fixture
def filmed(spec, tmp_path, monkeypatch):
    """Film an episode that failed after six steps, in a scene that may end otherwise; returns the folder."""

    def film(success_at=None, actions=6):
        rolled = spec("E0", horizon=6)
        taken = np.random.default_rng(0).uniform(-1, 1, (6, 7)).astype(np.float32)
        view = films.View((), (), 0, 6)
        evaluated = drive(rolling_out(Scene(), rolled, view, 0, 3, np.zeros(5)), lambda _: taken).episode
        (tmp_path / "block_0.jsonl").write_text(block_row(evaluated, {"option": "E0", "task": 0}))
        write_actions(tmp_path / "actions.parquet", {3: taken[:actions]})
        scene = Scene(success_at=success_at)
        monkeypatch.setattr(films, "LiberoSimulation", lambda *_: scene)
        parts = ([tmp_path / "block_0.jsonl"], [tmp_path / "actions.parquet"])
        record_videos(rolled, 0, *parts, {3: np.zeros(5)}, SIZE, tmp_path / "task_0")
        np.testing.assert_array_equal(scene.actions, taken[: success_at or 6])
        return tmp_path / "task_0"

    return film


@pytest.mark.parametrize("success_at", [None, 5])
def test_a_film_that_ends_otherwise_than_its_episode_is_kept_and_says_so(filmed, capsys, success_at):
    folder = filmed(success_at)
    [film] = read_json(folder / "films.json")
    assert film["file"] == "failure_init_state_03.mp4"
    assert (folder / film["file"]).stat().st_size
    assert film["as_evaluated"] == (success_at is None)
    assert (film["evaluated"]["success"], film["evaluated"]["steps"]) == (False, 6)
    assert (film["filmed"]["success"], film["filmed"]["steps"]) == ((True, 5) if success_at else (False, 6))
    warned = "warning: E0, task 0, init state 3: failure_init_state_03.mp4 does not show the evaluated episode"
    assert (warned in capsys.readouterr().err) == (success_at is not None)


def test_the_actions_of_another_episode_are_not_filmed(filmed, tmp_path):
    with pytest.raises(InputError, match="initial state 3 has 5 actions; its episode took 6 steps"):
        filmed(actions=5)
    assert not (tmp_path / "task_0").exists()
