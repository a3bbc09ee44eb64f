"""What counts of successes are worth: pairs of episodes, an exact test of their difference, intervals.

Two options are compared on *pairs*: the same task, initial state, environment seed and training seed. Only discordant
pairs (one succeeded, the other failed) carry information about which is better.

Every function takes pairs or episodes as independent. Episodes of several checkpoints from one initial state are not:
the tests and intervals are then too confident, and whoever prints them must say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
from scipy import stats

PAIR_KEY = ["task", "init_state_sha256", "train_seed", "env_seed"]

Interval = tuple[float, float]


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
    def discordant(self) -> int:
        return self.only_reference + self.only_option

    @property
    def difference(self) -> float:
        """Success rate of the option minus that of the reference, in [-1, 1]."""
        return (self.only_option - self.only_reference) / self.pairs


def count_pairs(episodes: pl.DataFrame, option: str, reference: str, tasks: Sequence[int]) -> PairedCounts:
    """Pair the episodes of two options on some tasks.

    Args:
        episodes: one row per episode with the columns option, success and those of `PAIR_KEY`.

    Raises:
        ValueError: an episode is unpaired; polars' ComputeError: one stands there twice.
    """
    pairs = _paired(episodes, option, reference, tasks)
    kinds = pairs.group_by("success", "success_reference").len()
    count = {(mine, theirs): n for mine, theirs, n in kinds.iter_rows()}
    return PairedCounts(
        both=count.get((True, True), 0),
        only_reference=count.get((False, True), 0),
        only_option=count.get((True, False), 0),
        neither=count.get((False, False), 0),
    )


def _paired(episodes: pl.DataFrame, option: str, reference: str, tasks: Sequence[int]) -> pl.DataFrame:
    chosen = episodes.filter(pl.col("task").is_in(list(tasks)))
    own, other = chosen.filter(option=option), chosen.filter(option=reference)
    pairs = own.join(other, on=PAIR_KEY, how="inner", validate="1:1", suffix="_reference")
    if not len(pairs) == len(own) == len(other) or pairs.is_empty():
        raise ValueError(f"{option} and {reference}: {len(own)} and {len(other)} episodes make {len(pairs)} pairs")
    return pairs


def mcnemar_exact(counts: PairedCounts, alternative: str = "two-sided") -> float:
    """P-value of McNemar's exact test: given the discordant pairs, a fair coin says who won each.

    Args:
        alternative: two-sided, less (the option is worse than the reference) or greater (it is better).
    """
    if not counts.discordant:
        return 1.0
    return float(stats.binomtest(counts.only_option, counts.discordant, 0.5, alternative=alternative).pvalue)


def count_further(episodes: pl.DataFrame, option: str, reference: str, tasks: Sequence[int]) -> tuple[int, int, int]:
    """Pairs in which the option came further, in which the reference did, and in which they came equally far.

    Args:
        episodes: as for `count_pairs`, with the column stages: how many stages of the pickup an episode reached.
    """
    pairs = _paired(episodes, option, reference, tasks)
    further = (pairs["stages"] - pairs["stages_reference"]).sign().value_counts()
    count = dict(further.iter_rows())
    return count.get(1, 0), count.get(-1, 0), count.get(0, 0)


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of the exact sign test: given the pairs that differ, a fair coin says who won each."""
    return float(stats.binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def chance_of_worse_if_equal(discordant: int) -> float:
    """How often an option that is exactly as good as its reference has fewer successes, given the discordant pairs."""
    return float(stats.binom.cdf((discordant - 1) // 2, discordant, 0.5)) if discordant else 0.0


def wilson_interval(successes: int, episodes: int, confidence: float) -> Interval:
    """Wilson's score interval of one success rate."""
    interval = stats.binomtest(successes, episodes).proportion_ci(confidence_level=confidence, method="wilson")
    return float(interval.low), float(interval.high)


def paired_difference_interval(counts: PairedCounts, confidence: float) -> Interval:
    """Interval of the difference (option minus reference) of two success rates measured on the same pairs.

    Newcombe's method 10: the Wilson intervals of both rates, combined with the correlation of the pairs.
    R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired
    data, Statistics in Medicine 17 (1998) 2635-2650.
    """
    n = counts.pairs
    option = counts.both + counts.only_option
    reference = counts.both + counts.only_reference
    p1, (low1, high1) = option / n, wilson_interval(option, n, confidence)
    p2, (low2, high2) = reference / n, wilson_interval(reference, n, confidence)
    phi = _phi(counts)
    below = _combine(p1 - low1, high2 - p2, phi)
    above = _combine(high1 - p1, p2 - low2, phi)
    return counts.difference - below, counts.difference + above


def _combine(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _phi(counts: PairedCounts) -> float:
    """The pairs' correlation, a positive one shrunk by Newcombe's continuity correction; 0 where undefined."""
    option, reference = counts.both + counts.only_option, counts.both + counts.only_reference
    n = counts.pairs
    spread = option * (n - option) * reference * (n - reference)
    if not spread:
        return 0.0
    covariance = counts.both * counts.neither - counts.only_option * counts.only_reference
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    return covariance / math.sqrt(spread)
