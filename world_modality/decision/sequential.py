"""The test of a difference that may be looked at after any number of pairs: bets, and the interval they leave.

The counterpart for a number of pairs chosen beforehand is `exact.ExactTest`; both answer `p_value` and `limit`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from world_modality.decision.pairs import Differences, Side

BETS = 64  # gamblers in the e-process's mixture
# The share that each stakes of the most he may. Beta(2, 4) puts most gamblers where they win fastest if options differ
# by 10 to 30 points: that settles more comparisons with fewer pairs than a uniform prior (`benchmarks/stopping.py`).
STAKES = stats.beta(2, 4).ppf((np.arange(BETS) + 0.5) / BETS)
MOST = 700.0  # logarithm of the largest e-value that is told from infinity


def e_values(difference: Differences, bound: float, side: Side) -> np.ndarray:
    """The evidence, round by round, that the true difference is above (or below) a bound: an e-process.

    A gambler who stakes a fixed share of what he has on every cluster cannot expect to win where the difference is
    not beyond the bound; the e-value is the mean fortune of `BETS` gamblers, from timid to bold (`STAKES`). By Ville's
    inequality it ever reaches 1/level with probability at most the level (I. Waudby-Smith, A. Ramdas, Journal of the
    Royal Statistical Society B 86 (2024) 1-27). For bound 0 and one training seed, only discordant pairs change the
    fortune.

    Tasks may differ in their difference: over a whole round, in which each has its turn, the fortune is still not
    expected to grow, so only whole rounds are looked at.

    Returns:
        (rounds,) e-values.
    """
    last = np.flatnonzero(np.diff(difference.rounds, append=-1))
    fortunes = np.cumsum(_log_payoffs(difference.values.mean(axis=1), bound, side), axis=0)
    return _mixture(fortunes[last])


def _log_payoffs(values: np.ndarray, bound: float, side: Side) -> np.ndarray:
    """(n, BETS) by what each gambler's fortune is multiplied when a cluster has a value in [-1, 1]; its logarithm."""
    gains = values - bound if side == "above" else bound - values
    worst = 1 + bound if side == "above" else 1 - bound  # the largest loss of a unit stake
    if worst <= 0:
        return np.full((len(values), BETS), np.inf)
    return np.log1p(np.outer(gains, STAKES / worst))


def _mixture(log_fortunes: np.ndarray) -> np.ndarray:
    """The mean fortune of all gamblers: (..., BETS) -> (...)."""
    return np.exp(np.minimum(special.logsumexp(log_fortunes, axis=-1) - math.log(BETS), MOST))


@dataclass(frozen=True)
class SequentialTest:
    """The e-process of all pairs seen so far, as a test and as a confidence sequence.

    The evidence is what the gamblers own now, not the most they ever owned: so the interval always holds the observed
    difference, and verdict and interval describe the same pairs. A bound further out is a worse bet at every stake,
    so the p-value is monotone in the bound, and each end of the interval is where it equals the level.
    """

    difference: Differences

    def p_value(self, bound: float, side: Side) -> float:
        """P-value of the claim that the true difference is above (or below) a bound, valid whenever one stops."""
        return min(1.0, 1 / float(e_values(self.difference, bound, side)[-1]))

    def limit(self, level: float, side: Side) -> float:
        """The furthest bound that the difference is not shown to be above (or below), at a one-sided level."""

        def excess(bound: float) -> float:
            return self.p_value(bound, side) - level

        edge = -1.0 if side == "above" else 1.0
        return edge if excess(edge) > 0 else float(optimize.brentq(excess, edge, -edge, xtol=1e-9))


def e_values_of_counts(counts: np.ndarray, bound: float, side: Side) -> np.ndarray:
    """The e-values of single pairs, from how many of them there are of each kind.

    Args:
        counts: (..., 3) wins, losses and ties.

    Returns:
        (...) e-values.
    """
    return _mixture(counts @ _log_payoffs(np.array([1.0, -1.0, 0.0]), bound, side))
