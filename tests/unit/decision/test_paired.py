"""The exact test of a difference of pairs, against published worked examples and against brute force."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from world_modality.decision.paired import PairedTail, paired_test, score_limit, score_statistic
from world_modality.decision.pairs import Differences

LEVEL = 0.05

counted = Differences.of_counts


def tables(pairs):
    """All wins, losses and ties of a number of pairs."""
    return [(won, lost, pairs - won - lost) for won in range(pairs + 1) for lost in range(pairs + 1 - won)]


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
