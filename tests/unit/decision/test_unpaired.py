"""The test of two rates whose episodes are not paired, against brute force."""

import math

import numpy as np
import pytest
from scipy import stats

from world_modality.decision.unpaired import UnpairedTail, score_limit, score_statistic, unpaired_test

LEVEL = 0.05


@pytest.mark.parametrize(("option", "reference"), [((7, 20), (12, 20)), ((84, 100), (352, 400)), ((0, 20), (0, 50))])
@pytest.mark.parametrize("difference", [-0.3, -0.1, 0.0, 0.2])
def test_the_score_statistic_uses_the_most_likely_rates_with_that_difference(option, reference, difference):
    """Against a search on a grid for the largest binomial likelihood."""
    (won, n), (base_won, m) = option, reference
    low = np.linspace(max(0, -difference), min(1, 1 - difference), 100_001)
    likelihood = stats.binom.logpmf(won, n, low + difference) + stats.binom.logpmf(base_won, m, low)
    low = low[np.nanargmax(likelihood)]
    high = low + difference
    variance = (high * (1 - high) / n + low * (1 - low) / m) * (n + m) / (n + m - 1)
    deviation = won / n - base_won / m - difference
    expected = deviation / math.sqrt(variance) if deviation else 0
    assert float(score_statistic(option, reference, difference)) == pytest.approx(expected, rel=1e-3)


def outcomes(n, m):
    return [((won, n), (base_won, m)) for won in range(n + 1) for base_won in range(m + 1)]


@pytest.mark.parametrize(("n", "m"), [(10, 10), (6, 15), (15, 6)])
def test_the_level_holds_and_the_interval_agrees_with_the_p_value(n, m):
    worse = np.zeros((n + 1, m + 1), bool)
    for option, reference in outcomes(n, m):
        test = unpaired_test(option, reference, LEVEL)
        low, high = test.limit(LEVEL, "above"), test.limit(LEVEL, "below")
        worse[option[0], reference[0]] = test.p_value(0.0, "below") < LEVEL
        assert low <= option[0] / n - reference[0] / m <= high
        assert (high < 0) == worse[option[0], reference[0]]
        assert (low > -0.1) == (test.p_value(-0.1, "above") < LEVEL)
    for rate in np.linspace(0, 1, 101):
        chances = np.outer(stats.binom.pmf(range(n + 1), n, rate), stats.binom.pmf(range(m + 1), m, rate))
        assert chances[worse].sum() <= LEVEL, rate


def test_the_tail_holds_the_outcomes_whose_interval_ends_no_higher():
    z = stats.norm.isf(LEVEL)
    limit = score_limit((4, 10), (9, 14), z)
    tail = UnpairedTail.below(limit, 10, 14, z)
    inside = [(option, reference) for option, reference in outcomes(10, 14) if option[0] <= tail.most[reference[0]]]
    for option, reference in outcomes(10, 14):
        end = score_limit(option, reference, z)
        if abs(end - limit) > 1e-6:
            assert ((option, reference) in inside) == (end < limit)
    for difference, rate in ((0.0, 0.5), (-0.2, 0.7), (0.3, 0.1)):
        expected = sum(
            stats.binom.pmf(option[0], 10, rate + difference) * stats.binom.pmf(reference[0], 14, rate)
            for option, reference in inside
        )
        assert tail.chances(difference, np.array([rate])) == pytest.approx(expected)
