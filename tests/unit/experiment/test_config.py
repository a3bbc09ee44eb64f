"""The experiment's configuration: what is accepted, and what each mistake is told."""

import copy
import re
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from snakemake.utils import update_config

from scripts.tools.write_schemas import SCHEMAS, schema_text
from world_modality.experiment.config import Experiment, default_config, load_experiment
from world_modality.experiment.sections import ConfigError

REPOSITORY = Path(__file__).parents[3]
CONFIG = REPOSITORY / "config.yaml"
OVERLAYS = sorted((REPOSITORY / "experiments").glob("*.yaml"))
ABSENT = object()


def changed(path, value):
    """The default configuration with the value at a dotted path replaced, or taken out (ABSENT)."""
    config = default_config()
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section[key]
    if value is ABSENT:
        del section[last]
    else:
        section[last] = value
    return config


def refusal(path, value):
    with pytest.raises(ConfigError) as caught:
        load_experiment(changed(path, value))
    return str(caught.value)


def test_the_default_experiment_is_valid():
    experiment = load_experiment(default_config())
    assert experiment.scale == "embedded"


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_every_overlay_is_valid_on_top_of_the_default(overlay):
    config = default_config()
    update_config(config, yaml.safe_load(overlay.read_text()))
    load_experiment(config)


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("trainning", "training"),
        ("training.stepz", "steps"),
        ("simulation.camera_sise", "camera_size"),
        ("decision.on_sucess", "on_success"),
        ("options.E2.camera", "cameras"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(path, nearest):
    assert refusal(path, 1).startswith(f"{path}: unknown key; did you mean {nearest}? valid: ")


@pytest.mark.parametrize("path", ["scale", "training.steps", "policy", "options.S0.label"])
def test_a_missing_key_is_named(path):
    assert refusal(path, ABSENT) == f"{path}: missing"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training", 5),
        ("training.steps", "many"),
        ("training.steps", 1.5),
        ("training.steps", True),
        ("training.learning_rate", None),
        ("evaluation.tasks", 0),
        ("image_keys", []),
        ("options", []),
        ("run", "E0"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_its_key(path, value):
    assert refusal(path, value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("device", "gpu"),
        ("simulation.suite", "libero_90"),
        ("simulation.camera_size", 0),
        ("training.learning_rate", float("nan")),
        ("training.weight_decay", float("inf")),
        ("training.ema_decay", 1.0),
        ("training.seeds", []),
        ("training.seeds", [0, 0]),
        ("evaluation.max_episodes", 0),
        ("evaluation.blocks_per_round", 0),
        ("evaluation.tasks", [0, 1, 1]),
        ("decision.confidence", 0.5),
        ("decision.min_baseline_success", 40),
        ("demonstrations.revision", "the newest"),
        ("options.S0.label", ""),
        ("options.A.cameras", ["wrist", "wrist"]),
    ],
)
def test_an_impossible_value_is_refused_by_its_key(path, value):
    assert refusal(path, value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("demonstrations.source", "hub", "demonstrations: source hub needs repo_id and revision"),
        ("demonstrations.max_attempts_per_task", 1, "demonstrations: max_attempts_per_task is below"),
        ("encoder.source", "hub", "encoder: source hub needs repo_id and revision"),
        ("encoder.image_size", 70, "encoder: image_size 70 is not a multiple of patch_size 16"),
        ("world.heads", 7, "world: prophet_width 128 is not a multiple of heads 7"),
        ("vlm.heads", 3, "vlm: heads 3 is odd"),
        ("training.warmup_steps", 10**6, "training: warmup_steps 1000000 is not below steps"),
        ("training.final_learning_rate", 1.0, "training: final_learning_rate is above learning_rate"),
        ("encoder.repo_id", "a/b", "encoder: source small takes neither repo_id nor revision"),
        ("world.window", 3, "world: window 3: V-JEPA 2 sees frames in pairs"),
        ("world.heads", 16, "world.heads: 16 do not divide the action expert's width, 72"),
        ("options.A.label", "two\nlines", "options.A.label: a line break or a control character; expected one line"),
        ("budget.gpu_hours", 1e-9, "budget.gpu_hours: 1e-09 is finer than a millionth of an hour"),
        ("simulation.suite", "libero_goal", "simulation.suite: the scripted expert knows libero_spatial"),
        ("options.E2.images", "blank", "options.E2: blank images leave the world cameras nothing to see"),
        ("options.E2-zero.images", "blank", "options.E2-zero.images: blank leaves E2's cameras nothing to see"),
        ("evaluation.n_action_steps", 99, "evaluation.n_action_steps 99 is above policy.chunk_size"),
        ("demonstrations.tasks", [10], "demonstrations.tasks: libero_spatial has tasks 0 to 9, not 10"),
        ("decision.pickup_tasks", [2], "decision.pickup_tasks: task 2 is not in evaluation.tasks"),
        ("decision.wrist", "B", "decision.wrist: no option B"),
        ("decision.wrist", "E2", "decision.wrist: E2 is already decision.world"),
        ("decision.wrist", "E2-zero", "decision.wrist: E2-zero is not trained itself"),
        ("decision.world", "S0", "decision.world: S0 has no world modality"),
        ("decision.baseline", "E2", "decision.baseline: E2 has a world modality"),
        ("decision.on_success", ["C"], "decision.on_success[0]: no option C"),
        ("run", ["E0", "S0"], "run: the tree needs E2"),
        ("options.E2-zero.checkpoint_of", "E3", "options.E2-zero.checkpoint_of: no option E3"),
        ("options.E2-zero.checkpoint_of", "E0", "options.E2-zero.memory: E0 has no world modality"),
        ("options.E2-zero.cameras", ["front"], "options.E2-zero: a row with checkpoint_of takes its cameras"),
        ("image_keys", {"front": "a"}, "image_keys: no image key for wrist"),
        ("image_keys", {"front": "a", "wrist": "a"}, "image_keys: two cameras have the same image key"),
    ],
)
def test_a_conflict_between_keys_names_them(path, value, told):
    assert refusal(path, value).startswith(told)


def test_an_option_name_that_would_break_paths_is_refused():
    config = default_config()
    config["options"]["e9/x"] = {"label": "no"}
    with pytest.raises(ConfigError, match=r"options\.e9/x"):
        load_experiment(config)


def test_every_mistake_is_told_at_once():
    config = changed("training.stepz", 1)
    config["device"] = "gpu"
    with pytest.raises(ConfigError) as caught:
        load_experiment(config)
    assert {line.split(":")[0] for line in str(caught.value).splitlines()} == {"training.stepz", "device"}


def test_validation_leaves_the_configuration_as_it_was():
    config = default_config()
    before = copy.deepcopy(config)
    load_experiment(config)
    assert config == before


def leaf_fields(model, prefix=""):
    """(dotted name, field) of every value a person can set; a section's own fields instead of the section."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaf_fields(field.annotation, f"{key}.")
        else:
            yield key, field
            for part in typing.get_args(field.annotation):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    yield from leaf_fields(part, f"{key}.*.")


@pytest.mark.parametrize(("key", "field"), [pytest.param(k, f, id=k) for k, f in leaf_fields(Experiment)])
def test_every_key_has_a_description(key, field):
    assert field.description, key


def test_every_key_of_the_default_experiment_has_a_comment_on_its_line():
    lines = CONFIG.read_text().split("\noptions:")[0].splitlines()
    values = [line for line in lines if re.match(r"\s*[a-z_]+:\s*\S", line)]
    assert len(values) > 60
    assert [line for line in values if not re.search(r"\s# \S|^scale:", line)] == []


@pytest.mark.parametrize(("path", "model"), SCHEMAS.items())
def test_the_schemas_are_what_the_models_say(path, model):
    assert path.read_text() == schema_text(model), "run scripts/tools/write_schemas.py"


# ---- rounds ---------------------------------------------------------------------------------------------------------


def rounds(stopping="adaptive", spread=0.08, **evaluation):
    config = default_config()
    update_config(config, {"decision": {"stopping": stopping}, "simulation": {"spread": spread}})
    update_config(config, {"evaluation": evaluation})
    return load_experiment(config)


def test_rounds_end_at_the_cap():
    experiment = rounds(max_episodes=25, block_size=10)
    assert experiment.rounds() == 3
    assert [experiment.episodes(n) for n in (1, 2, 3)] == [10, 20, 25]
    assert [experiment.blocks(n) for n in (1, 3)] == [[0], [0, 1, 2]]
    assert experiment.block(2) == range(20, 30)  # whole: raising the cap reruns no block


def test_episodes_chosen_beforehand_are_one_round():
    experiment = rounds("fixed", episodes=25, block_size=10)
    assert (experiment.rounds(), experiment.episodes(1), experiment.blocks(1)) == (1, 25, [0, 1, 2])


def test_the_benchmark_ends_after_its_fifty_states():
    experiment = rounds(spread=0, block_size=20)
    assert [experiment.episodes(n) for n in range(1, experiment.rounds() + 1)] == [20, 40, 50]
    assert experiment.block(2) == range(40, 50)


def test_a_look_at_options_that_are_not_compared_is_refused():
    with pytest.raises(ConfigError, match="S0 is not compared with E2; did you mean S0_E0"):
        rounds().look_spec("S0", "E2", rounds=1)


def test_a_look_has_its_share_of_the_level_of_its_family():
    experiment = rounds()
    assert experiment.look_spec("E2", "E0", 1).members == 1
    assert experiment.look_spec("S0", "E0", 1).members == 2
