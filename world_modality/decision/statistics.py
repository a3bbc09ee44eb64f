"""What counts of successes are worth: pairs of episodes, tests and intervals of their difference, power, verdicts.

Two options are compared on *pairs*: the same task, initial state, simulator seed, noise seed and training seed. A pair
says which of the two did better, or that neither did; only *discordant* pairs, where one did, tell them apart. Pairs
that begin at one initial state (several training seeds) are no independent evidence: they are a *cluster*, and every
test and interval counts clusters. With one training seed a cluster is a pair.

Two one-sided questions are asked of a comparison, each with its p-value: is the option worse (`p_worse`), and does it
lose less than the margin (`p_non_inferior`)? They make the verdict:

    NON_INFERIOR  it loses less than the margin: that much would not matter
    INFERIOR      not the former, and it is worse
    INCONCLUSIVE  neither

A false `INFERIOR` (of an option as good as its reference) and a false `NON_INFERIOR` (of one that loses the margin or
more) are each made at most at the level. With `stopping: fixed` that holds for a number of episodes chosen beforehand;
with `anytime` for any number, chosen at any look, because both p-values come from e-processes.

What scipy and statsmodels have is taken from there; the paired score interval, the test on clusters and the e-process
are not in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from scipy import optimize, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

PAIR_KEY = ["task", "init_state_sha256", "train_seed", "env_seed", "noise_seed"]

Interval = tuple[float, float]
Stopping = Literal["fixed", "anytime"]
Conclusion = Literal["NON_INFERIOR", "INFERIOR", "INCONCLUSIVE"]

BETS = 64  # grid of the e-process's mixture


# ---- pairs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairedCounts:
    """The four kinds of pairs of an option and the reference it is compared with."""

    both: int
    only_reference: int
    only_option: int
    neither: int

    @property
    def pairs(self) -> int:
        return self.both + self.only_reference + self.only_option + self.neither

    @property
    def correlation(self) -> float | None:
        """Phi, the correlation of the two outcomes of a pair; None where one option's outcomes are all the same."""
        option, reference = self.both + self.only_option, self.both + self.only_reference
        spread = option * (self.pairs - option) * reference * (self.pairs - reference)
        if not spread:
            return None
        return (self.both * self.neither - self.only_option * self.only_reference) / math.sqrt(spread)


@dataclass(frozen=True, eq=False)
class Differences:
    """Who did better in each pair: 1 the option, -1 the reference, 0 neither.

    Args:
        values: (clusters, repeats) integers; a row holds the pairs of one initial state. Rows stand in the order in
            which the initial states are numbered, not by task, so that a longer evaluation appends rows.
        rounds: (clusters,) number of each row's initial state; a round holds one of every task.
    """

    values: np.ndarray
    rounds: np.ndarray

    @property
    def pairs(self) -> int:
        return self.values.size

    @property
    def wins(self) -> int:
        """Pairs in which the option did better."""
        return int((self.values > 0).sum())

    @property
    def losses(self) -> int:
        """Pairs in which the reference did better."""
        return int((self.values < 0).sum())

    @property
    def mean(self) -> float:
        """Share of pairs won minus share lost, in [-1, 1]; for successes the difference of the success rates."""
        return float(self.values.mean())

    @cached_property
    def design_effect(self) -> float:
        return design_effect(self.values)

    @property
    def effective(self) -> tuple[float, float, float]:
        """Wins, losses and pairs of independent pairs that would be worth as much."""
        return self.wins / self.design_effect, self.losses / self.design_effect, self.pairs / self.design_effect


def design_effect(values: np.ndarray) -> float:
    """How many clustered observations are worth one independent one, at least 1.

    The variance of the mean computed from clusters over that computed as if all were independent (J. N. K. Rao,
    A. J. Scott, Biometrics 48 (1992) 577-585).

    Args:
        values: (clusters, repeats).
    """
    clusters, repeats = values.shape
    centered = values - values.mean()
    independent = (centered**2).sum()
    if repeats == 1 or clusters == 1 or not independent:
        return 1.0
    by_cluster = (centered.sum(axis=1) ** 2).sum() * clusters / (clusters - 1)
    return max(1.0, float(by_cluster / independent))


def pair_outcomes(
    episodes: pl.DataFrame, option: str, reference: str, tasks: Sequence[int], other_noise: bool = False
) -> pl.DataFrame:
    """Pair the episodes of two options on some tasks: one row per pair, the reference's columns ending in _reference.

    Args:
        episodes: one row per episode with the columns option, init_state_id and those of `PAIR_KEY`.
        other_noise: the option is rolled out with noise seeds of its own, which then are no part of the key.

    Raises:
        ValueError: an episode is unpaired, or an initial state lacks a training seed that another one has; polars'
            ComputeError: one stands there twice.
    """
    key = [column for column in PAIR_KEY if not (other_noise and column == "noise_seed")]
    chosen = episodes.filter(pl.col("task").is_in(list(tasks)))
    own, other = chosen.filter(option=option), chosen.filter(option=reference)
    pairs = own.join(other, on=key, how="inner", validate="1:1", suffix="_reference")
    if not len(pairs) == len(own) == len(other) or pairs.is_empty():
        raise ValueError(f"{option} and {reference}: {len(own)} and {len(other)} episodes make {len(pairs)} pairs")
    repeats = pairs.group_by("task", "init_state_sha256").len()["len"]
    if repeats.n_unique() != 1:
        raise ValueError(f"{option} and {reference}: {repeats.min()} to {repeats.max()} pairs of one initial state")
    return pairs.sort("init_state_id", "task", "train_seed")


def count_pairs(pairs: pl.DataFrame) -> PairedCounts:
    """Count `pair_outcomes` by who succeeded."""
    kinds = pairs.group_by("success", "success_reference").len()
    count = {(mine, theirs): n for mine, theirs, n in kinds.iter_rows()}
    return PairedCounts(
        both=count.get((True, True), 0),
        only_reference=count.get((False, True), 0),
        only_option=count.get((True, False), 0),
        neither=count.get((False, False), 0),
    )


def differences(pairs: pl.DataFrame, column: str) -> Differences:
    """Who did better in each of the `pair_outcomes`, by a column of which more is better."""
    signs = (pairs[column].cast(pl.Int64) - pairs[f"{column}_reference"].cast(pl.Int64)).sign()
    clusters = pairs.select("init_state_id", "task").unique(maintain_order=True)
    return Differences(
        values=signs.to_numpy().reshape(len(clusters), -1),
        rounds=clusters["init_state_id"].to_numpy(),
    )


# ---- one rate -------------------------------------------------------------------------------------------------------


def rate_interval(outcomes: np.ndarray, confidence: float, method: Literal["wilson", "beta"]) -> Interval:
    """Interval of one success rate.

    Args:
        outcomes: (initial states, repeats) of 0 and 1.
        method: wilson, the score interval, or beta, the exact one of Clopper and Pearson.
    """
    worth = outcomes.size / design_effect(outcomes)
    low, high = proportion_confint(outcomes.mean() * worth, worth, alpha=1 - confidence, method=method)
    return float(low), float(high)


# ---- tests and intervals of a difference, for a number of pairs chosen beforehand ----------------------------------


def exact_test(difference: Differences, alternative: Literal["two-sided", "less", "greater"] = "two-sided") -> float:
    """P-value of McNemar's exact test, with clusters: were both options alike, a fair coin would say who won each.

    Each cluster's net wins keep their size and are given a sign by the coin. Strata change nothing: given the
    discordant pairs of each task, those of all tasks together are as many fair coins. With one pair to a cluster this
    is the binomial test of the discordant pairs.

    Args:
        alternative: less (the option is worse than the reference), greater (it is better) or two-sided.
    """
    net = difference.values.sum(axis=1)
    sizes, counts = np.unique(np.abs(net), return_counts=True)
    reach = int(np.abs(net).sum())
    chances = np.ones(1)  # of every sum from -reach to reach, in steps of 1
    for size, count in zip(sizes[sizes > 0], counts[sizes > 0], strict=True):
        coins = np.zeros(2 * size * count + 1)
        coins[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, coins)
    sums, seen = np.arange(-reach, reach + 1), int(net.sum())
    extreme = {"less": sums <= seen, "greater": sums >= seen, "two-sided": np.abs(sums) >= abs(seen)}[alternative]
    return min(1.0, float(chances[extreme].sum()))


def score_statistic(wins, losses, pairs, difference):
    """Tango's score statistic of the hypothesis that the true difference is `difference`; arrays or numbers.

    T. Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design,
    Statistics in Medicine 17 (1998) 891-908.
    """
    b = -wins - losses + (2 * pairs - wins + losses) * difference
    c = -losses * difference * (1 - difference)
    lost = (np.sqrt(np.maximum(b * b - 8 * pairs * c, 0)) - b) / (4 * pairs)  # probability of a loss, if it were true
    variance = pairs * (2 * lost + difference * (1 - difference))
    deviation = wins - losses - pairs * difference
    spread = np.sqrt(np.maximum(variance, 0))
    return np.where(deviation == 0, 0.0, deviation / np.where(spread > 0, spread, 1e-12))


def score_interval(difference: Differences, confidence: float) -> Interval:
    """Tango's interval of the difference: all values that `score_statistic` does not reject."""
    wins, losses, pairs = difference.effective
    z, mean = stats.norm.isf((1 - confidence) / 2), difference.mean

    def end(edge: float, quantile: float) -> float:
        def excess(value: float) -> float:
            return float(score_statistic(wins, losses, pairs, value)) - quantile

        inside = 1e-9  # at the very edge the statistic has no variance
        if excess(edge - math.copysign(inside, edge)) * math.copysign(1, edge) > 0 or (abs(mean) == 1 and mean == edge):
            return edge
        return float(optimize.brentq(excess, min(edge, mean), max(edge, mean), xtol=1e-10))

    return end(-1.0, z), end(1.0, -z)


# ---- the same for any number of pairs, at any look -----------------------------------------------------------------


def e_values(difference: Differences, bound: float, side: Literal["above", "below"]) -> np.ndarray:
    """The evidence, round by round, that the true difference is above (or below) a bound: an e-process.

    A gambler who stakes a fixed share of what he has on every cluster cannot expect to win where the difference is
    not beyond the bound; the e-value is the mean fortune of `BETS` gamblers, from timid to bold. By Ville's inequality
    it ever reaches 1/level with probability at most the level (I. Waudby-Smith, A. Ramdas, Journal of the Royal
    Statistical Society B 86 (2024) 1-27). For bound 0 this is a bet on the discordant pairs alone.

    Tasks may differ in their difference: over a whole round, in which each has its turn, the fortune is still not
    expected to grow, so only whole rounds are looked at.

    Returns:
        (rounds,) e-values.
    """
    gains = difference.values.mean(axis=1) - bound
    gains = gains if side == "above" else -gains
    worst = 1 + bound if side == "above" else 1 - bound  # the largest loss of a unit stake
    if worst <= 0:
        return np.full(len(np.unique(difference.rounds)), np.inf)
    stakes = (np.arange(BETS) + 0.5) / BETS / worst
    fortunes = np.cumsum(np.log1p(np.outer(gains, stakes)), axis=0)
    last = np.flatnonzero(np.diff(difference.rounds, append=-1))
    return np.exp(np.logaddexp.reduce(fortunes[last], axis=1) - math.log(BETS))


def anytime_p_value(difference: Differences, bound: float, side: Literal["above", "below"]) -> float:
    """P-value of the same, valid whenever one stops: 1 over the largest e-value seen so far."""
    return min(1.0, 1 / float(e_values(difference, bound, side).max()))


def anytime_interval(difference: Differences, confidence: float) -> Interval:
    """All differences that neither one-sided e-process has ever rejected: a confidence sequence's current interval.

    Where the pairs drift, what earlier ones rejected may lie on this side of what was observed in the end: the interval
    is then widened to hold that.
    """
    level, mean = (1 - confidence) / 2, difference.mean

    def end(side: Literal["above", "below"]) -> float:
        def excess(bound: float) -> float:
            return anytime_p_value(difference, bound, side) - level

        edge = -1.0 if side == "above" else 1.0
        return edge if excess(edge) > 0 else float(optimize.brentq(excess, edge, -edge, xtol=1e-6))

    return min(end("above"), mean), max(end("below"), mean)


# ---- the verdict ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What the pairs of a comparison say of its difference."""

    difference: float
    interval: Interval
    p_two_sided: float
    p_worse: float
    p_non_inferior: float
    design_effect: float


def weigh(difference: Differences, margin: float, confidence: float, stopping: Stopping) -> Evidence:
    """Test a difference for being below zero, and for being above minus the margin."""
    if stopping == "anytime":
        worse, better = (anytime_p_value(difference, 0.0, side) for side in ("below", "above"))
        interval = anytime_interval(difference, confidence)
        two_sided, non_inferior = min(1.0, 2 * min(worse, better)), anytime_p_value(difference, -margin, "above")
    else:
        worse, two_sided = exact_test(difference, "less"), exact_test(difference)
        interval = score_interval(difference, confidence)
        non_inferior = float(stats.norm.sf(score_statistic(*difference.effective, -margin)))
    return Evidence(difference.mean, interval, two_sided, worse, non_inferior, difference.design_effect)


def conclude(p_worse: float, p_non_inferior: float, level: float) -> Conclusion:
    """The verdict of two one-sided p-values."""
    if p_non_inferior <= level:
        return "NON_INFERIOR"
    return "INFERIOR" if p_worse <= level else "INCONCLUSIVE"


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the chance of any false rejection among them stays below the level."""
    if len(p_values) < 2:
        return list(p_values)
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


# ---- what a number of pairs can say ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What the true difference of two options is, and in which share of pairs they differ at all."""

    difference: float
    discordance: float

    @classmethod
    def plausible(cls, difference: float, discordance: float) -> Truth:
        """With a given discordance, or the least that a difference needs."""
        return cls(difference, max(discordance, abs(difference)))

    @classmethod
    def of_rates(cls, reference: float, difference: float, correlation: float) -> Truth:
        """From the reference's success rate and the correlation of a pair's two outcomes."""
        option = reference + difference
        shared = correlation * math.sqrt(option * (1 - option) * reference * (1 - reference))
        return cls(difference, option * (1 - reference) + reference * (1 - option) - 2 * shared)


@dataclass(frozen=True)
class Odds:
    """How often a true difference is judged in each way."""

    bare_rule_worse: float  # fewer successes than the reference
    non_inferior: float
    inferior: float


def odds(pairs: int, truth: Truth, margin: float, level: float) -> Odds:
    """How often `pairs` independent pairs lead to each verdict: the sum over all their outcomes, none simulated."""
    low, high = stats.binom.interval(1 - 1e-9, pairs, truth.discordance)
    discordant = np.arange(max(0, int(low) - 1), min(pairs, int(high) + 1) + 1)[:, None]
    share = (truth.discordance + truth.difference) / (2 * truth.discordance) if truth.discordance else 0.5
    reach = 2 + int(3.5 * math.sqrt(discordant.max()))  # seven standard deviations of the wins, at most
    wins = np.rint(discordant * share).astype(int) + np.arange(-reach, reach + 1)
    chance = stats.binom.pmf(discordant, pairs, truth.discordance) * stats.binom.pmf(wins, discordant, share)
    wins = np.clip(wins, 0, discordant)  # what lies outside has no chance
    losses = discordant - wins
    non_inferior = stats.norm.sf(score_statistic(wins, losses, pairs, -margin)) <= level
    inferior = (stats.binom.cdf(wins, discordant, 0.5) <= level) & ~non_inferior
    return Odds(*(float(chance[kind].sum()) for kind in (wins < losses, non_inferior, inferior)))


def pairs_to_settle(discordance: float, margin: float, level: float, power: float, most: int = 20_000) -> int | None:
    """About how many pairs settle the question: true equals are then judged non-inferior, and options that lose twice
    the margin inferior, each with a chance of at least `power`. None: more than `most`."""

    def settles(pairs: int) -> bool:
        equal = odds(pairs, Truth.plausible(0.0, discordance), margin, level)
        worse = odds(pairs, Truth.plausible(-2 * margin, discordance), margin, level)
        return equal.non_inferior >= power and worse.inferior >= power

    enough = 1
    while not settles(enough):
        enough *= 2
        if enough > most:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if settles(middle) else (middle, enough)
    return enough
