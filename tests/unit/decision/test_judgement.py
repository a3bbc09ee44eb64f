"""Comparisons that are corrected for their number together."""

import numpy as np
import pytest

from world_modality.decision.judgement import judge_family
from world_modality.decision.pairs import Differences
from world_modality.decision.statistics import conclude, level
from world_modality.experiment.config import default_config, load_experiment

DECISION = load_experiment(default_config()).decision
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
