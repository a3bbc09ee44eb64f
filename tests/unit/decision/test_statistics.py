"""Tests, intervals and verdicts of a difference, against published worked examples and against brute force."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from world_modality.decision.pairs import Differences
from world_modality.decision.statistics import (
    PairedTail,
    conclude,
    holm,
    holm_levels,
    interval_text,
    level,
    paired_test,
    rate_interval,
    score_limit,
    score_statistic,
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


# ---- the score statistic ---------------------------------------------------------------------------------------------


def test_the_score_limit_agrees_with_a_published_example():
    """Bentur et al. (2009) in Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014): -0.517 to -0.026."""
    z = stats.norm.isf(0.025)
    low, high = -score_limit(7, 1, 21, z), score_limit(1, 7, 21, z)
    assert (round(low, 3), round(high, 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("wins", "losses", "ties"), [(1, 7, 13), (6, 16, 20), (4, 4, 12), (9, 1, 3)])
@pytest.mark.parametrize("difference", [-0.3, -0.1, 0.0, 0.2])
def test_the_score_statistic_uses_the_most_likely_truth_with_that_difference(wins, losses, ties, difference):
    """Against a numerical search for it: multinomial likelihood of wins, losses and ties."""
    pairs = wins + losses + ties

    def unlikelihood(lost):
        return -sum(n * math.log(p) for n, p in zip((wins, losses, ties), shares(lost), strict=True) if n)

    def shares(lost):
        return lost + difference, lost, 1 - 2 * lost - difference

    least, most = max(0, -difference) + 1e-9, (1 - difference) / 2 - 1e-9
    lost = optimize.minimize_scalar(unlikelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-10}).x
    won = lost + difference
    expected = (wins - losses - pairs * difference) / math.sqrt(pairs * (won + lost - difference**2))
    assert float(score_statistic(wins, losses, pairs, difference)) == pytest.approx(expected, rel=1e-4)


# ---- the exact test -------------------------------------------------------------------------------------------------


def rejections(pairs, bound, side):
    """Each table of so many pairs, and whether the test finds the difference to be on that side of the bound."""
    return {table: paired_test(counted(*table), LEVEL).p_value(bound, side) <= LEVEL for table in tables(pairs)}


@pytest.mark.parametrize("pairs", [1, 5, 12, 20])
@pytest.mark.parametrize(("bound", "side"), [(0.0, "below"), (0.0, "above"), (-0.1, "above"), (-0.3, "above")])
def test_the_level_holds_whatever_the_share_of_discordant_pairs(pairs, bound, side):
    """The probability of all rejected tables, summed, where the true difference is the bound."""
    rejected = [table for table, found in rejections(pairs, bound, side).items() if found]
    for discordance in np.linspace(abs(bound), 1, 60):
        won = (discordance + bound) / 2
        cells = (won, discordance - won, 1 - discordance)
        assert sum(stats.multinomial.pmf(table, pairs, cells) for table in rejected) <= LEVEL + 1e-9, discordance


def test_a_worse_outcome_is_always_further_out():
    """A loss in place of a tie, a tie in place of a win: the p-value then follows the hypothesis."""
    found = rejections(12, 0.0, "below")
    for (won, lost, tied), rejected in found.items():
        if rejected and won:
            assert found[won - 1, lost, tied + 1]
        if rejected and tied:
            assert found[won, lost + 1, tied - 1]


@pytest.mark.parametrize(("wins", "losses", "ties"), [(1, 7, 13), (0, 0, 5), (2, 0, 3), (9, 1, 3), (0, 6, 0)])
def test_the_tail_holds_the_outcomes_whose_interval_ends_no_higher(wins, losses, ties):
    pairs, z = wins + losses + ties, stats.norm.isf(LEVEL)
    limit = score_limit(wins, losses, pairs, z)
    most = PairedTail.below(limit, pairs, z).most_wins
    for won, lost, _ in tables(pairs):
        end = score_limit(won, lost, pairs, z)
        if abs(end - limit) > 1e-6:
            assert (won <= most[won + lost]) == (end < limit), (won, lost)


def test_the_tails_probability_is_the_sum_over_its_tables():
    pairs, z = 14, stats.norm.isf(LEVEL)
    tail = PairedTail.below(score_limit(2, 6, pairs, z), pairs, z)
    inside = [table for table in tables(pairs) if table[0] <= tail.most_wins[table[0] + table[1]]]
    for difference, discordance in ((0.0, 0.4), (-0.2, 0.3), (0.1, 0.9), (0.0, 0.0)):
        won = (discordance + difference) / 2
        expected = stats.multinomial.pmf(inside, pairs, (won, discordance - won, 1 - discordance)).sum()
        assert tail.chances(difference, np.array([discordance])) == pytest.approx(expected)


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
