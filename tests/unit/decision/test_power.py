"""What a number of pairs can say, against sums over all their tables."""

import pytest
from scipy import stats

from world_modality.decision.pairs import Differences
from world_modality.decision.power import Truth, odds, pairs_to_settle
from world_modality.decision.statistics import conclude, weigh

LEVEL = 0.05


@pytest.mark.parametrize("truth", [Truth(0.0, 0.3), Truth(-0.1, 0.25), Truth(-0.2, 0.2), Truth(0.0, 0.0)])
def test_the_odds_equal_the_sum_over_all_tables(truth):
    pairs, margin = 16, 0.15
    bare = non_inferior = inferior = 0.0
    won = (truth.discordance + truth.difference) / 2
    cells = (won, truth.discordance - won, 1 - truth.discordance)
    for wins in range(pairs + 1):
        for losses in range(pairs + 1 - wins):
            table = (wins, losses, pairs - wins - losses)
            interval = weigh(Differences.of_counts(*table), margin, 0.9, "fixed").interval(LEVEL, LEVEL)
            chance, said = stats.multinomial.pmf(table, pairs, cells), conclude(interval, margin)
            bare += chance * (wins < losses)
            non_inferior += chance * (said == "NON_INFERIOR")
            inferior += chance * (said == "INFERIOR")
    found = odds(pairs, truth, margin, LEVEL)
    assert (found.bare_rule_worse, found.non_inferior, found.inferior) == pytest.approx((bare, non_inferior, inferior))


@pytest.mark.parametrize("pairs", [40, 100, 500])
def test_the_bare_rule_calls_equal_policies_worse_in_nearly_half_of_the_experiments(pairs):
    """Both truly at 80 %, correlation 0.4."""
    assert 0.42 <= odds(pairs, Truth.of_rates(0.8, 0.0, 0.4), 0.1, LEVEL).bare_rule_worse <= 0.48


def test_the_discordance_follows_from_rates_and_correlation():
    assert Truth.of_rates(0.8, 0.0, 0.4).discordance == pytest.approx(2 * 0.8 * 0.2 * 0.6)
    assert Truth.of_rates(0.5, 0.0, 1.0).discordance == pytest.approx(0)


def test_a_hundred_pairs_support_a_margin_of_ten_points_and_no_less():
    """What the comment on `decision.margin` says."""
    equal = Truth.of_rates(0.8, 0.0, 0.4)
    assert odds(100, equal, 0.10, LEVEL).non_inferior == pytest.approx(0.71, abs=0.005)
    assert odds(100, equal, 0.05, LEVEL).non_inferior == pytest.approx(0.30, abs=0.005)


def test_about_so_many_pairs_settle_it():
    enough = pairs_to_settle(0.192, 0.1, LEVEL, 0.8)
    equal, worse = Truth(0.0, 0.192), Truth(-0.2, 0.2)
    assert odds(enough, equal, 0.1, LEVEL).non_inferior >= 0.8
    assert odds(enough, worse, 0.1, LEVEL).inferior >= 0.8
    assert odds(enough - 10, equal, 0.1, LEVEL).non_inferior < 0.8
    assert pairs_to_settle(0.5, 0.001, LEVEL, 0.8, most=1000) is None
