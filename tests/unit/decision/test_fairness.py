"""The audit of trained artifacts: what defines an option may differ, and nothing else, each refusal by its key."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from world_modality.artifacts.files import read_json, write_json
from world_modality.decision.evaluations import ComparisonError, Evaluation
from world_modality.decision.fairness import audit, read_trained
from world_modality.experiment.sections import LearningSchedule
from world_modality.training.loop import TrainInputs, train

OPTIONS = ("E0", "E2", "S0")


@pytest.fixture(scope="module")
def trained(experiment, folder, tmp_path_factory):
    """One-step checkpoints of E0, E2 and S0."""
    output = tmp_path_factory.mktemp("checkpoints")
    for option in OPTIONS:
        spec = experiment.train_spec(option)
        spec = spec.model_copy(update={"training": spec.training.model_copy(update={"steps": 2})})
        latents = {"front": folder / "front.parquet"} if spec.cameras else {}
        inputs = TrainInputs(folder / "dataset", folder / "vlm", folder / "encoder" if latents else None, latents)
        train(spec, inputs, 0, output / f"ckpt_{option}" / "seed_0", output / ".training")
    return output


@pytest.fixture
def checkpoints(trained, tmp_path):
    """A copy of the checkpoints that may be tampered with."""
    shutil.copytree(trained, tmp_path / "results")
    return {option: tmp_path / "results" / f"ckpt_{option}" / "seed_0" for option in OPTIONS}


def episode(i):
    numbers = {"init_state_id": i, "env_seed": i, "noise_seed": i, "train_seed": 0, "steps": 9}
    return numbers | {"init_state_sha256": f"{i:064d}", "success": True, "pickup": None}


def evaluation(checkpoint, **changes):
    record = read_json(checkpoint / "training.json")
    option = record["spec"]["option"]
    content = {
        "protocol": {"horizon": 9},
        "checkpoint": {
            "option": option,
            "source_option": option,
            "hashes": {"seed_0": record["weights_sha256"]},
        },
        "task": {"id": 0, "description": "pick up"},
        "rollout": {"noise_stream": 0},
        "suite_tasks": 10,
        "training_budget": {"steps": 2},
        "learning_schedule": {"learning_rate": 1e-3},
        "world": None,
        "episodes": [episode(i) for i in range(3)],
    }
    return Evaluation.model_validate_json(json.dumps(content | changes))


def audited(checkpoints, evaluations=None):
    evaluations = evaluations or [evaluation(folder) for folder in checkpoints.values()]
    return audit(list(checkpoints.values()), evaluations, "E0", "E2")


def edit(name, *keys, value):
    def tamper(folder):
        content = part = read_json(folder / name)
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        write_json(folder / name, content)

    return tamper


def test_options_differ_in_what_defines_them_and_nothing_else(checkpoints):
    found = audited(checkpoints)
    differs = {option: set(found["options"][option]["differs_from"]["E0"]) for option in OPTIONS}
    assert differs["E0"] == set()
    assert all(key == "policy.type" or key.startswith(("policy.world_", "inputs.")) for key in differs["E2"])
    assert {"policy.type", "policy.world_image_keys", "inputs.encoder"} <= differs["E2"]
    assert all(key.startswith("preprocessor.blank_images.") for key in differs["S0"])
    assert differs["S0"]
    assert found["options"]["E2"]["differs_from"]["E2"] == {}
    assert {"training.optimizer.lr", "training.steps", "inputs.dataset", "policy.chunk_size"} <= set(found["shared"])


def change_statistics(folder):
    path = next(folder.glob("policy_preprocessor_step_*_normalizer_processor.safetensors"))
    tensors = load_file(path)
    name = next(key for key in tensors if "action" in key and "mean" in key)
    save_file(tensors | {name: tensors[name] + 0.01}, path)


TAMPERED = {
    "training.optimizer.lr is 0.5": edit("train_config.json", "optimizer", "lr", value=0.5),
    "training.scheduler.num_warmup_steps is 99": edit("train_config.json", "scheduler", "num_warmup_steps", value=99),
    "training.batch_size is 1": edit("train_config.json", "batch_size", value=1),
    "training.steps is 1": edit("train_config.json", "steps", value=1),
    "training.seed is 9": edit("train_config.json", "seed", value=9),
    "inputs.dataset is 'other'": edit("training.json", "inputs", "dataset", value="other"),
    "inputs.vlm is 'other'": edit("training.json", "inputs", "vlm", value="other"),
    "inputs.policy is 'other'": edit("training.json", "inputs", "policy", value="other"),
    "training.precision is 'bf16'": edit("training.json", "spec", "training", "precision", value="bf16"),
    "training.ema_decay is 0": edit("training.json", "spec", "training", "ema_decay", value=0),
    "policy.chunk_size is 50": edit("config.json", "chunk_size", value=50),
    "postprocessor.unnormalizer_processor.config.eps is 1": edit(
        "policy_postprocessor.json", "steps", 0, "config", "eps", value=1
    ),
    "preprocessor.normalizer_processor.statistics is": change_statistics,
}


def change_steps(change):
    """Change the steps of the preprocessor by their names."""

    def tamper(folder):
        content = read_json(folder / "policy_preprocessor.json")
        named = {step["registry_name"]: step for step in content["steps"]}
        order = [step["registry_name"] for step in content["steps"]]
        content["steps"] = [named.get(name, {"registry_name": name, "config": {}}) for name in change(order)]
        write_json(folder / "policy_preprocessor.json", content)

    return tamper


def swapped(order, one="normalizer_processor", other="device_processor"):
    return [{one: other, other: one}.get(name, name) for name in order]


def unblanked(order):
    return [name for name in order if name != "blank_images"]


STEPS = {
    "a step twice": (lambda order: [*order, "normalizer_processor"], "preprocessor.normalizer_processor#2."),
    "two steps swapped": (swapped, "preprocessor.order is ['"),
    "a step less": (lambda order: [n for n in order if n != "tokenizer_processor"], "preprocessor.order is ['"),
    "blanked twice": (lambda order: ["blank_images"] * 2 + unblanked(order), "preprocessor.blank_images#2."),
    "blanked at the end": (lambda order: [*unblanked(order), "blank_images"], "preprocessor.order is ['"),
}


@pytest.mark.parametrize(("change", "message"), STEPS.values(), ids=list(STEPS))
def test_another_order_or_number_of_steps_is_refused_by_name(checkpoints, change, message):
    change_steps(change)(checkpoints["S0"])
    with pytest.raises(ComparisonError) as error:
        audited(checkpoints)
    assert f"ckpt_S0/seed_0: {message}" in str(error.value)


def test_a_step_without_a_registered_name_goes_by_its_class(checkpoints):
    for folder in checkpoints.values():
        content = read_json(folder / "policy_postprocessor.json")
        content["steps"].append({"class": "somewhere.Step", "config": {}})
        write_json(folder / "policy_postprocessor.json", content)
    assert audited(checkpoints)["shared"]["postprocessor.order"][-1] == "somewhere.Step"


@pytest.mark.parametrize("message", TAMPERED)
@pytest.mark.parametrize("option", ["E2", "S0"])
def test_any_other_difference_is_refused_by_its_key(checkpoints, option, message):
    TAMPERED[message](checkpoints[option])
    with pytest.raises(ComparisonError) as error:
        audited(checkpoints)
    assert message in str(error.value)
    assert f"ckpt_{option}" in str(error.value)
    assert "\n" not in str(error.value)


def test_one_other_initial_state_is_refused(checkpoints):
    evaluations = [evaluation(folder) for folder in checkpoints.values()]
    moved = [episode(0), episode(1), episode(2) | {"init_state_sha256": "f" * 64}]
    evaluations[1] = evaluation(checkpoints["E2"], episodes=moved)
    with pytest.raises(ComparisonError, match="initial state 2 of training seed 0: init_state_sha256 is ffff"):
        audited(checkpoints, evaluations)


def test_options_whose_comparisons_stopped_at_different_times_are_audited(checkpoints):
    lengths = dict(zip(OPTIONS, (3, 2, 1), strict=True))
    evaluations = [evaluation(f, episodes=[episode(i) for i in range(lengths[o])]) for o, f in checkpoints.items()]
    assert set(audited(checkpoints, evaluations)["options"]) == set(OPTIONS)


def test_an_evaluation_of_other_weights_is_refused(checkpoints):
    evaluations = [evaluation(folder) for folder in checkpoints.values()]
    edit("training.json", "weights_sha256", value="0" * 64)(checkpoints["S0"])
    with pytest.raises(ComparisonError, match=r"eval_S0_0\.json: rolled out weights .* but .*seed_0 has 0000"):
        audited(checkpoints, evaluations)


def test_a_checkpoint_that_was_not_given_is_missed(checkpoints):
    evaluations = [evaluation(folder) for folder in checkpoints.values()]
    del checkpoints["S0"]
    with pytest.raises(ComparisonError, match="the checkpoint of S0, seed_0, was not audited"):
        audited(checkpoints, evaluations)


def test_a_learning_schedule_of_ones_own_may_differ_where_its_row_says_so(experiment, checkpoints):
    edit("train_config.json", "optimizer", "lr", value=0.5)(checkpoints["S0"])
    edit("training.json", "spec", "own_schedule", value=["learning_rate"])(checkpoints["S0"])
    differs = audited(checkpoints)["options"]["S0"]["differs_from"]["E0"]
    assert differs["training.optimizer.lr"] == [0.5, read_trained(checkpoints["E0"]).facts["training.optimizer.lr"]]
    option = experiment.options["A"].model_copy(update={"training": LearningSchedule(learning_rate=1e-4)})
    options = experiment.model_copy(update={"options": experiment.options | {"A": option}})
    assert options.train_spec("A").own_schedule == ("learning_rate",)
    assert experiment.train_spec("E0").own_schedule == ()


def test_an_incomplete_checkpoint_is_named(checkpoints):
    Path(checkpoints["E0"] / "train_config.json").unlink()
    with pytest.raises(ComparisonError, match=r"train_config\.json is missing"):
        audited(checkpoints)
