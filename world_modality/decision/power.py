"""What a number of pairs can show: how often each verdict is reached, and how many pairs settle the question.

For a number of pairs chosen beforehand these are sums over all outcomes. For a run that looks after every round they
are simulated, with the same random numbers at every call.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special, stats

from world_modality.decision.exact import DOUBT, TIE, possible_shares, share_grid
from world_modality.decision.paired import PairedTail, score_statistic
from world_modality.decision.sequential import e_values_of_counts

CALIBRATED = 500  # beyond this many pairs the calibration changes next to nothing


@dataclass(frozen=True)
class Truth:
    """What the true difference of two options is, and in which share of pairs they differ at all."""

    difference: float
    discordance: float

    @classmethod
    def plausible(cls, difference: float, discordance: float) -> Truth:
        """With a given discordance, or the least that a difference needs."""
        difference = max(-1.0, min(1.0, difference))
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
    """How often `pairs` independent pairs lead to each verdict: the sum over all their outcomes, none simulated.

    More than `CALIBRATED` pairs are judged by the score test without calibration.
    """
    return _odds(pairs, truth, _limits(pairs, margin, level, exactly=pairs <= CALIBRATED), level)


@lru_cache(maxsize=64)
def critical_limits(pairs: int, bound: float, level: float) -> np.ndarray:
    """(pairs + 1,) for each number of discordant pairs, the largest score limit at which the exact test still finds the
    difference to be below `bound`; -1: it never does.

    The limits are searched on a grid around the bound, where the score test without calibration would draw the line.
    The grid separates all outcomes of few pairs, and most outcomes of many.
    """
    z, grid = float(special.ndtri(1 - level)), share_grid(pairs)
    limits = bound + np.linspace(-2, 1, max(24, 2000 // pairs)) / pairs
    sizes = np.array([PairedTail.below(limit, pairs, z).chances(bound, grid) for limit in limits])  # (limits, grid)
    possible = possible_shares(np.arange(pairs + 1), pairs, grid, DOUBT * level)  # (pairs + 1, grid)
    kept = DOUBT * level + np.where(possible[:, None], sizes, 0).max(axis=2) <= level  # (pairs + 1, limits)
    return np.where(kept, limits, -1.0).max(axis=1)


def _limits(pairs: int, margin: float, level: float, exactly: bool) -> tuple:
    """The score limits up to which each question is answered with yes: by the exact test, or by the score test."""
    return tuple(critical_limits(pairs, bound, level) if exactly else bound for bound in (0.0, margin))


def _odds(pairs: int, truth: Truth, limits: tuple, level: float) -> Odds:
    """The odds of a test that rejects up to these score limits: of being worse, and (mirrored) of losing the margin.

    Args:
        limits: two, each a number or (pairs + 1,) by the number of discordant pairs.
    """
    low, high = stats.binom.interval(1 - 1e-9, pairs, truth.discordance)
    discordant = np.arange(max(0, int(low) - 1), min(pairs, int(high) + 1) + 1)[:, None]
    share = (truth.discordance + truth.difference) / (2 * truth.discordance) if truth.discordance else 0.5
    reach = 2 + int(3.5 * math.sqrt(discordant.max()))  # seven standard deviations of the wins, at most
    wins = np.rint(discordant * share).astype(int) + np.arange(-reach, reach + 1)
    chance = stats.binom.pmf(discordant, pairs, truth.discordance) * stats.binom.pmf(wins, discordant, share)
    wins = np.clip(wins, 0, discordant)  # what lies outside has no chance
    losses, z = discordant - wins, float(special.ndtri(1 - level))
    worse, within = (np.broadcast_to(limit, pairs + 1)[discordant] for limit in limits)
    non_inferior = score_statistic(losses, wins, pairs, within) <= TIE - z
    inferior = (score_statistic(wins, losses, pairs, worse) <= TIE - z) & ~non_inferior
    return Odds(*(float(chance[kind].sum()) for kind in (wins < losses, non_inferior, inferior)))


def pairs_to_settle(discordance: float, margin: float, level: float, power: float, most: int = 20_000) -> int | None:
    """About how many pairs settle the question: true equals are then judged non-inferior, and options that lose twice
    the margin inferior, each with a chance of at least `power`. None: more than `most`.

    The search uses the score test without calibration; up to `CALIBRATED` pairs it then adds what the exact test needs.
    """
    truths = [Truth.plausible(0.0, discordance), Truth.plausible(-2 * margin, discordance)]

    def settles(pairs: int, exactly: bool) -> bool:
        limits = _limits(pairs, margin, level, exactly)
        equal, worse = (_odds(pairs, truth, limits, level) for truth in truths)
        return equal.non_inferior >= power and worse.inferior >= power

    enough = 1
    while not settles(enough, exactly=False):
        enough *= 2
        if enough > most:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if settles(middle, exactly=False) else (middle, enough)
    while enough <= CALIBRATED and not settles(enough, exactly=True):
        enough += max(1, enough // 25)
    return enough


# ---- looking after every round --------------------------------------------------------------------------------------

RUNS = 1000  # simulated runs: a chance of 80 % is known to within 3 points
MOST_LOOKS = 60  # of a simulated run; where there are more, some are left out, which changes its chances little


@dataclass(frozen=True)
class Stops:
    """Where simulated runs stopped, and with which verdict."""

    pairs: np.ndarray  # (runs,) used
    fewer: np.ndarray  # (runs,) bool: the option had fewer successes then
    non_inferior: np.ndarray  # (runs,) bool
    inferior: np.ndarray  # (runs,) bool


def simulate_stops(
    looks: Sequence[int],
    truth: Truth,
    margin: float,
    level: float,
    runs: int = RUNS,
    seen: Sequence[float] = (0, 0, 0),
) -> Stops:
    """Simulate runs that look at so many independent pairs each time, and stop once they are settled.

    Args:
        looks: rising numbers of pairs, in addition to those seen; at the last one a run stops in any case.
        seen: wins, losses and ties with which every run begins.
    """
    looks = np.asarray(looks)[:: -math.ceil(len(looks) / MOST_LOOKS)][::-1]
    win, loss = (truth.discordance + truth.difference) / 2, (truth.discordance - truth.difference) / 2
    rng = np.random.default_rng(0)
    steps = np.diff(looks, prepend=0)
    kinds = [max(0.0, win), max(0.0, loss), max(0.0, 1 - truth.discordance)]
    counts = np.stack([rng.multinomial(step, kinds, size=runs) for step in steps], axis=1).cumsum(axis=1) + np.asarray(
        seen
    )
    within = e_values_of_counts(counts, -margin, "above") >= 1 / level  # (runs, looks)
    worse = e_values_of_counts(counts, 0.0, "below") >= 1 / level
    settled = within | worse
    last = np.where(settled.any(axis=1), settled.argmax(axis=1), len(looks) - 1)
    at = (np.arange(runs), last)
    wins, losses, _ = counts[at].T
    return Stops(
        np.asarray(looks)[last], fewer=wins < losses, non_inferior=within[at], inferior=worse[at] & ~within[at]
    )


def odds_of_looks(looks: Sequence[int], truth: Truth, margin: float, level: float) -> Odds:
    """How often a run that looks at so many pairs ends in each verdict."""
    stops = simulate_stops(looks, truth, margin, level)
    return Odds(
        bare_rule_worse=float(stops.fewer.mean()),
        non_inferior=float(stops.non_inferior.mean()),
        inferior=float(stops.inferior.mean()),
    )


def looks_to_settle(
    step: int,
    seen: Sequence[float],
    truth: Truth,
    margin: float,
    level: float,
    power: float,
    most: int = 20_000,
) -> int | None:
    """At how many pairs a run is settled with a chance of `power`, if it goes on from those seen.

    Args:
        step: pairs between two looks.
        seen: wins, losses and ties.

    Returns:
        pairs in all, rounded up; None: more than `most`.
    """
    there, last = math.ceil(sum(seen) - 1e-9), step
    step = max(1, step)
    while there + (last := 2 * max(last, there, step)) <= most:
        stops = simulate_stops(range(step, last + 1, step), truth, margin, level, seen=seen)
        used = np.where(stops.non_inferior | stops.inferior, stops.pairs, most + 1)
        enough = int(np.quantile(used, power, method="higher"))
        if enough <= last:
            return there + enough
    return None
