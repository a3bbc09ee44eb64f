"""Evaluations of made-up episodes, and what the tree makes of them."""

import contextlib
import hashlib
import json
from pathlib import Path

import pytest

from world_modality.decision.evaluations import (
    ComparisonError,
    episode_table,
    first_episodes,
    read_evaluation,
)
from world_modality.decision.judgement import compare
from world_modality.decision.looks import Look, count
from world_modality.decision.tree import Pickup, decide, judge_pickup, plan_branch
from world_modality.examination.foresight import Foresight
from world_modality.experiment.branches import comparisons
from world_modality.experiment.specs import DecisionSpec, spec_argument
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
    "E0-again": {"label": "E0 under other noise", "checkpoint_of": "E0", "rollout_noise": 1},
    "E0-blind": {"label": "E0 with every image black", "checkpoint_of": "E0", "images": "blank"},
}

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
    thresholds |= {"stopping": "fixed", "claim": "checkpoints", "power": 0.8, "when_inconclusive": "keep_baseline"}
    decision = roles | choices | thresholds | decision
    rows = {name: {k: v for k, v in row.items() if k != "label"} for name, row in OPTIONS.items()}
    labels = {name: row["label"] for name, row in OPTIONS.items()}
    made = {"decision": decision, "options": rows, "run": run, "plan": plan(run, gpu_hours)}
    made |= {"labels": labels, "scale": "embedded", "rounds": [EPISODES], "costs": None}
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


def judged(evaluations, settings, stops=None):
    """What is made of the evaluations before the decision: pickup, plan, and the last look at each comparison.

    What cannot be compared is not looked at: it is the decision that must refuse it.

    Args:
        stops: {(option, reference): initial states of each task}; others stop after all.
    """
    branch = looks(evaluations, settings.run, settings, stops)[:1]
    pickup = judge_pickup(branch[0], settings) if branch else UNJUDGED
    everything = looks(evaluations, [*settings.run, *pickup.scheduled], settings, stops)
    return pickup, plan_branch(pickup.branch, settings), everything


def looks(evaluations, names, settings, stops=None):
    """A look at each comparison of these options, as if each were a family of its own."""
    made = []
    for pair, family in comparisons(names, settings.options, settings.decision).items():
        seen = [e for e in evaluations if e.option in pair and e.task.id in settings.decision.pickup_tasks]
        seen = first_episodes(seen, stops[pair]) if stops and pair in stops else seen
        with contextlib.suppress(ValueError):
            made.append(look(seen, pair, family, settings))
    return made


def look(evaluations, pair, family, settings):
    noise = [name for name in pair if settings.options[name].rollout_noise]
    table, decision = episode_table(evaluations), settings.decision
    (comparison,) = compare(table, {pair: family}, decision.pickup_tasks, decision, noise)
    settled = comparison.success.conclusion != "INCONCLUSIVE"
    return Look(counts={name: count(evaluations, name) for name in pair}, comparison=comparison, settled=settled)


UNJUDGED = Pickup(baseline="E0", world="E2", options={}, branch="success", scheduled=[])


def refused(folder, files, message, settings=None):
    with pytest.raises(ComparisonError, match=message) as error:
        decided(folder, settings or spec(), files)
    assert "\n" not in str(error.value)


def change(key, value, inside="episodes"):
    """An edit of one key: of the fourth episode, or of a part of the file."""

    def edit(file):
        part = file["episodes"][3] if inside == "episodes" else file[inside] if inside else file
        part[key] = value

    return edit


RUN = ["E0", "E2", "E2-zero", "S0"]


def wrist_verdict(folder, **successes):
    return decided(folder, spec(run=RUN), contents(**({"E0": 6, "E2": 4, "E2_zero": 2, "S0": 5, "A": 7} | successes)))
