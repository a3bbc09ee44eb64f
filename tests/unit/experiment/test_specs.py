"""A spec says the same after its journey to a script, and holds no key its artifact does not depend on."""

import copy

import pytest

from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import ConfigError

CONFIG = default_config()
CONFIG["costs"]["embedded"] = copy.deepcopy(CONFIG["costs"]["full"])  # those of its scale, which are not known
SPECS = {
    "record": lambda e: e.record_spec(),
    "train E0": lambda e: e.train_spec("E0"),
    "train E2": lambda e: e.train_spec("E2"),
    "rollout E0": lambda e: e.rollout_spec("E0"),
    "rollout E2-zero": lambda e: e.rollout_spec("E2-zero"),
    "evaluation S0": lambda e: e.evaluation_spec("S0"),
    "look S0 : E0": lambda e: e.look_spec("S0", "E0", rounds=1),
    "judge": lambda e: e.judge_spec(),
    "decision": lambda e: e.decision_spec(),
}


def edited(key, value):
    config = copy.deepcopy(CONFIG)
    *path, last = key.split(".")
    section = config
    for part in path:
        section = section[part]
    section[last] = value
    return load_experiment(config)


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_survives_json(name):
    spec = SPECS[name](load_experiment(CONFIG))
    assert type(spec).model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("key", "value", "changed"),
    [
        ("world.horizon", 4, {"train E2"}),
        ("world.loss_weight", 0.5, {"train E2"}),
        ("training.learning_rate", 1e-4, {"train E0", "train E2"}),
        ("training.seeds", [0, 1], {"judge", "decision"}),  # the plan's stages
        ("budget.gpu_hours", 8, {"judge", "decision"}),
        ("costs.embedded.train.one", 3, {"judge", "decision"}),
        ("costs.embedded.latents.front", 3, set()),  # E2 has made them
        ("costs.full.train.one", 3, set()),  # another scale's
        ("evaluation.max_episodes", 30, {"evaluation S0", "decision"}),
        ("evaluation.blocks_per_round", 3, {"look S0 : E0", "decision"}),
        ("decision.margin", 0.1, {"look S0 : E0", "decision"}),
        ("evaluation.video_size", 64, set()),
        ("decision.min_baseline_success", 0.3, {"decision"}),
        ("demonstrations.seed", 5, {"record"}),
        ("decision.wrist_experiment", "always", {"judge", "decision"}),
        ("options.A.label", "another", {"decision"}),
        ("options.E2.training", {"learning_rate": 1e-3}, {"train E2"}),
        ("training.save_every", 7, set()),
        ("training.loader_workers", 2, set()),
        ("latents.batch_size", 8, set()),
        ("evaluation.n_action_steps", 4, {"rollout E0", "rollout E2-zero", "evaluation S0", "look S0 : E0"}),
        ("evaluation.horizon", 100, {"rollout E0", "rollout E2-zero", "evaluation S0", "look S0 : E0"}),
    ],
)
def test_an_edit_reaches_the_specs_that_depend_on_it_and_no_other(key, value, changed):
    before, after = load_experiment(CONFIG), edited(key, value)
    assert {name for name, spec in SPECS.items() if spec(before) != spec(after)} == changed


def test_what_an_option_changes_at_rollout_reaches_its_rollout():
    experiment = load_experiment(CONFIG)
    assert experiment.rollout_spec("E2").memory == "predicted"
    assert experiment.rollout_spec("E2-zero").memory == "zero"
    assert experiment.rollout_spec("E2-zero").source_option == "E2"
    assert experiment.rollout_spec("S0").images == "blank"


def test_an_option_that_rolls_out_anothers_checkpoint_is_not_trained():
    with pytest.raises(ConfigError, match="E2-zero is not trained: it rolls out the checkpoint of E2"):
        load_experiment(CONFIG).train_spec("E2-zero")


def test_an_unknown_option_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match="no option E2-zer; did you mean E2-zero"):
        load_experiment(CONFIG).rollout_spec("E2-zer")
