"""At the ends of the range of every number that the last stages read, they judge, decide and draw; no NaN, no error."""

import copy
import json
import math
import re
import sys

import pytest

from tests.unit.decision import samples
from world_modality.decision.tree import plan_branch
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import (
    Budget,
    ConfigError,
    Costs,
    Decision,
    EvaluationSettings,
    Figures,
    LatentCosts,
    PolicyCosts,
)
from world_modality.report.decision_text import render
from world_modality.report.figures import plot_plan, plot_success, save

JUDGED = {"decision": Decision, "evaluation": EvaluationSettings}
PLANNED = {
    "budget": Budget,
    "costs.embedded.latents": LatentCosts,
    "costs.embedded.train": PolicyCosts,
    "costs.embedded.evaluate": PolicyCosts,
    "costs.embedded": Costs,
}
COSTS = {
    "latents": {"front": 2, "wrist": 2},
    "train": {"none": 6, "one": 6.1, "both": 12},
    "evaluate": {"none": 4, "one": 4, "both": 4},
    "episodes": 40,
}
OUTCOMES = ((0, 0), (10, 10), (10, 0), (0, 10), (5, 4))  # successes of E0 and E2 on each task, of ten
TRIED = set()
LOOK = Figures(task_colors=["#1f77b4"], pickup_color="#000000")


def ends(schema):
    """The first two and the last two numbers that a field takes; none if it takes no numbers.

    A range without an upper end is tried at the largest number.
    """
    found = next((part for part in schema.get("anyOf", [schema]) if part.get("type") in ("integer", "number")), None)
    if not found:
        return []

    def after(number, towards):
        if found["type"] == "integer":
            return number + 1 if towards > number else number - 1
        return math.nextafter(number, towards)

    first = found["minimum"] if "minimum" in found else after(found["exclusiveMinimum"], math.inf)
    if "exclusiveMaximum" in found:
        last = after(found["exclusiveMaximum"], -math.inf)
    else:
        last = found.get("maximum", 10**9 if found["type"] == "integer" else sys.float_info.max)
    return sorted({first, after(first, math.inf), after(last, -math.inf), last})


def corners(sections):
    return [
        (f"{section}.{name}", value)
        for section, model in sections.items()
        for name, schema in model.model_json_schema()["properties"].items()
        for value in ends(schema)
    ]


def accepted(key, value, gpu_hours, **decision):
    """The experiment with a key at that value; None if the first line refuses it together with the other keys."""
    config = default_config() | {"costs": {"embedded": copy.deepcopy(COSTS)}}
    config["decision"] |= decision
    config["evaluation"]["episodes"] = None if config["decision"]["stopping"] == "adaptive" else 20
    config["budget"]["gpu_hours"] = gpu_hours
    *parents, last = key.split(".")
    section = config
    for part in parents:
        section = section[part]
    section[last] = value
    try:
        return load_experiment(config)
    except ConfigError:
        return None


def test_the_numbers_that_are_tried_are_those_of_the_config():
    keys = {key for key, _ in corners(JUDGED | PLANNED)}
    assert {"decision.margin", "decision.power", "evaluation.episodes", "budget.gpu_hours", "budget.gpus"} <= keys
    assert {"costs.embedded.latents.wrist", "costs.embedded.evaluate.one"} <= keys


@pytest.mark.parametrize("stopping", ["fixed", "anytime", "adaptive"])
@pytest.mark.parametrize(("key", "value"), corners(JUDGED), ids=str)
def test_at_the_ends_of_a_range_the_episodes_are_judged_and_the_decision_is_written(
    tmp_path, monkeypatch, key, value, stopping
):
    if not (experiment := accepted(key, value, None, stopping=stopping, wrist_experiment="always")):
        return
    settings = experiment.decision_spec().model_copy(update={"run": ["E0", "E2"]})
    episodes = min(10, experiment.episodes(1))
    if (settings.model_dump_json(), episodes) in TRIED:  # a key that the last stages do not read
        return
    TRIED.add((settings.model_dump_json(), episodes))
    monkeypatch.setattr(samples, "EPISODES", episodes)
    for baseline, world in OUTCOMES:
        verdict = samples.decided(tmp_path, settings, samples.contents(E0=baseline, E2=world, A=5))
        json.dumps(verdict.model_dump(mode="json"), allow_nan=False)
        assert not re.search(r"\b(nan|inf)\b", render(verdict))
    save(plot_success(verdict, LOOK), tmp_path / "success.svg")


@pytest.mark.parametrize("branch", ["wrist", "success"])
@pytest.mark.parametrize(("key", "value"), corners(PLANNED), ids=str)
def test_at_the_ends_of_a_range_what_runs_next_is_planned_and_drawn(tmp_path, key, value, branch):
    if not (experiment := accepted(key, value, 12, on_hurt=["A"], on_success=["A"])):
        return
    plan = plan_branch(branch, experiment.judge_spec())
    json.dumps(plan.model_dump(mode="json"), allow_nan=False)
    assert not re.search(r"\b(nan|inf)\b", " ".join(plan.summary()))
    save(plot_plan(plan, LOOK), tmp_path / "plan.svg")
