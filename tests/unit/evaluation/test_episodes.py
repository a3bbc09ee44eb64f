"""Blocks of rollouts and the evaluation file: complete, of one checkpoint and protocol, or refused."""

import json
from pathlib import Path

import pytest

from world_modality.artifacts.files import read_json, text_sha256, write_json
from world_modality.evaluation.episodes import (
    Episode,
    block_row,
    collect_evaluation,
    episode_of,
    filmed_episodes,
    read_rows,
)
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.seeds import env_seed, noise_seed

WEIGHTS = "ab" * 32
PICKUP = {"furthest": None, "stage_steps": {}, "grasp_attempts": 0, "slips": 0, "contact_to_closing": None}


@pytest.fixture
def spec():
    config = default_config()
    config["evaluation"] |= {"episodes": 3, "block_size": 2}
    config["decision"]["stopping"] = "fixed"
    return load_experiment(config).evaluation_spec("E0")


def episode(init_state_id, success=False, train_seed=0):
    seeds = (env_seed(0, init_state_id), noise_seed(0, init_state_id), train_seed)
    return Episode(init_state_id, f"{init_state_id:064d}", *seeds, success, 20, PICKUP)


@pytest.fixture
def files(tmp_path, spec):
    """Two blocks of E0 on task 0 (initial states 0 to 3), its manifest and a folder of videos."""
    made_from = {
        "option": "E0",
        "task": 0,
        "checkpoint_sha256": WEIGHTS,
        "protocol_sha256": text_sha256(spec.rollout.protocol.model_dump_json()),
        "versions": {"mujoco": "3.8.1"},
        "instruction": "pick up the bowl",
    }
    blocks = [tmp_path / f"block_{b}.jsonl" for b in range(2)]
    for b, path in enumerate(blocks):
        rows = [block_row(episode(i, success=i == 1), made_from) for i in (2 * b, 2 * b + 1)]
        path.write_text("\n".join(rows) + "\n")
    seeds = {"0": {"weights_sha256": WEIGHTS, "world": None}}
    write_json(
        tmp_path / "manifest.json",
        {"seeds": seeds, "training_budget": {"steps": 1}, "learning_schedule": {"learning_rate": 1e-3}},
    )
    return {"manifest": tmp_path / "manifest.json", "blocks": blocks, "videos": Path("results/videos/E0/task_0")}


def edit_rows(path, **changes):
    path.write_text("".join(json.dumps(json.loads(line) | changes) + "\n" for line in path.read_text().splitlines()))


def test_seeds_are_functions_of_the_episode_alone_and_differ_between_episodes():
    seeds = {(kind.__name__, t, i): kind(t, i) for kind in (env_seed, noise_seed) for t in range(10) for i in range(50)}
    assert len(set(seeds.values())) == len(seeds)
    assert env_seed(0, 0) == env_seed(0, 0)
    assert noise_seed(0, 0, chunk=1) != noise_seed(0, 0, chunk=0)
    streams = {noise_seed(0, 0, chunk, stream) for chunk in range(9) for stream in range(9)}
    assert len(streams) == 81
    assert noise_seed(0, 0, stream=0) == noise_seed(0, 0)


def test_an_evaluation_holds_the_episodes_asked_for_and_no_more(tmp_path, spec, files):
    collect_evaluation(spec, 0, output=tmp_path / "eval.json", **files)
    evaluation = read_json(tmp_path / "eval.json")
    assert [e["init_state_id"] for e in evaluation["episodes"]] == [0, 1, 2]
    assert [e["pickup"] for e in evaluation["episodes"]] == [PICKUP] * 3
    assert evaluation["checkpoint"]["hashes"] == {"seed_0": WEIGHTS}
    assert evaluation["task"] == {"id": 0, "description": "pick up the bowl"}
    assert evaluation["protocol"]["n_action_steps"] == spec.rollout.protocol.n_action_steps


def test_the_first_success_and_the_first_failure_are_filmed(tmp_path, spec, files):
    collect_evaluation(spec, 0, output=tmp_path / "eval.json", **files)
    videos = [e["video"] for e in read_json(tmp_path / "eval.json")["episodes"]]
    folder = "results/videos/E0/task_0"
    assert videos == [f"{folder}/failure_init_state_00.mp4", f"{folder}/success_init_state_01.mp4", None]


def test_an_episode_reaches_its_row_and_comes_back_the_same():
    (row,) = [json.loads(block_row(episode(0), {"option": "E0"}))]
    assert episode_of(row) == episode(0)
    assert episode_of(row | {"pickup": PICKUP | {"slips": 1}}) != episode(0)
    assert len({episode_of(row), episode(0)}) == 1


def test_only_the_first_training_seed_is_filmed():
    chosen = filmed_episodes([episode(0), episode(1), episode(0, success=True, train_seed=1)])
    assert list(chosen) == ["failure_init_state_00.mp4"]


def test_the_order_of_blocks_changes_nothing(files):
    assert read_rows(files["blocks"]) == read_rows(files["blocks"][::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint_sha256": "cd" * 32}, "checkpoint_sha256 is cdcd"),
        ({"protocol_sha256": "0"}, "protocol_sha256 is 0"),
        ({"option": "E2"}, "option is E2, expected E0"),
        ({"task": 1}, "task is 1, expected 0"),
        ({"versions": {"mujoco": "4"}}, "versions is {'mujoco': '4'}"),
        ({"train_seed": 5}, "expected None"),
        ({"noise_seed": 7}, "noise_seed is 7, expected"),
        ({"env_seed": 7}, "env_seed is 7, expected"),
    ],
)
def test_rollouts_of_something_else_are_refused_by_name(tmp_path, spec, files, change, message):
    edit_rows(files["blocks"][1], **change)
    with pytest.raises(ValueError, match=message):
        collect_evaluation(spec, 0, output=tmp_path / "eval.json", **files)
    assert not (tmp_path / "eval.json").exists()


def test_a_missing_block_is_refused(tmp_path, spec, files):
    files["blocks"] = files["blocks"][:1]
    with pytest.raises(ValueError, match="do not hold episodes 0 to 2"):
        collect_evaluation(spec, 0, output=tmp_path / "eval.json", **files)


def test_an_option_that_was_settled_early_has_as_many_episodes_as_its_blocks(tmp_path, spec, files):
    files["blocks"] = files["blocks"][:1]
    adaptive = spec.model_copy(update={"adaptive": True})
    collect_evaluation(adaptive, 0, output=tmp_path / "eval.json", **files)
    assert [e["init_state_id"] for e in read_json(tmp_path / "eval.json")["episodes"]] == [0, 1]


def test_a_block_that_is_missing_before_others_is_refused_however_many_there_may_be(tmp_path, spec, files):
    files["blocks"] = files["blocks"][1:]
    with pytest.raises(ValueError, match="do not hold episodes 0 to"):
        collect_evaluation(spec.model_copy(update={"adaptive": True}), 0, output=tmp_path / "eval.json", **files)


def test_a_truncated_block_is_refused_with_its_line(files):
    path = files["blocks"][0]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"block_0\.jsonl:2: not a whole line"):
        read_rows(files["blocks"])


def test_an_episode_that_appears_twice_is_refused(files):
    with pytest.raises(ValueError, match="appears twice"):
        read_rows([files["blocks"][0], files["blocks"][0]])
