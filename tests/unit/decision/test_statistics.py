"""Rates, verdicts and corrected levels, against published worked examples and against each other."""

import numpy as np
import pytest

from world_modality.decision.pairs import Differences
from world_modality.decision.statistics import (
    conclude,
    holm,
    holm_levels,
    interval_text,
    level,
    rate_interval,
    weigh,
)

CONFIDENCE, MARGIN = 0.9, 0.1
LEVEL = level(CONFIDENCE)

counted = Differences.of_counts


def clustered(rows):
    values = np.array(rows)
    return Differences(values, np.arange(len(values)))


def tables(pairs):
    """All wins, losses and ties of a number of pairs."""
    return [(won, lost, pairs - won - lost) for won in range(pairs + 1) for lost in range(pairs + 1 - won)]


def interval_of(pairs, confidence=CONFIDENCE, stopping="fixed"):
    alpha = level(confidence)
    return weigh(pairs, MARGIN, confidence, stopping).interval(alpha, alpha)


# ---- one rate -------------------------------------------------------------------------------------------------------


def test_rate_intervals_agree_with_published_examples():
    """Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263, and 0 of 20."""
    many, none = np.array([1] * 81 + [0] * 182)[:, None], np.zeros((20, 1), int)
    assert rate_interval(many, 0.95, "wilson") == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert rate_interval(none, 0.95, "wilson") == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert rate_interval(many, 0.95, "beta") == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert rate_interval(none, 0.95, "beta") == pytest.approx((0.0, 0.1684), abs=5e-5)


def test_a_rate_of_repeated_seeds_is_as_uncertain_as_that_of_one():
    single = np.array([1] * 7 + [0] * 13)[:, None]
    five = np.repeat(single, 5, axis=1)
    assert rate_interval(five, 0.95, "wilson") == pytest.approx(rate_interval(single, 0.95, "wilson"), abs=0.01)


def test_seeds_that_all_succeed_are_worth_their_initial_states():
    """Ten initial states, three seeds each, not one failure: the exact interval of 10 of 10, not of 30 of 30."""
    everything = np.ones((10, 3), int)
    assert rate_interval(everything, 0.9, "beta") == pytest.approx(rate_interval(everything[:, :1], 0.9, "beta"))


def test_the_interval_is_symmetric_in_the_two_options():
    low, high = interval_of(counted(3, 7, 15))
    assert interval_of(counted(7, 3, 15)) == pytest.approx((-high, -low))


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
@pytest.mark.parametrize("counts", [(0, 0, 20), (20, 0, 0), (0, 20, 0), (1, 0, 0), (10, 10, 0), (3, 1, 500)])
def test_extreme_tables_have_an_interval_that_stays_within_bounds(counts, stopping):
    pairs = counted(*counts)
    low, high = interval_of(pairs, 0.95, stopping)
    assert -1 <= low <= pairs.mean <= high <= 1
    assert low < high


def test_repeated_seeds_leave_the_verdict_as_uncertain_as_one_seed():
    single = [[1]] * 4 + [[-1]] * 10 + [[0]] * 26
    one, five = clustered(single), clustered([row * 5 for row in single])
    for stopping in ("fixed", "anytime"):
        assert interval_of(five, stopping=stopping) == pytest.approx(interval_of(one, stopping=stopping), abs=0.03)


# ---- the verdict ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
@pytest.mark.parametrize(("pairs", "expected"), [
    (counted(2, 0, 98), "NON_INFERIOR"),
    (counted(0, 40, 60), "INFERIOR"),
    (counted(4, 6, 10), "INCONCLUSIVE"),
])  # fmt: skip
def test_each_verdict_follows_from_its_pairs(stopping, pairs, expected):
    assert conclude(interval_of(pairs, stopping=stopping), MARGIN) == expected


def test_a_loss_below_the_margin_is_non_inferior_even_where_it_is_certain():
    interval = interval_of(counted(0, 20, 980))
    assert -MARGIN < interval[0] < interval[1] < 0
    assert conclude(interval, MARGIN) == "NON_INFERIOR"


def some_pairs():
    """Every table of 1, 6 and 15 pairs; random ones of up to 500, by themselves and in clusters."""
    rng = np.random.default_rng(0)
    small = [counted(*table) for number in (1, 6, 15) for table in tables(number)]
    shares = [rng.dirichlet((1, 1, 2)) for _ in range(60)]
    large = [clustered(rng.choice([1, -1, 0], (rng.integers(20, 500), 1), p=share)) for share in shares]
    clusters = [clustered(rng.choice([1, -1, 0], (rng.integers(10, 60), 3), p=share)) for share in shares]
    return small + large + clusters


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
def test_verdict_p_values_and_interval_never_contradict_each_other(stopping):
    for pairs in some_pairs():
        evidence = weigh(pairs, MARGIN, CONFIDENCE, stopping)
        low, high = evidence.interval(LEVEL, LEVEL)
        counts = (pairs.wins, pairs.losses, pairs.pairs)
        assert low <= pairs.mean <= high, counts
        assert (high < 0) == (evidence.p_worse < LEVEL), counts
        assert (low > -MARGIN) == (evidence.p_non_inferior < LEVEL), counts


def test_an_interval_is_written_so_that_the_verdict_can_be_read_off():
    assert interval_text((-0.336, -0.006), MARGIN) == "[-33.6, -0.6]"
    assert interval_text((-0.09996, 0.00004), MARGIN) == "[-9.996, +0.004]"
    assert interval_text((-0.10004, -0.0004), MARGIN) == "[-10.004, -0.04]"
    assert interval_text((-0.100000001, 0.1), MARGIN).startswith("[-1.0e+01")


# ---- several comparisons --------------------------------------------------------------------------------------------


def test_p_values_are_corrected_for_their_number():
    """Holm (1979): the smallest times their number, the next times one less, never falling."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_holms_levels_reject_what_his_p_values_reject():
    rng = np.random.default_rng(0)
    for _ in range(30):
        p_values = list(rng.choice([0.001, 0.01, 0.012, 0.02, 0.03, 0.05, 0.4], rng.integers(1, 6)))
        rejected = [p <= step for p, step in zip(p_values, holm_levels(p_values, LEVEL), strict=True)]
        assert rejected == [p <= LEVEL for p in holm(p_values)], p_values


def test_a_comparison_by_itself_keeps_the_whole_level():
    assert holm_levels([0.3], LEVEL) == [LEVEL]
