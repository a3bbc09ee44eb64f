"""Comparisons that are corrected for their number together."""

import itertools
import math

import numpy as np
import pytest

from world_modality.decision.judgement import judge_family, worth
from world_modality.decision.pairs import Differences
from world_modality.decision.statistics import conclude, level
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import Decision

DECISION = load_experiment(default_config()).decision.model_copy(update={"stopping": "fixed", "margin": 0.1})
LOOKS = [20, 40, 60]
LEVEL = level(DECISION.confidence)


def families():
    """Random families of two to five comparisons, of single pairs or of clusters of three."""
    rng = np.random.default_rng(1)
    for _ in range(12):
        shape = int(rng.integers(15, 120)), int(rng.choice([1, 3]))
        members = []
        for _ in range(rng.integers(2, 6)):
            values = rng.choice([1, -1, 0], shape, p=rng.dirichlet((1, 2, 3)))
            members.append(Differences(values, np.arange(len(values))))
        yield members


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
def test_every_verdict_is_read_off_its_interval_and_agrees_with_its_corrected_p_values(stopping):
    decision = DECISION.model_copy(update={"stopping": stopping})
    said = set()
    for members in families():
        for judged in judge_family(members, decision):
            low, high = judged.interval
            assert low <= judged.difference <= high
            assert (high < 0) == (judged.p_worse < LEVEL)
            assert (low > -decision.margin) == (judged.p_non_inferior < LEVEL)
            assert judged.conclusion == conclude(judged.interval, decision.margin)
            said.add(judged.conclusion)
    assert said == {"NON_INFERIOR", "INFERIOR", "INCONCLUSIVE"}


def test_a_family_makes_intervals_wider():
    lost = Differences.of_counts(2, 9, 29)
    other = Differences.of_counts(5, 6, 29)
    (alone,), (together, _) = judge_family([lost], DECISION), judge_family([lost, other], DECISION)
    assert alone.conclusion == "INFERIOR"
    assert together.interval[1] > alone.interval[1]


COUNTS = [(0, 0, 1), (0, 0, 40), (1, 0, 0), (0, 30, 0), (7, 9, 24), (600, 700, 1200)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stopping", ["fixed", "anytime", "adaptive"])
@pytest.mark.parametrize(("margin", "confidence"), list(itertools.product((1e-6, 0.51, 0.999), (0.500001, 0.999))))
def test_every_margin_and_confidence_that_the_config_takes_can_be_judged(margin, confidence, stopping):
    """The last job of an experiment must not be the first to find that it cannot use a key."""
    changes = {"margin": margin, "confidence": confidence, "stopping": stopping, "power": 0.999}
    decision = Decision.model_validate(DECISION.model_dump() | changes)
    for counts in COUNTS:
        (judged,) = judge_family([Differences.of_counts(*counts)], decision)
        found = worth(judged, decision, LOOKS)
        assert judged.interval[0] <= judged.difference <= judged.interval[1]
        numbers = [*judged.interval, judged.p_worse, judged.p_non_inferior, found.bare_rule_error]
        assert all(map(math.isfinite, [*numbers, found.non_inferior_if_equal, found.inferior_if_twice_margin]))


def test_seeds_that_repeat_each_other_are_worth_their_initial_states_and_no_more():
    """Three seeds that always agree, without a discordant pair: twenty ties, not sixty."""
    ties = Differences(np.zeros((20, 3), int), np.arange(20))
    (judged,) = judge_family([ties], DECISION)
    (single,) = judge_family([Differences.of_counts(0, 0, 20)], DECISION)
    assert judged.conclusion == single.conclusion == "INCONCLUSIVE"
    assert judged.interval == pytest.approx(single.interval)
