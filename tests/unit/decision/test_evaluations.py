"""Evaluations that are incomplete, damaged or not comparable are refused by name."""

import copy
import json

import pytest

from tests.unit.decision.samples import (
    EPISODES,
    PICKUP,
    change,
    content,
    contents,
    episode,
    pickup,
    refused,
    sha256,
    spec,
)
from world_modality.artifacts.files import text_sha256, write_json
from world_modality.decision.evaluations import ComparisonError, read_evaluation
from world_modality.errors import InputError
from world_modality.evaluation.episodes import Episode, block_row, collect_evaluation
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.seeds import env_seed, noise_seed


def duplicate(file):
    file["episodes"].append(copy.deepcopy(file["episodes"][0]))


def same_state_twice(file):
    file["episodes"][3]["init_state_sha256"] = file["episodes"][2]["init_state_sha256"]


def drop_last(file):
    file["episodes"].pop()


def reseed(file):
    file["checkpoint"]["hashes"] = {"seed_7": sha256("E2 7")}
    file["world"] = {"seed_7": file["world"]["seed_0"]}
    for row in file["episodes"]:
        row["train_seed"] = 7


REFUSED = {
    "another horizon": (change("horizon", 280, "protocol"), r"protocol\.horizon is 280, but 220 in eval_E0_0\.json"),
    "another version": (change("versions", {"torch": "2.9"}, "protocol"), r"protocol\.versions\.torch is '2\.9'"),
    "an unknown protocol key": (change("warm_up", 3, "protocol"), r"protocol\.warm_up is 3, but 'absent'"),
    "another training budget": (change("steps", 100, "training_budget"), r"training_budget\.steps is 100, but 3200"),
    "another suite": (change("suite_tasks", 90, None), "suite_tasks is 90, but 10"),
    "another instruction": (change("description", "push", "task"), "the task is 'push', but 'pick up bowl 1'"),
    "another environment seed": (change("env_seed", 4), "initial state 3 of training seed 0: env_seed is 4, but 1003"),
    "another noise seed": (change("noise_seed", 4), "noise_seed is 4, but 2003 in eval_E0_1"),
    "a seed beyond 64 bits": (
        change("env_seed", 10**30),
        "a number in its episodes is beyond 64 bits",
    ),
    "another initial state": (change("init_state_sha256", "0" * 64), "init_state_sha256 is 0000"),
    "a duplicated episode": (duplicate, "duplicated episode: initial state 0 of training seed 0"),
    "one initial state under two numbers": (same_state_twice, "duplicated episode"),
    "an unpaired episode": (drop_last, r"eval_E2_1\.json: unpaired episode: it lacks initial state 9"),
    "another training seed": (reseed, "rolled out another checkpoint of E2|unpaired episode"),
    "episodes without their checkpoint": (change("train_seed", 7), "episodes of seed_0, seed_7, but checkpoints of"),
    "another checkpoint": (
        change("hashes", {"seed_0": "0" * 64}, "checkpoint"),
        "another checkpoint of E2 than eval_E2_0",
    ),
    "a borrowed checkpoint": (change("source_option", "E1", "checkpoint"), "rolled out E1's checkpoint, not E2's"),
    "a success that is no truth value": (change("success", 1), r"episodes\.3\.success"),
    "a stage out of its order": (change("pickup", pickup(30, 20)), "expected approached, touched, one after the other"),
    "a stage after the furthest": (
        change("pickup", pickup(1, 2, 3)),
        "furthest 'touched'; expected approached, touched",
    ),
    "a stage after the end": (change("pickup", pickup(20, 91)), "in steps 1 to 90"),
    "a stage that does not exist": (change("pickup", pickup(20, 30, furthest="eaten")), r"episodes\.3\.pickup"),
    "more steps than the horizon": (change("steps", 221), "steps is 221, expected 1 to the horizon, 220"),
    "an episode of no step": (change("steps", 0), "steps is 0, expected 1 to the horizon"),
    "no horizon": (
        lambda file: file["protocol"].pop("horizon"),
        r"protocol\.horizon is None, expected a number of steps",
    ),
    "a horizon that is no number": (
        change("horizon", True, "protocol"),
        r"protocol\.horizon is True, expected a number",
    ),
    "no pickup": (lambda file: file["episodes"][3].pop("pickup"), r"episodes\.3\.pickup: Field required"),
    "no world path of a world option": (change("world", None, None), r"eval_E2_1\.json: .*world"),
    "a task beyond the suite": (change("suite_tasks", 1, None), "the suite has tasks 0 to 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unfair_comparison_is_refused(tmp_path, name):
    edit, message = REFUSED[name]
    files = copy.deepcopy(contents(E0=5, E2=6))
    edit(files["E2", 1])
    refused(tmp_path, files, message)


def test_another_training_seed_in_every_file_of_an_option_is_refused(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6))
    for task in PICKUP:
        reseed(files["E2", task])
    refused(tmp_path, files, r"eval_E2_0\.json: unpaired episode: it lacks initial state 0 of training seed 0")


def test_an_ablation_of_older_weights_is_refused(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6, E2_zero=3))
    for task in PICKUP:
        files["E2-zero", task]["checkpoint"]["hashes"] = {"seed_0": "0" * 64}
    refused(tmp_path, files, r"eval_E2-zero_0\.json: rolled out another checkpoint", spec(run=["E0", "E2", "E2-zero"]))


def test_the_baselines_weights_under_another_name_are_refused(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6, S0=5))
    for task in PICKUP:
        files["S0", task]["checkpoint"]["hashes"] = files["E0", task]["checkpoint"]["hashes"]
    refused(tmp_path, files, "S0 has the same weights as E0", spec(run=["E0", "E2", "S0"]))


def test_a_swapped_file_is_refused(tmp_path):
    path = tmp_path / "eval_E0_0.json"
    path.write_text(json.dumps(content("E2", 0, 5)))
    with pytest.raises(ComparisonError, match=r"holds what eval_E2_0\.json should hold"):
        read_evaluation(path)


def test_a_truncated_or_missing_file_is_refused(tmp_path):
    path = tmp_path / "eval_E0_0.json"
    with pytest.raises(ComparisonError, match="cannot be read"):
        read_evaluation(path)
    path.write_text(json.dumps(content("E0", 0, 5))[:-100])
    with pytest.raises(ComparisonError, match="not a whole JSON file"):
        read_evaluation(path)


def test_what_the_evaluator_writes_can_be_read(tmp_path):
    experiment = load_experiment(default_config())
    settings = experiment.evaluation_spec("E2").model_copy(update={"episodes": EPISODES})
    world = content("E2", 0, 0)["world"]["seed_0"]
    seeds = {"0": {"weights_sha256": sha256("E2 0"), "world": world}}
    write_json(tmp_path / "manifest.json", {"seeds": seeds, "training_budget": {}, "learning_schedule": {}})
    made_from = {
        "versions": {"mujoco": "3.8.1"},
        "option": "E2",
        "task": 0,
        "instruction": "pick up bowl 0",
        "checkpoint_sha256": sha256("E2 0"),
        "protocol_sha256": text_sha256(settings.rollout.protocol.model_dump_json()),
    }
    rows = [{k: v for k, v in episode(0, i, 0, i < 4).items() if k != "video"} for i in range(EPISODES)]
    for i, row in enumerate(rows):
        row |= {"env_seed": env_seed(0, i), "noise_seed": noise_seed(0, i)}
    (tmp_path / "block_0.jsonl").write_text("".join(block_row(Episode(**row), made_from) + "\n" for row in rows))
    path = tmp_path / "eval_E2_0.json"
    collect_evaluation(settings, 0, tmp_path / "manifest.json", [tmp_path / "block_0.jsonl"], tmp_path, path)
    evaluation = read_evaluation(path)
    assert sum(e.success for e in evaluation.episodes) == 4
    assert evaluation.world["seed_0"].gate == world["gate"]
    rows[3]["noise_seed"] += 1
    (tmp_path / "block_0.jsonl").write_text("".join(block_row(Episode(**row), made_from) + "\n" for row in rows))
    with pytest.raises(InputError, match="init state 3: the rollout's noise_seed is"):
        collect_evaluation(settings, 0, tmp_path / "manifest.json", [tmp_path / "block_0.jsonl"], tmp_path, path)
