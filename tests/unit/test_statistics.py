"""Tests and intervals against published worked examples and against brute force."""

import itertools
import math

import polars as pl
import pytest

from world_modality.statistics import (
    PairedCounts,
    chance_of_worse_if_equal,
    count_pairs,
    mcnemar_exact,
    paired_difference_interval,
    wilson_interval,
)


def coin_sequences(discordant):
    """Wins of the option in every equally likely outcome of `discordant` fair coins."""
    return [sum(sequence) for sequence in itertools.product((0, 1), repeat=discordant)]


# ---- pairs ----------------------------------------------------------------------------------------------------------


def episodes(**successes):
    rows = [
        {"option": option, "task": 0, "init_state_sha256": f"{i}", "train_seed": 0, "env_seed": i, "success": success}
        for option, outcomes in successes.items()
        for i, success in enumerate(outcomes)
    ]
    return pl.DataFrame(rows)


def test_pairs_are_counted_by_who_succeeded():
    table = episodes(E0=[True, True, True, False, False, False], E2=[True, False, False, True, False, False])
    assert count_pairs(table, "E2", "E0", [0]) == PairedCounts(both=1, only_reference=2, only_option=1, neither=2)


def test_the_order_of_the_episodes_does_not_matter():
    table = episodes(E0=[True, True, False, False], E2=[True, False, True, False])
    assert count_pairs(table.reverse(), "E2", "E0", [0]) == count_pairs(table, "E2", "E0", [0])


def test_an_unpaired_episode_is_refused():
    with pytest.raises(ValueError, match="3 and 4 episodes make 3 pairs"):
        count_pairs(episodes(E0=[True] * 4, E2=[True] * 3), "E2", "E0", [0])


def test_a_duplicated_episode_is_refused():
    table = episodes(E0=[True, True], E2=[True, False])
    with pytest.raises(pl.exceptions.ComputeError):
        count_pairs(pl.concat([table, table]), "E2", "E0", [0])


def test_tasks_that_were_not_asked_for_are_left_out():
    table = episodes(E0=[True, True], E2=[True, False])
    both = pl.concat([table, table.with_columns(task=pl.lit(1, pl.Int64))])
    assert count_pairs(both, "E2", "E0", [1]).pairs == 2
    assert count_pairs(both, "E2", "E0", [0, 1]).pairs == 4


# ---- the exact test -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discordant", range(10))
def test_the_exact_test_equals_counting_all_outcomes_of_fair_coins(discordant):
    outcomes = coin_sequences(discordant)
    for wins in range(discordant + 1):
        counts = PairedCounts(both=5, only_reference=discordant - wins, only_option=wins, neither=3)
        as_extreme = [w for w in outcomes if abs(w - discordant / 2) >= abs(wins - discordant / 2)]
        assert mcnemar_exact(counts) == pytest.approx(len(as_extreme) / len(outcomes))
        as_bad = [w for w in outcomes if w <= wins]
        assert mcnemar_exact(counts, "less") == pytest.approx(len(as_bad) / len(outcomes))


def test_the_exact_test_agrees_with_a_published_example():
    """Bentur et al. (2009) in Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13:91 (2013): P = 0.070."""
    assert mcnemar_exact(PairedCounts(both=1, only_reference=7, only_option=1, neither=12)) == pytest.approx(0.0703125)


@pytest.mark.parametrize("discordant", range(12))
def test_the_bare_rules_error_equals_counting_all_outcomes_of_fair_coins(discordant):
    outcomes = coin_sequences(discordant)
    worse = [w for w in outcomes if w < discordant - w]
    assert chance_of_worse_if_equal(discordant) == pytest.approx(len(worse) / len(outcomes))


@pytest.mark.parametrize("pairs", [40, 100])
def test_the_bare_rule_calls_equal_policies_worse_in_nearly_half_of_the_experiments(pairs):
    """Both truly at 80 %, correlation 0.4: a pair is discordant with probability 2 x 0.8 x 0.2 x (1 - 0.4)."""
    p = 0.192
    chance = sum(
        math.comb(pairs, d) * p**d * (1 - p) ** (pairs - d) * chance_of_worse_if_equal(d) for d in range(pairs + 1)
    )
    assert 0.42 <= chance <= 0.46


# ---- intervals ------------------------------------------------------------------------------------------------------


def test_the_paired_interval_agrees_with_a_published_example():
    """Cavo et al. (2012) in Fagerland, Lydersen, Laake, Statistical Analysis of Contingency Tables (2017), ch. 8."""
    counts = PairedCounts(both=59, only_option=6, only_reference=16, neither=80)
    low, high = paired_difference_interval(counts, 0.95)
    assert (round(low, 4), round(high, 4)) == (-0.1186, -0.0046)


def test_the_wilson_interval_agrees_with_a_published_example():
    """Newcombe, Statistics in Medicine 17 (1998) 857-872, table I: 81 of 263, and 0 of 20."""
    assert wilson_interval(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)


def test_the_paired_interval_is_symmetric_in_the_two_options():
    low, high = paired_difference_interval(PairedCounts(10, 3, 7, 5), 0.95)
    assert paired_difference_interval(PairedCounts(10, 7, 3, 5), 0.95) == pytest.approx((-high, -low))


@pytest.mark.parametrize("counts", [(20, 0, 0, 0), (0, 0, 0, 20), (0, 20, 0, 0), (0, 0, 20, 0), (10, 0, 0, 10)])
def test_extreme_tables_have_an_interval_that_stays_within_bounds(counts):
    counts = PairedCounts(*counts)
    low, high = paired_difference_interval(counts, 0.95)
    assert -1 <= low <= counts.difference <= high <= 1
    assert low < high


def all_tables(n):
    cells = itertools.product(range(n + 1), repeat=3)
    return [PairedCounts(*three, n - sum(three)) for three in cells if sum(three) <= n]


def probability(table, truth):
    cells = (table.both, table.only_reference, table.only_option, table.neither)
    ways = math.factorial(table.pairs) // math.prod(math.factorial(cell) for cell in cells)
    return ways * math.prod(p**cell for p, cell in zip(truth, cells, strict=True))


def test_the_paired_interval_covers_the_truth_as_often_as_it_says():
    """Exact coverage at 12 pairs: every table, weighted by its probability under truths of several correlations."""
    intervals = {table: paired_difference_interval(table, 0.95) for table in all_tables(12)}
    truths = [(0.4, 0.1, 0.1, 0.4), (0.64, 0.16, 0.16, 0.04), (0.5, 0.05, 0.25, 0.2), (0.1, 0.3, 0.5, 0.1)]
    for truth in truths:
        difference = truth[2] - truth[1]
        coverage = sum(
            probability(table, truth) for table, (low, high) in intervals.items() if low <= difference <= high
        )
        assert 0.94 <= coverage <= 0.995, truth
