"""Tests, intervals, verdicts and their odds, against published worked examples and against brute force."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from scipy import optimize, stats

from world_modality.decision.statistics import (
    Differences,
    PairedCounts,
    Truth,
    anytime_interval,
    anytime_p_value,
    conclude,
    count_pairs,
    design_effect,
    differences,
    e_values,
    exact_test,
    holm,
    odds,
    pair_outcomes,
    pairs_to_settle,
    rate_interval,
    score_interval,
    score_statistic,
    weigh,
)

LEVEL = 0.05


def counted(wins, losses, ties=0):
    """Pairs of which each is a cluster and a round of its own."""
    return clustered([[1]] * wins + [[-1]] * losses + [[0]] * ties)


def clustered(rows, rounds=None):
    values = np.array(rows).reshape(len(rows), -1)
    return Differences(values, np.arange(len(values)) if rounds is None else np.array(rounds))


# ---- pairs ----------------------------------------------------------------------------------------------------------


def episodes(task=0, train_seeds=(0,), **successes):
    """Episodes of several options; their numbers are those of the initial states."""
    rows = [
        {
            "option": option,
            "task": task,
            "init_state_id": i,
            "init_state_sha256": f"{task} {i}",
            "train_seed": seed,
            "env_seed": 10 * task + i,
            "noise_seed": 100 * task + i,
            "success": success,
        }
        for option, outcomes in successes.items()
        for seed in train_seeds
        for i, success in enumerate(outcomes)
    ]
    return pl.DataFrame(rows)


def test_pairs_are_counted_by_who_succeeded():
    table = episodes(E0=[True, True, True, False, False, False], E2=[True, False, False, True, False, False])
    counts = count_pairs(pair_outcomes(table, "E2", "E0", [0]))
    assert counts == PairedCounts(both=1, only_reference=2, only_option=1, neither=2)


def test_the_order_of_the_episodes_does_not_matter():
    table = episodes(E0=[True, True, False, False], E2=[True, False, True, False])
    one, other = (differences(pair_outcomes(t, "E2", "E0", [0]), "success") for t in (table, table.reverse()))
    assert (one.values == other.values).all()
    assert one.values.ravel().tolist() == [0, -1, 1, 0]


def test_an_unpaired_episode_is_refused():
    with pytest.raises(ValueError, match="3 and 4 episodes make 3 pairs"):
        pair_outcomes(episodes(E0=[True] * 4, E2=[True] * 3), "E2", "E0", [0])


def test_a_duplicated_episode_is_refused():
    table = episodes(E0=[True, True], E2=[True, False])
    with pytest.raises(pl.exceptions.ComputeError):
        pair_outcomes(pl.concat([table, table]), "E2", "E0", [0])


@pytest.mark.parametrize("column", ["init_state_sha256", "env_seed", "noise_seed", "train_seed"])
def test_episodes_under_other_conditions_make_no_pair(column):
    table = episodes(E0=[True, True], E2=[True, False])
    other = pl.lit("other") if column == "init_state_sha256" else pl.col(column) + 7
    moved = table.with_columns(pl.when(pl.col("option") == "E2").then(other).otherwise(pl.col(column)).alias(column))
    with pytest.raises(ValueError, match="2 and 2 episodes make 0 pairs"):
        pair_outcomes(moved, "E2", "E0", [0])


def test_an_option_with_noise_of_its_own_is_paired_without_it():
    table = episodes(E0=[True, True], E0b=[True, False])
    moved = table.with_columns(noise_seed=pl.col("noise_seed") + (pl.col("option") == "E0b"))
    assert len(pair_outcomes(moved, "E0b", "E0", [0], other_noise=True)) == 2


def test_an_initial_state_that_lacks_a_training_seed_is_refused():
    table = episodes(train_seeds=(0, 1), E0=[True, True], E2=[True, False])
    torn = table.filter(~((pl.col("train_seed") == 1) & (pl.col("init_state_id") == 1)))
    with pytest.raises(ValueError, match="1 to 2 pairs of one initial state"):
        pair_outcomes(torn, "E2", "E0", [0])


def test_tasks_that_were_not_asked_for_are_left_out():
    both = pl.concat([episodes(task, E0=[True, True], E2=[True, False]) for task in (0, 1)])
    assert len(pair_outcomes(both, "E2", "E0", [1])) == 2
    assert len(pair_outcomes(both, "E2", "E0", [0, 1])) == 4


def test_a_cluster_holds_the_training_seeds_of_one_initial_state_and_a_round_the_tasks():
    both = pl.concat([episodes(t, (0, 1), E0=[True, False], E2=[False, not t]) for t in (0, 1)])
    found = differences(pair_outcomes(both, "E2", "E0", [0, 1]), "success")
    assert found.values.tolist() == [[-1, -1], [-1, -1], [1, 1], [0, 0]]
    assert found.rounds.tolist() == [0, 0, 1, 1]


def test_the_correlation_is_that_of_the_outcomes():
    counts = PairedCounts(both=11, only_reference=4, only_option=2, neither=8)
    option = [1] * 11 + [0] * 4 + [1] * 2 + [0] * 8
    reference = [1] * 11 + [1] * 4 + [0] * 2 + [0] * 8
    assert counts.correlation == pytest.approx(np.corrcoef(option, reference)[0, 1])
    assert PairedCounts(5, 3, 0, 0).correlation is None


# ---- clusters -------------------------------------------------------------------------------------------------------


def test_pairs_by_themselves_have_no_design_effect():
    assert counted(3, 5, 4).design_effect == 1


def test_seeds_that_repeat_each_other_are_worth_one():
    single = [[1]] * 6 + [[-1]] * 3 + [[0]] * 11
    tripled = clustered([row * 3 for row in single])
    assert tripled.design_effect == pytest.approx(3, rel=0.1)
    wins, losses, pairs = tripled.effective
    assert (wins, losses, pairs) == pytest.approx((6, 3, 20), rel=0.1)


def test_seeds_that_have_nothing_in_common_are_worth_nearly_all():
    values = np.random.default_rng(0).choice([-1, 0, 1], (4000, 3))
    assert design_effect(values) == pytest.approx(1, abs=0.1)


def test_clusters_never_make_the_evidence_stronger():
    assert design_effect(np.array([[1, -1]] * 5 + [[0, 0]] * 5)) == 1


def test_repeated_seeds_leave_the_verdict_as_uncertain_as_one_seed():
    single = [[1]] * 4 + [[-1]] * 10 + [[0]] * 26
    one, five = clustered(single), clustered([row * 5 for row in single])
    assert exact_test(five) == pytest.approx(exact_test(one))
    assert score_interval(five, 0.9) == pytest.approx(score_interval(one, 0.9), abs=0.01)
    assert anytime_p_value(five, 0.0, "below") == pytest.approx(anytime_p_value(one, 0.0, "below"))


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


# ---- the exact test -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discordant", range(10))
def test_the_exact_test_equals_counting_all_outcomes_of_fair_coins(discordant):
    outcomes = [sum(sequence) for sequence in itertools.product((0, 1), repeat=discordant)]
    for wins in range(discordant + 1):
        pairs = counted(wins, discordant - wins, 8)
        as_extreme = [w for w in outcomes if abs(w - discordant / 2) >= abs(wins - discordant / 2)]
        assert exact_test(pairs) == pytest.approx(len(as_extreme) / len(outcomes))
        assert exact_test(pairs, "less") == pytest.approx(sum(w <= wins for w in outcomes) / len(outcomes))
        assert exact_test(pairs, "greater") == pytest.approx(sum(w >= wins for w in outcomes) / len(outcomes))


def test_the_exact_test_agrees_with_a_published_example():
    """Bentur et al. (2009) in Fagerland, Lydersen, Laake, BMC Med. Res. Methodol. 13:91 (2013): P = 0.070."""
    assert exact_test(counted(1, 7, 13)) == pytest.approx(0.0703125)


def test_strata_change_nothing():
    """The coins of two tasks, tossed task by task and added up, are as many coins tossed at once."""
    first, second = (3, 1), (1, 4)  # wins and losses of each task
    chance = 0.0
    for coins in itertools.product((0, 1), repeat=sum(first + second)):
        tasks = coins[: sum(first)], coins[sum(first) :]
        chance += (sum(map(sum, tasks)) <= first[0] + second[0]) / 2 ** len(coins)
    assert exact_test(counted(4, 5, 6), "less") == pytest.approx(chance)


def test_clusters_are_given_their_sign_as_wholes():
    pairs = clustered([[1, 1], [1, 0], [-1, -1], [-1, -1], [1, -1]])
    net = [2, 1, 2, 2]
    sums = [sum(s * n for s, n in zip(signs, net, strict=True)) for signs in itertools.product((-1, 1), repeat=4)]
    assert exact_test(pairs, "less") == pytest.approx(sum(s <= -1 for s in sums) / len(sums))
    assert exact_test(pairs) == pytest.approx(sum(abs(s) >= 1 for s in sums) / len(sums))


# ---- the score test and interval ------------------------------------------------------------------------------------


def test_the_score_interval_agrees_with_a_published_example():
    """Bentur et al. (2009) in Fagerland, Lydersen, Laake, Statistics in Medicine 33 (2014): -0.517 to -0.026."""
    low, high = score_interval(counted(1, 7, 13), 0.95)
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


def test_the_score_interval_holds_what_is_not_rejected():
    pairs = counted(6, 16, 139)
    low, high = score_interval(pairs, 0.9)
    z = stats.norm.isf(0.05)
    assert float(score_statistic(6, 16, 161, low)) == pytest.approx(z, abs=1e-6)
    assert float(score_statistic(6, 16, 161, high)) == pytest.approx(-z, abs=1e-6)


def test_the_score_interval_is_symmetric_in_the_two_options():
    low, high = score_interval(counted(3, 7, 15), 0.95)
    assert score_interval(counted(7, 3, 15), 0.95) == pytest.approx((-high, -low))


@pytest.mark.parametrize("counts", [(0, 0, 20), (20, 0, 0), (0, 20, 0), (1, 0, 0), (10, 10, 0)])
@pytest.mark.parametrize("interval", [score_interval, anytime_interval])
def test_extreme_tables_have_an_interval_that_stays_within_bounds(interval, counts):
    pairs = counted(*counts)
    low, high = interval(pairs, 0.95)
    assert -1 <= low <= pairs.mean <= high <= 1
    assert low < high


def tables(pairs):
    return [(won, lost, pairs - won - lost) for won in range(pairs + 1) for lost in range(pairs + 1 - won)]


def chance_of(table, truth):
    won = (truth.discordance + truth.difference) / 2
    cells = (won, truth.discordance - won, 1 - truth.discordance)
    return stats.multinomial.pmf(table, sum(table), cells)


def test_the_score_interval_covers_the_truth_as_often_as_it_says():
    """Exact coverage at 14 pairs: every table, weighted by its probability."""
    intervals = {table: score_interval(counted(*table), 0.95) for table in tables(14)}
    for truth in (Truth(0.0, 0.2), Truth(0.0, 0.32), Truth(0.2, 0.3), Truth(-0.2, 0.4)):
        covered = sum(chance_of(t, truth) for t, (low, high) in intervals.items() if low <= truth.difference <= high)
        assert 0.93 <= covered <= 0.995, truth


# ---- at any look ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "bound", "truth"), [
    ("below", 0.0, Truth(0.0, 0.5)),
    ("below", 0.0, Truth(0.1, 0.4)),
    ("above", -0.1, Truth(-0.1, 0.3)),
    ("above", -0.1, Truth(-0.2, 0.5)),
])  # fmt: skip
def test_the_e_process_is_not_expected_to_grow_where_there_is_nothing_to_find(side, bound, truth):
    """Every sequence of 7 pairs: the mean e-value after each, and how often one ever reaches 1/level."""
    length, level = 7, 0.2
    means, crossed = np.zeros(length), 0.0
    for sequence in itertools.product((-1, 0, 1), repeat=length):
        chance = math.prod(chance_of(((s > 0), (s < 0), (s == 0)), truth) for s in sequence)
        values = e_values(clustered([[s] for s in sequence]), bound, side)
        means += chance * values
        crossed += chance * (values.max() >= 1 / level)
    assert (means <= 1 + 1e-9).all()
    assert 0 < crossed <= level


def test_only_whole_rounds_are_looked_at():
    """Two tasks with opposite differences: after half a round the fortune may be expected to have grown."""
    rows, rounds = [[-1], [1], [-1], [1]], [0, 0, 1, 1]
    values = e_values(clustered(rows, rounds), 0.0, "below")
    assert len(values) == 2
    assert (values <= 1).all()


def test_for_bound_0_only_discordant_pairs_count():
    """As a mixture over a uniform share of wins below one half, in closed form."""
    wins, losses = 3, 9
    closed = (
        2 ** (wins + losses + 1)
        * stats.beta.cdf(0.5, wins + 1, losses + 1)
        * math.exp(math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(wins + losses + 2))
    )
    mixed = e_values(counted(wins, losses, 20), 0.0, "below")[-1]
    assert mixed == pytest.approx(closed, rel=1e-3)
    assert e_values(counted(wins, losses), 0.0, "below")[-1] == pytest.approx(mixed)


def test_evidence_once_found_is_kept():
    found = clustered([[-1]] * 12 + [[1]] * 12)
    assert anytime_p_value(found, 0.0, "below") == anytime_p_value(counted(0, 12), 0.0, "below") < 0.01


def test_the_confidence_sequence_holds_what_was_never_rejected():
    pairs = clustered(np.random.default_rng(3).choice([-1, 0, 1], (60, 1), p=[0.3, 0.6, 0.1]))
    low, high = anytime_interval(pairs, 0.9)
    assert anytime_p_value(pairs, low, "above") == pytest.approx(0.05, rel=1e-3)
    assert anytime_p_value(pairs, high, "below") == pytest.approx(0.05, rel=1e-3)
    assert score_interval(pairs, 0.9)[0] > low  # what looking at any time costs


# ---- the verdict ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["fixed", "anytime"])
@pytest.mark.parametrize(("pairs", "expected"), [
    (counted(2, 0, 98), "NON_INFERIOR"),
    (counted(0, 40, 60), "INFERIOR"),
    (counted(4, 6, 10), "INCONCLUSIVE"),
])  # fmt: skip
def test_each_verdict_follows_from_its_pairs(stopping, pairs, expected):
    evidence = weigh(pairs, 0.1, 0.9, stopping)
    assert conclude(evidence.p_worse, evidence.p_non_inferior, LEVEL) == expected


def test_a_loss_below_the_margin_is_non_inferior_even_where_it_is_certain():
    evidence = weigh(counted(0, 20, 980), 0.1, 0.9, "fixed")
    assert evidence.p_worse < LEVEL
    assert conclude(evidence.p_worse, evidence.p_non_inferior, LEVEL) == "NON_INFERIOR"


@pytest.mark.parametrize(("wins", "losses", "ties"), [(2, 0, 40), (5, 9, 60), (3, 4, 33), (1, 7, 13), (0, 12, 40)])
def test_non_inferiority_is_read_off_the_interval(wins, losses, ties):
    evidence = weigh(counted(wins, losses, ties), 0.1, 0.9, "fixed")
    assert (evidence.p_non_inferior <= LEVEL) == (evidence.interval[0] >= -0.1)


def test_p_values_are_corrected_for_their_number():
    """Holm (1979): the smallest times their number, the next times one less, never falling."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


# ---- what a number of pairs can say ---------------------------------------------------------------------------------


@pytest.mark.parametrize("truth", [Truth(0.0, 0.3), Truth(-0.1, 0.25), Truth(-0.2, 0.2), Truth(0.0, 0.0)])
def test_the_odds_equal_the_sum_over_all_tables(truth):
    pairs, margin = 16, 0.15
    bare = non_inferior = inferior = 0.0
    for table in tables(pairs):
        evidence = weigh(counted(*table), margin, 0.9, "fixed")
        chance, said = chance_of(table, truth), conclude(evidence.p_worse, evidence.p_non_inferior, LEVEL)
        bare += chance * (table[0] < table[1])
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
    assert odds(100, equal, 0.10, LEVEL).non_inferior == pytest.approx(0.72, abs=0.005)
    assert odds(100, equal, 0.05, LEVEL).non_inferior == pytest.approx(0.30, abs=0.005)


def test_so_many_pairs_settle_it_and_no_fewer():
    enough = pairs_to_settle(0.192, 0.1, LEVEL, 0.8)
    equal, worse = Truth(0.0, 0.192), Truth(-0.2, 0.2)
    assert odds(enough, equal, 0.1, LEVEL).non_inferior >= 0.8
    assert odds(enough, worse, 0.1, LEVEL).inferior >= 0.8
    assert odds(enough - 5, equal, 0.1, LEVEL).non_inferior < 0.8
    assert pairs_to_settle(0.5, 0.001, LEVEL, 0.8, most=1000) is None
