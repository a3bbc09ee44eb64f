"""The decision, simulated: its false verdicts stay within their nominal level, and what must be seen is seen."""

import pytest
from scipy import stats

from benchmarks.calibration import World, simulate
from benchmarks.paired_tests import LEVEL, TESTS, single_pairs
from world_modality.experiment.config import default_config, load_experiment

EXPERIMENTS = 150


def shares(loss, stopping, world):
    decision = load_experiment(default_config()).decision.model_copy(update={"stopping": stopping, "margin": 0.1})
    outcomes = list(simulate(world, {"E0": 0.7, "E2": 0.7 - loss}, decision, EXPERIMENTS, seed=1))
    return {name: sum(o.conclusion == name for o in outcomes) for name in ("NON_INFERIOR", "INFERIOR")}, outcomes


WORLDS = {"pairs": World(states=25), "clusters": World(states=25, seeds=3, luck=0.0)}
MOST = stats.binom.ppf(0.999, EXPERIMENTS, 0.05)  # false verdicts at a level of 5 %, but for 1 in 1,000 such tests


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_false_verdicts_are_as_rare_as_the_level_says(stopping, world):
    equal, outcomes = shares(0.0, stopping, world)
    assert equal["INFERIOR"] <= MOST
    losing, _ = shares(0.1, stopping, world)
    assert losing["NON_INFERIOR"] <= MOST
    assert sum(o.worse for o in outcomes) > 0.3 * EXPERIMENTS  # what the bare rule says of equals


def test_a_large_loss_is_seen_and_more_seeds_do_not_replace_initial_states():
    losing, _ = shares(0.3, "fixed", WORLDS["pairs"])
    assert losing["INFERIOR"] > 0.8 * EXPERIMENTS


def test_the_simulated_rates_are_those_asked_for():
    _, outcomes = shares(0.0, "fixed", World(states=50, spread=0.0))
    assert abs(sum(o.correlation for o in outcomes) / EXPERIMENTS) < 0.05
    _, outcomes = shares(0.0, "fixed", World(states=50))
    assert 0.3 < sum(o.correlation for o in outcomes) / EXPERIMENTS < 0.5


@pytest.mark.parametrize("pairs", [20, 50, 100])
def test_of_the_candidates_only_the_exact_test_holds_its_level_for_both_questions(pairs):
    held = [name for name, test in TESTS.items() if max(single_pairs(pairs, test)[:2]) <= LEVEL]
    assert held == ["exact"]
