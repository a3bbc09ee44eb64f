"""The tree: every token, its precedence, every refusal, and the text a person reads."""

import argparse
import copy
import hashlib
import json
import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from world_modality.artifacts.files import text_sha256, write_json
from world_modality.artifacts.provenance import making
from world_modality.decision.evaluations import ComparisonError, read_evaluation
from world_modality.decision.paired import paired_test
from world_modality.decision.pairs import Differences
from world_modality.decision.tree import Pickup, Verdict, decide, judge_pickup, plan_branch
from world_modality.errors import InputError
from world_modality.evaluation.episodes import Episode, block_row, collect_evaluation
from world_modality.examination.foresight import Foresight
from world_modality.experiment.branches import judged_options
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.plan import Plan
from world_modality.experiment.sections import Figures, Tree
from world_modality.experiment.seeds import env_seed, noise_seed
from world_modality.experiment.specs import DecisionSpec, JudgeSpec, spec_argument
from world_modality.report.decision_text import WIDTH, render
from world_modality.report.figures import plot_success, save
from world_modality.simulation.pickup import STAGES

REPOSITORY = Path(__file__).parents[3]
OPTIONS = {
    "E0": {"label": "SmolVLA baseline"},
    "E1": {"label": "capacity control", "cameras": ["front"], "memory": "zero"},
    "E2": {"label": "predicted futures of the front camera", "cameras": ["front"]},
    "A": {"label": "predicted futures of the wrist camera", "cameras": ["wrist"]},
    "C": {"label": "predicted futures of both cameras", "cameras": ["front", "wrist"]},
    "B": {"label": "E2 with the wrist camera", "checkpoint_of": "E2", "rollout_cameras": ["wrist"]},
    "E2-zero": {"label": "E2 with its memory zeroed at rollout", "checkpoint_of": "E2", "memory": "zero"},
    "S0": {"label": "state-only baseline, every image black", "images": "blank"},
}
OPTIONS["E0-again"] = {"label": "E0 under other noise", "checkpoint_of": "E0", "rollout_noise": 1}
OPTIONS["E0-blind"] = {"label": "E0 with every image black", "checkpoint_of": "E0", "images": "blank"}
AUDITED = {"baseline": "E0", "world": "E2", "options": dict.fromkeys(OPTIONS)}
PICKUP = (0, 1)
EPISODES = 10  # per task and training seed


def plan(run, gpu_hours=None):
    """Each wrist option is one stage of ten hours."""
    names = [name for name in ("A", "B", "C") if name not in run]
    stages = [{"name": f"eval_{name}", "kind": "evaluate", "hours": 10, "after": []} for name in names]
    candidates = [{"name": name, "ends": [f"eval_{name}"]} for name in names]
    return {"scale": "smoke", "gpu_hours": gpu_hours, "gpus": 1, "stages": stages, "candidates": candidates}


def spec(run=("E0", "E2"), gpu_hours=None, **decision):
    roles = {"baseline": "E0", "world": "E2", "wrist": "A", "fusion": "C", "pickup_tasks": list(PICKUP)}
    choices = {"wrist_experiment": "if_world_hurts", "on_hurt": ["A"], "on_success": []}
    thresholds = {"min_baseline_success": 0.2, "confidence": 0.90, "margin": 0.1, "min_world_effect": 1e-3}
    thresholds |= {"stopping": "fixed", "power": 0.8, "when_inconclusive": "keep_baseline"}
    decision = roles | choices | thresholds | decision
    rows = {name: {k: v for k, v in row.items() if k != "label"} for name, row in OPTIONS.items()}
    labels = {name: row["label"] for name, row in OPTIONS.items()}
    made = {"decision": decision, "options": rows, "run": run, "plan": plan(run, gpu_hours)}
    made |= {"labels": labels, "scale": "embedded"}
    return spec_argument(DecisionSpec)(json.dumps(made))


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def episode(task, init_state_id, train_seed, success):
    return {
        "init_state_id": init_state_id,
        "init_state_sha256": sha256(f"{task} {init_state_id}"),
        "env_seed": 1000 * task + init_state_id,
        "noise_seed": 2000 * task + init_state_id,
        "train_seed": train_seed,
        "success": success,
        "steps": 90 if success else 220,
        "pickup": pickup(20, 30),
        "video": None,
    }


def pickup(*steps, furthest="touched"):
    return {
        "furthest": furthest,
        "stage_steps": dict(zip(STAGES, steps, strict=False)),
        "grasp_attempts": 1,
        "slips": 0,
        "contact_to_closing": -8,
    }


def content(option, task, successes, train_seeds=(0,)):
    """An evaluation file: the first `successes` initial states of the task succeed."""
    source = OPTIONS[option].get("checkpoint_of", option)
    path = {"gate": 0.1, "action_change_rms": 0.02, "world_loss": 0.3, "copy_last": 0.4}
    return {
        "protocol": {"simulation": {"suite": "libero_spatial"}, "horizon": 220, "versions": {"torch": "2.11.0"}},
        "checkpoint": {
            "option": option,
            "source_option": source,
            "hashes": {f"seed_{seed}": sha256(f"{source} {seed}") for seed in train_seeds},
        },
        "rollout": {"noise_stream": 0},
        "suite_tasks": 10,
        "task": {"id": task, "description": f"pick up bowl {task}"},
        "world": {f"seed_{seed}": path for seed in train_seeds} if OPTIONS[source].get("cameras") else None,
        "training_budget": {"steps": 3200, "samples": 102400},
        "learning_schedule": {"learning_rate": 1.5e-3},
        "episodes": [episode(task, i, seed, i < successes) for seed in train_seeds for i in range(EPISODES)],
    }


def contents(tasks=PICKUP, train_seeds=(0,), **successes):
    """{(option, task): file content} with the same number of successes on each task."""
    named = {name.replace("_", "-"): count for name, count in successes.items()}
    return {(o, t): content(o, t, count, train_seeds) for o, count in named.items() for t in tasks}


def read(folder, files):
    paths = [folder / f"eval_{option}_{task}.json" for option, task in files]
    for path, file in zip(paths, files.values(), strict=True):
        path.write_text(json.dumps(file))
    return [read_evaluation(path) for path in paths]


def foresight(option, prophet=0.9, copy_last=0.8):
    """What `prophet_<option>.json` says of one Prophet and four held-out episodes."""
    cosines = {"prophet": prophet, "copy_last": copy_last, "mean_delta": 0.7}
    view = {"steps": [{"k": 1, "frames": 9, **cosines}], "mean": cosines, "episodes": 4, "episodes_better": 3}
    cameras = OPTIONS[option]["cameras"]
    views = dict.fromkeys([*cameras, *(["all"] if len(cameras) > 1 else [])], view)
    sizes = {"window": 4, "history": 4, "horizon": 1, "training_episodes": 9}
    held_out = [{"episode": i, "frames": 3} for i in range(4)]
    keys = {camera: f"images.{camera}" for camera in cameras}
    names = {"option": option, "cameras": cameras, "image_keys": keys}
    return Foresight(**names, **sizes, held_out=held_out, seeds={0: views}, overall=views)


def decided(folder, settings, files, foresights=()):
    """Through the checkpoint and to the end, as the pipeline goes."""
    evaluations = read(folder, files)
    return decide(*judged(evaluations, settings), evaluations, settings, AUDITED, foresights)


def judged(evaluations, settings):
    """What the checkpoint makes of those it reads: pickup and plan."""
    options, tasks = judged_options(settings), settings.decision.pickup_tasks
    seen = [e for e in evaluations if e.option in options and e.task.id in tasks]
    pickup = judge_pickup(seen, settings)
    return pickup, plan_branch(pickup.branch, settings)


# ---- the checkpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "branch"), [(6, "success"), (5, "success"), (4, "wrist")])
def test_the_branch_is_success_where_world_is_at_least_as_good(tmp_path, world, branch):
    assert judge_pickup(read(tmp_path, contents(E0=5, E2=world)), spec()).branch == branch


def test_successes_are_pooled_over_the_pickup_tasks(tmp_path):
    files = contents(E0=5, E2=5)
    files["E2", 0] = content("E2", 0, 2)
    files["E2", 1] = content("E2", 1, 8)
    pickup = judge_pickup(read(tmp_path, files), spec())
    assert pickup.branch == "success"
    assert pickup.options["E2"].pooled.successes == 10
    assert {task: c.successes for task, c in pickup.options["E2"].tasks.items()} == {0: 2, 1: 8}


@pytest.mark.parametrize(
    ("world", "choices", "scheduled"),
    [
        (6, {}, []),
        (4, {}, ["A"]),
        (6, {"wrist_experiment": "always"}, ["A"]),
        (6, {"on_success": ["C"]}, ["C"]),
        (4, {"on_success": ["C"]}, ["A"]),
        (6, {"on_success": ["C"], "wrist_experiment": "always"}, ["A", "C"]),
        (4, {"on_hurt": ["A", "B", "C"], "on_success": ["C"]}, ["A", "B", "C"]),
        (4, {"on_hurt": ["C", "A"], "gpu_hours": 10}, ["C"]),
        (6, {"on_hurt": ["A", "B"], "gpu_hours": 9}, []),
        (4, {"on_hurt": ["A", "B"], "gpu_hours": 9}, []),
    ],
)
def test_only_what_the_branch_asks_for_is_scheduled(tmp_path, world, choices, scheduled):
    assert judge_pickup(read(tmp_path, contents(E0=5, E2=world)), spec(**choices)).scheduled == scheduled


def test_an_option_that_already_ran_is_not_scheduled_again(tmp_path):
    settings = spec(run=["E0", "E2", "A"])
    assert judge_pickup(read(tmp_path, contents(E0=5, E2=4)), settings).scheduled == []


def test_the_checkpoint_reads_the_two_it_compares_and_the_ablations_of_the_world_option():
    assert judged_options(spec(run=["E0", "E2", "E2-zero", "S0", "E0-blind"])) == ["E0", "E2", "E2-zero"]


def test_running_the_wrist_experiment_always_leaves_the_branch_as_it_is(tmp_path):
    evaluations = read(tmp_path, contents(E0=5, E2=6))
    assert judge_pickup(evaluations, spec(wrist_experiment="always")).branch == "success"


def test_the_checkpoint_takes_nothing_but_the_pickup_tasks_of_the_options_in_run(tmp_path):
    for files in (contents(E0=5, E2=4, S0=5), contents(E0=5, E2=4, tasks=[0, 1, 2])):
        with pytest.raises(ComparisonError, match="not asked for"):
            judge_pickup(read(tmp_path, files), spec())


# ---- the tokens -----------------------------------------------------------------------------------------------------

TOKENS = [
    ("VOID_BASELINE_TOO_WEAK", {"E0": 1, "E2": 9}),
    ("VOID_BASELINE_TOO_WEAK", {"E0": 1, "E2": 0, "A": 9, "C": 9}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 2, "E2": 2}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 5, "E2": 6}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 5, "E2": 6, "A": 9}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 5, "E2": 6, "C": 6}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 6, "C": 7}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 6, "A": 9, "C": 7}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 4, "A": 3, "C": 5}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 4, "A": 6, "C": 7}),
    ("ADOPT_WRIST", {"E0": 5, "E2": 4, "A": 5}),
    ("ADOPT_WRIST", {"E0": 5, "E2": 4, "A": 6, "C": 6}),
    ("ADOPT_WRIST", {"E0": 5, "E2": 4, "A": 6, "C": 4}),
    ("KEEP_BASELINE", {"E0": 5, "E2": 4, "A": 4}),
    ("KEEP_BASELINE", {"E0": 5, "E2": 4, "A": 4, "C": 4}),
]


@pytest.mark.parametrize(("token", "successes"), TOKENS)
def test_each_token_follows_from_the_pooled_successes(tmp_path, token, successes):
    verdict = decided(tmp_path, spec(run=list(successes)), contents(**successes))
    assert verdict.token == token
    assert render(verdict).splitlines()[0] == token


def test_a_budget_that_leaves_the_wrist_options_out_leaves_the_experiment_pending(tmp_path):
    verdict = decided(tmp_path, spec(gpu_hours=9), contents(E0=5, E2=4))
    assert verdict.scheduled == []
    assert render(verdict).splitlines()[0] == "WRIST_EXPERIMENT_PENDING"


def test_a_budget_for_nothing_but_a_rollout_leaves_the_experiment_pending(tmp_path):
    settings = spec(on_hurt=["B", "A"], gpu_hours=10)
    verdict = decided(tmp_path, settings, contents(E0=5, E2=4, B=9))
    assert verdict.scheduled == ["B"]
    assert render(verdict).splitlines()[0] == "WRIST_EXPERIMENT_PENDING"


def test_without_a_wrist_run_the_fusion_alone_can_be_adopted(tmp_path):
    settings = spec(run=["E0", "E2", "C"], gpu_hours=9)
    assert decided(tmp_path, settings, contents(E0=5, E2=4, C=5)).token == "ADOPT_FUSION"


def test_a_borrowed_checkpoint_is_never_adopted(tmp_path):
    files = contents(E0=5, E2=4, A=3, E2_zero=10)
    assert decided(tmp_path, spec(run=["E0", "E2", "E2-zero"]), files).token == "KEEP_BASELINE"


def test_tasks_beside_the_pickup_tasks_do_not_decide(tmp_path):
    files = contents(E0=5, E2=6) | {("E0", 5): content("E0", 5, 10), ("E2", 5): content("E2", 5, 0)}
    verdict = decided(tmp_path, spec(), files)
    assert verdict.token == "WORLD_HELPS_OR_NEUTRAL"
    assert verdict.option("E2").all_tasks.episodes == 30


# ---- refusals -------------------------------------------------------------------------------------------------------


def refused(folder, files, message, settings=None):
    with pytest.raises(ComparisonError, match=message) as error:
        decided(folder, settings or spec(), files)
    assert "\n" not in str(error.value)


def test_a_missing_task_is_refused(tmp_path):
    files = contents(E0=5, E2=6)
    del files["E2", 1]
    refused(tmp_path, files, r"eval_E2_1\.json: missing")


def test_a_scheduled_option_that_was_not_evaluated_is_refused(tmp_path):
    refused(tmp_path, contents(E0=5, E2=4), r"eval_A_0\.json: missing")


def test_an_option_nobody_asked_for_is_refused(tmp_path):
    refused(tmp_path, contents(E0=5, E2=6, S0=5), r"eval_S0_0\.json: not asked for")


def test_an_evaluation_given_twice_is_refused(tmp_path):
    evaluations = read(tmp_path, contents(E0=5, E2=6))
    with pytest.raises(ComparisonError, match=r"eval_E0_0\.json: given twice"):
        judge_pickup([*evaluations, evaluations[0]], spec())


def change(key, value, inside="episodes"):
    """An edit of one key: of the fourth episode, or of a part of the file."""

    def edit(file):
        part = file["episodes"][3] if inside == "episodes" else file[inside] if inside else file
        part[key] = value

    return edit


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


def test_a_pickup_that_does_not_follow_from_the_evaluations_is_refused(tmp_path):
    stale = judged(read(tmp_path, contents(E0=5, E2=6)), spec())
    evaluations = read(tmp_path, contents(E0=5, E2=4))
    with pytest.raises(ComparisonError, match="branch does not follow"):
        decide(*stale, evaluations, spec(), AUDITED)
    overfull = scheduling(evaluations, ["S0"])
    with pytest.raises(ComparisonError, match="S0 is scheduled, but the tree asks for"):
        decide(*overfull, read(tmp_path, contents(E0=5, E2=4, S0=1)), spec(), AUDITED)
    with pytest.raises(ComparisonError, match="A is not scheduled, but the plan chooses"):
        decide(*scheduling(evaluations, []), evaluations, spec(), AUDITED)


def scheduling(evaluations, scheduled):
    """A pickup and a plan that agree on what was scheduled."""
    pickup, plan = judged(evaluations, spec())
    return pickup.model_copy(update={"scheduled": scheduled}), plan.model_copy(update={"chosen": scheduled})


def test_a_plan_that_is_not_what_was_scheduled_is_refused(tmp_path):
    evaluations = read(tmp_path, contents(E0=5, E2=4, A=6))
    pickup, plan = judged(evaluations, spec())
    with pytest.raises(ComparisonError, match=r"plan.json: chose \[\], but pickup.json schedules \['A'\]"):
        decide(pickup, plan.model_copy(update={"chosen": []}), evaluations, spec(), AUDITED)


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"world": "A"}, "run: the tree needs A"),
        ({"wrist_experiment": "never"}, r"decision\.wrist_experiment: "),
        ({"confidence": 95.0}, r"decision\.confidence: Input should be less than or equal to 0.999"),
    ],
)
def test_a_spec_the_tree_cannot_run_with_is_refused(decision, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        spec(**decision)


def test_an_option_in_run_without_a_row_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="no option E9; valid: E0, E1, E2"):
        spec(run=("E0", "E2", "E9"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "S0"}, "audited against S0 and E2"),
        ({"options": {"E0": {}}}, "the checkpoint of E2 was not audited"),
    ],
)
def test_an_audit_of_something_else_is_refused(tmp_path, change, message):
    evaluations = read(tmp_path, contents(E0=5, E2=6))
    with pytest.raises(ComparisonError, match=message):
        decide(*judged(evaluations, spec()), evaluations, spec(), AUDITED | change)


@pytest.mark.parametrize("text", ["", "{}", '{"branch": "left"}'])
def test_a_malformed_pickup_is_refused(tmp_path, text):
    (tmp_path / "pickup.json").write_text(text)
    with pytest.raises(InputError, match=r"pickup\.json: not "):
        Pickup.read(tmp_path / "pickup.json")


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


# ---- what is reported -----------------------------------------------------------------------------------------------

RUN = ["E0", "E2", "E2-zero", "S0"]


def wrist_verdict(folder, **successes):
    return decided(folder, spec(run=RUN), contents(**({"E0": 6, "E2": 4, "E2_zero": 2, "S0": 5, "A": 7} | successes)))


def p_worse(wins, losses, ties):
    return paired_test(Differences.of_counts(wins, losses, ties), 0.05).p_value(0.0, "below")


def p_non_inferior(wins, losses, ties):
    return paired_test(Differences.of_counts(wins, losses, ties), 0.05).p_value(-0.1, "above")


def test_every_trained_option_is_compared_with_the_baseline_and_every_ablation_with_its_source(tmp_path):
    compared = [(c.option, c.reference, c.family) for c in wrist_verdict(tmp_path).comparisons]
    assert compared == [
        ("E2", "E0", "primary"),
        ("S0", "E0", "controls"),
        ("A", "E0", "adoption"),
        ("E2-zero", "E2", "controls"),
    ]


def test_the_paired_table_counts_the_episodes_of_the_pickup_tasks(tmp_path):
    main = wrist_verdict(tmp_path).comparisons[0]
    assert (main.both, main.only_reference, main.only_option, main.neither) == (8, 4, 0, 8)
    assert main.success.difference == pytest.approx(-0.2)
    assert main.success.p_worse == pytest.approx(p_worse(wins=0, losses=4, ties=16))
    assert main.correlation == pytest.approx((8 * 8 - 4 * 0) / math.sqrt(12 * 8 * 8 * 12))


def test_p_values_are_corrected_within_their_family_and_the_primary_one_stands_by_itself(tmp_path):
    by_pair = {(c.option, c.reference): c.success for c in wrist_verdict(tmp_path, S0=1, E2_zero=0).comparisons}
    assert by_pair["E2", "E0"].p_worse == pytest.approx(p_worse(0, 4, 16))
    assert by_pair["A", "E0"].p_worse == 1
    assert by_pair["S0", "E0"].p_worse == pytest.approx(2 * p_worse(0, 10, 10))  # the smaller of two
    assert by_pair["E2-zero", "E2"].p_worse == pytest.approx(p_worse(0, 8, 12))


@pytest.mark.parametrize(
    ("world", "conclusion", "action"),
    [(10, "NON_INFERIOR", None), (0, "INFERIOR", None), (4, "INCONCLUSIVE", "keep E0")],
)
def test_the_second_line_says_what_the_branch_is_worth(tmp_path, world, conclusion, action):
    verdict = decided(tmp_path, spec(), contents(E0=5, E2=world, **({} if world > 5 else {"A": 5})))
    line = render(verdict).splitlines()[1]
    assert line.startswith(f"{conclusion}  E2 : E0  branch {'success' if world > 5 else 'wrist'}  bare rule errs ")
    assert f"{100 * verdict.worth.bare_rule_error:.0f}% (N 20" in line
    assert line.endswith(f"default: {action}") == bool(action)


@pytest.mark.parametrize(
    ("declared", "said"),
    [("keep_baseline", "keep E0"), ("follow_branch", "follow the branch"), ("extend", "evaluate more")],
)
def test_what_is_declared_for_an_open_question_is_said_and_changes_nothing(tmp_path, declared, said):
    files = contents(E0=5, E2=4, A=5)
    verdict = decided(tmp_path, spec(when_inconclusive=declared), files)
    assert f"default: {said}" in render(verdict)
    assert verdict.token == "ADOPT_WRIST"


def test_an_evaluation_may_be_looked_at_any_time_where_that_was_chosen(tmp_path):
    files = contents(E0=9, E2=4, A=9)
    fixed, anytime = (decided(tmp_path, spec(stopping=stopping), files) for stopping in ("fixed", "anytime"))
    assert anytime.primary.success.p_worse > fixed.primary.success.p_worse
    assert "valid however often one looks" in " ".join(render(anytime).split())


def test_progress_is_judged_like_success(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=4, A=5))
    for task in PICKUP:
        for row in files["E0", task]["episodes"]:
            row["pickup"] = pickup(1, 2, 3, furthest="grasped")
    primary = decided(tmp_path, spec(), files).primary
    assert (primary.success.conclusion, primary.progress.conclusion) == ("INCONCLUSIVE", "INFERIOR")


@pytest.mark.parametrize("key", ["gate", "action_change_rms"])
def test_a_world_path_that_hardly_acts_is_called_inactive(tmp_path, key):
    files = copy.deepcopy(contents(E0=5, E2=6, E2_zero=6))
    for (option, _), file in files.items():
        if option != "E0":
            file["world"]["seed_0"][key] = 9e-4
    verdict = decided(tmp_path, spec(run=["E0", "E2", "E2-zero"]), files)
    assert [option.name for option in verdict.options if option.world_inactive] == ["E2"]
    assert "world path inactive: E2." in render(verdict)
    assert "9.00e-04" in render(verdict)


@pytest.mark.parametrize(("gate", "inactive"), [(1e-3, []), (9e-4, ["E1"])])
def test_of_a_path_trained_on_a_memory_of_zeros_the_gate_alone_is_asked(tmp_path, gate, inactive):
    files = copy.deepcopy(contents(E0=5, E1=5, E2=6))
    for task in PICKUP:
        files["E1", task]["world"]["seed_0"] |= {"gate": gate, "action_change_rms": 0.0}
    verdict = decided(tmp_path, spec(run=["E0", "E1", "E2"]), files)
    assert [option.name for option in verdict.options if option.world_inactive] == inactive


def test_a_living_world_path_is_reported_without_the_warning(tmp_path):
    text = render(wrist_verdict(tmp_path))
    assert "world path inactive" not in text
    assert "E2 seed_0" in text
    assert "A seed_0" in text


def test_how_far_each_pickup_came_stands_beside_the_successes(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6))
    for row in files["E2", 0]["episodes"][:6]:
        row["pickup"] = pickup(1, 2, 3, 4, 5, 6, furthest="placed") | {"slips": 2}
    files["E0", 0]["episodes"][9]["pickup"] = pickup(1, 2, 3, furthest="grasped")
    files["E2", 1]["episodes"][0]["pickup"] = pickup(furthest=None)
    verdict = decided(tmp_path, spec(), files)
    found = verdict.option("E2").progress
    assert {stage: n for stage, n in found.furthest.items() if n} == {"none": 1, "touched": 13, "placed": 6}
    assert found.slips == 12
    comparison = verdict.comparisons[0]
    assert (comparison.progress.wins, comparison.progress.losses, comparison.progress.ties) == (6, 2, 12)
    assert comparison.progress.p_non_inferior == pytest.approx(p_non_inferior(6, 2, 12))
    assert "E2 : E0      6    2     12" in render(verdict)


def again(files, stream=1):
    """E0 under other noise."""
    files = copy.deepcopy(files)
    for task in PICKUP:
        files["E0-again", task]["rollout"]["noise_stream"] = stream
        for row in files["E0-again", task]["episodes"]:
            row["noise_seed"] += 1
    return files


def test_a_policy_may_be_compared_with_itself_under_other_noise(tmp_path):
    files = again(contents(E0=5, E2=6, E0_again=4))
    verdict = decided(tmp_path, spec(run=["E0", "E2", "E0-again"]), files)
    assert verdict.comparison("E0-again", "E0").success.losses == 2
    assert "E0-again is E0 itself under other noise, and differs from it by -10.0 points in 2 pairs" in " ".join(
        render(verdict).split()
    )


def test_other_noise_than_the_row_says_is_refused(tmp_path):
    files = contents(E0=5, E2=6, E0_again=4)
    with pytest.raises(ComparisonError, match=r"eval_E0-again_0\.json: rolled out under noise stream 0, not 1"):
        decided(tmp_path, spec(run=["E0", "E2", "E0-again"]), files)
    files = again(files, stream=0)
    with pytest.raises(ComparisonError, match=r"eval_E0-again_0\.json: .*noise"):
        decided(tmp_path, spec(run=["E0", "E2", "E0-again"]), files)


def test_tasks_without_a_pickup_leave_its_stages_out(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6))
    for file in files.values():
        for row in file["episodes"]:
            row["pickup"] = None
    verdict = decided(tmp_path, spec(), files)
    assert verdict.option("E2").progress is None
    assert "HOW FAR" not in render(verdict)


@pytest.mark.parametrize(("state_only", "said"), [(6, True), (5, False)])
def test_a_state_only_baseline_as_good_as_the_baseline_is_pointed_out(tmp_path, state_only, said):
    text = render(wrist_verdict(tmp_path, S0=state_only))
    assert ("these initial states cannot show which camera is better" in " ".join(text.split())) == said


def test_a_blind_baseline_is_not_compared_with_itself(tmp_path):
    settings = spec(run=["E0", "E2", "S0"], baseline="S0")
    audited = AUDITED | {"baseline": "S0"}
    evaluations = read(tmp_path, contents(E0=5, E2=6, S0=5))
    text = render(decide(*judged(evaluations, settings), evaluations, settings, audited))
    assert "cannot show which camera" not in " ".join(text.split())


def test_episodes_of_several_seeds_on_one_initial_state_are_a_cluster(tmp_path):
    files = contents(E0=5, E2=6, train_seeds=(0, 1))
    text = " ".join(render(decided(tmp_path, spec(), files)).split())
    assert "episodes from one initial state are a cluster" in text
    assert "2.00 pairs are worth one independent pair" in text
    assert "compares checkpoints, not methods" not in text


def test_a_wrist_option_run_beside_a_success_is_said_so(tmp_path):
    text = render(decided(tmp_path, spec(wrist_experiment="always"), contents(E0=5, E2=6, A=9)))
    assert "A was run although this branch does not ask for it (wrist_experiment: always)" in text
    assert "A : E0" in text


GOLDEN = """\
ADOPT_WRIST
INFERIOR  E2 : E0  branch wrist  bare rule errs 40% (N 20, r 0.67)

E2 does worse than E0 on pickup, and A, which predicts the wrist camera, does not.
Embedded scale: this shows that the pipeline works. It says nothing about SmolVLA, V-JEPA 2 ViT-g or
LIBERO at full scale.
2 of the suite's 10 tasks were run: 0, 1. Pickup tasks, which decide: 0, 1.

THE TREE
=> E0 and E2 on the pickup tasks: E0 12/20, E2 8/20
   ├─ E0 below 20%                                     VOID_BASELINE_TOO_WEAK
   ├─ E2 ≥ E0: world helps or is neutral
   │  ├─ C > E2                                        ADOPT_FUSION
   │  └─ C not above E2, or not run                    WORLD_HELPS_OR_NEUTRAL
=> └─ E2 < E0: the wrist experiment
      ├─ C ≥ E0 and C > A                              ADOPT_FUSION
=>    ├─ A ≥ E0                                        ADOPT_WRIST
      ├─ no retrained wrist option ≥ E0                KEEP_BASELINE
      └─ neither A nor C was run                       WRIST_EXPERIMENT_PENDING
   A 14/20; C not run
   ADOPT_WRIST: E2 < E0, A ≥ E0, and C not run, below E0 or not above A

SUCCESSES
Task 0: pick up bowl 0
Task 1: pick up bowl 1
                successes   rate  90% interval (Wilson)  (Clopper-Pearson)
E0: SmolVLA baseline
  task 0             6/10  60.0%           [35.2, 80.6]       [30.4, 85.0]
"""


def test_the_text_starts_as_people_know_it(tmp_path):
    assert render(wrist_verdict(tmp_path)).startswith(GOLDEN)


def test_no_line_of_the_text_is_wider_than_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setitem(OPTIONS, "E2-random-scaled", OPTIONS["E2-zero"] | {"label": "a long label " * 20})
    files = contents(E0=5, E2=4, A=5, E2_random_scaled=0, train_seeds=(0, 1), tasks=range(10))
    text = render(decided(tmp_path, spec(run=["E0", "E2", "E2-random-scaled"]), files))
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_the_text_follows_from_the_json_alone(tmp_path):
    verdict = wrist_verdict(tmp_path)
    again = Verdict.model_validate(json.loads(json.dumps(verdict.as_json(), sort_keys=True)))
    assert render(again) == render(verdict)


def test_the_order_of_the_files_changes_nothing(tmp_path):
    evaluations = read(tmp_path, contents(E0=6, E2=4, A=7))
    checkpoint = judged(evaluations, spec())
    assert decide(*checkpoint, evaluations[::-1], spec(), AUDITED) == decide(*checkpoint, evaluations, spec(), AUDITED)


def test_every_token_has_a_text_for_every_scale(tmp_path):
    verdict = wrist_verdict(tmp_path)
    for scale in ("embedded", "smoke", "full"):
        text = render(verdict.model_copy(update={"scale": scale}))
        assert f"{scale.capitalize()} scale" in text
        assert ("Run the experiment at full scale" in text) == (scale != "full")


# ---- the programs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """The two scripts' command lines on evaluations that take the wrist branch."""
    monkeypatch.chdir(tmp_path)
    for (option, task), file in contents(E0=6, E2=4, A=7).items():
        collected(f"eval_{option}_{task}.json", file)
    run = [f"eval_{option}_{task}.json" for option in ("E0", "E2") for task in PICKUP]
    judge = JudgeSpec.model_validate(spec().model_dump(include=set(JudgeSpec.model_fields)) | {"decision": tree()})
    wrist = [f"eval_A_{task}.json" for task in PICKUP]
    with making("fairness.json", str(REPOSITORY / "scripts" / "audit_fairness.py"), {}) as path:
        write_json(path, AUDITED)
    output = [
        "--pickup",
        "pickup.json",
        "--plan",
        "plan.json",
        "--fairness",
        "fairness.json",
        "--output-json",
        "decision.json",
        "--output-text",
        "decision.txt",
    ]
    return {
        "judge_pickup.py": ["--spec", judge.model_dump_json(), "--evaluations", *run, "--output", "pickup.json"]
        + ["--output-plan", "plan.json"],
        "decide.py": ["--spec", spec().model_dump_json(), "--evaluations", *run, *wrist, *output],
    }


def collected(name, file):
    """An evaluation with its provenance, as the pipeline leaves it."""
    with making(name, str(REPOSITORY / "scripts" / "collect_evaluation.py"), {}) as path:
        write_json(path, file)


def tree():
    return {name: getattr(spec().decision, name) for name in Tree.model_fields}


def call(name, arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(REPOSITORY / "scripts" / name), run_name="__main__")


def test_the_programs_make_the_same_bytes_in_every_process(tmp_path, monkeypatch, programs):
    call("judge_pickup.py", programs["judge_pickup.py"], monkeypatch)
    assert Pickup.read(tmp_path / "pickup.json").scheduled == Plan.read(tmp_path / "plan.json").chosen == ["A"]
    call("decide.py", programs["decide.py"], monkeypatch)
    outputs = [tmp_path / "decision.json", tmp_path / "decision.txt"]
    here = [path.read_bytes() for path in outputs]
    subprocess.run([sys.executable, REPOSITORY / "scripts" / "decide.py", *programs["decide.py"]], check=True)
    assert [path.read_bytes() for path in outputs] == here


def test_an_unfair_comparison_ends_in_one_line_and_no_file(tmp_path, monkeypatch, programs):
    call("judge_pickup.py", programs["judge_pickup.py"], monkeypatch)
    file = content("A", 0, 7)
    file["episodes"][3]["env_seed"] = 4
    collected("eval_A_0.json", file)
    with pytest.raises(SystemExit) as stopped:
        call("decide.py", programs["decide.py"], monkeypatch)
    assert stopped.value.code == (
        "error: eval_A_0.json: initial state 3 of training seed 0: env_seed is 4, but 3 in eval_E0_0.json"
    )
    assert not list(tmp_path.glob("*decision*"))


def test_a_damaged_evaluation_ends_in_one_line_and_no_file(tmp_path, monkeypatch, programs):
    path = tmp_path / "eval_E2_0.json"
    path.write_text(path.read_text().replace('"success": false', '"success": true', 1))
    with pytest.raises(SystemExit, match=r"error: eval_E2_0\.json: damaged or altered"):
        call("judge_pickup.py", programs["judge_pickup.py"], monkeypatch)
    assert not (tmp_path / "pickup.json").exists()


def test_a_wrong_spec_names_the_key(monkeypatch, programs, capsys):
    arguments = [part.replace('"confidence":0.9', '"confidence":95.0') for part in programs["decide.py"]]
    with pytest.raises(SystemExit):
        call("decide.py", arguments, monkeypatch)
    assert "argument --spec: decision.confidence: Input should be less than or equal to" in capsys.readouterr().err


def test_a_learning_schedule_of_ones_own_is_reported(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=4, A=5))
    for task in PICKUP:
        files["A", task]["learning_schedule"] = {"learning_rate": 5e-4}
    verdict = decided(tmp_path, spec(), files)
    assert "A was trained with its own learning schedule (learning_rate 0.0005)" in " ".join(render(verdict).split())
    assert verdict.option("E2").learning_schedule is None


# ---- the figure -----------------------------------------------------------------------------------------------------

LOOK = Figures(task_colors=["#1f77b4"], pickup_color="#000000")


def test_the_success_figure_has_the_same_bytes_every_time(tmp_path):
    verdict = wrist_verdict(tmp_path)
    made = [tmp_path / f"{number}.svg" for number in range(2)]
    for path in made:
        save(plot_success(verdict, LOOK), path)
    assert made[0].read_bytes() == made[1].read_bytes()


def test_a_figure_of_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"written as \.svg"):
        save(plot_success(wrist_verdict(tmp_path), LOOK), tmp_path / "success.pdf")


# ---- what Prophet foresees, and what must be seen -------------------------------------------------------------------


def test_a_prophet_that_does_not_beat_the_last_latent_is_told_in_plain_words(tmp_path):
    files, settings = contents(E0=5, E2=6), spec()
    good, bad = (render(decided(tmp_path, settings, files, [foresight("E2", p)])) for p in (0.9, 0.8))
    assert "E2's Prophet does not beat repeating the last latent on held-out episodes (cosine 0.800 against" in bad
    assert "does not beat" not in good
    assert re.search(r"E2's Prophet +0\.9000 +0\.8000 +0\.7000 +3 of 4\n", good)


def test_without_held_out_episodes_the_text_says_that_nothing_is_known(tmp_path):
    assert "No episode was held out" in render(decided(tmp_path, spec(), contents(E0=5, E2=6)))


def test_the_foresight_of_every_option_with_a_prophet_is_asked_for(tmp_path):
    files = contents(E0=5, E2=4, A=6)
    with pytest.raises(ComparisonError, match=r"prophet_<option>.json of \['E2'\], expected those of \['A', 'E2'\]"):
        decided(tmp_path, spec(run=["E0", "E2", "A"]), files, [foresight("E2")])


@pytest.mark.parametrize(
    ("blind", "said"), [(0, "is judged worse (-90.0 points"), (8, "is not judged worse: an effect")]
)
def test_the_baseline_with_its_eyes_shut_must_be_judged_worse(tmp_path, blind, said):
    text = render(decided(tmp_path, spec(run=["E0", "E2", "E0-blind"]), contents(E0=9, E2=9, E0_blind=blind)))
    assert f"Positive control: E0-blind, E0 with its eyes shut, {said}" in re.sub(r"\s+", " ", text)
