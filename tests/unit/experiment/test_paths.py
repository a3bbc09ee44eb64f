"""Where artifacts lie: one path with values, a rule's pattern without; no two artifacts share a place."""

import inspect

import pytest

from world_modality.experiment import paths

VALUES = {"option": "E2", "table": "wrist_m8", "figure": "plan", "name": "plan", "seed": 1, "task": 0, "block": 3}
VALUES |= {"reference": "E0", "round": 2}
JOBS = ("log", "benchmark", "training_job", "block_job", "task_job", "look_job", "preflight")
ARTIFACTS = {
    name: function
    for name, function in inspect.getmembers(paths, inspect.isfunction)
    if name not in JOBS and function.__module__ == paths.__name__
}


def values_of(function):
    return {name: VALUES[name] for name in inspect.signature(function).parameters}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_a_rules_pattern_filled_in_is_the_path_of_these_values(name):
    function = ARTIFACTS[name]
    assert function().format(**VALUES) == function(**values_of(function))


def test_a_checkpoint_lies_where_people_look_for_it():
    assert paths.checkpoint("E2", 0) == "results/ckpt_E2/seed_0"
    assert paths.checkpoint() == "results/ckpt_{option}/seed_{seed}"
    assert paths.latents("wrist") == "results/latents_wrist.parquet"
    assert paths.look("A", "E0", 2) == "results/looks/A_E0/round_2.json"
    assert paths.evaluation("A", 1) == "results/eval_A_1.json"
    assert paths.block_attention("A", 0, 1, 2) == "results/rollouts/A/seed_0/task_1/block_2_attention.parquet"
    assert paths.DECISION_TEXT == "results/decision.txt"


def test_no_two_artifacts_lie_in_one_place():
    constants = [value for name, value in vars(paths).items() if name.isupper() and isinstance(value, str)]
    places = [*constants, *(function(**values_of(function)) for function in ARTIFACTS.values())]
    assert len(set(places)) == len(places)


def test_a_job_without_wildcards_has_one_log():
    assert paths.log("decide") == "logs/decide.log"
    assert paths.log("train_policy", paths.training_job()) == "logs/train_policy/{option}_seed_{seed}.log"
    assert paths.benchmark("train_policy", paths.training_job("E0", 1)) == "benchmarks/out/train_policy/E0_seed_1.tsv"
