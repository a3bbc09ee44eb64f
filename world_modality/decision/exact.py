"""Exact tests of a difference, for a number of episodes chosen beforehand, and the intervals they leave.

A score statistic says which outcomes are further out, but its normal approximation lets it reject too often. Here its
order is kept and its p-value is computed: the probability, under the hypothesis, of an outcome at least as far out as
the observed one. That probability depends on a *nuisance*, which the hypothesis leaves open (the share of discordant
pairs; the reference's success rate). The p-value is the largest probability for any value of it that the observed
outcome leaves possible, plus a small `doubt` for all other values (R. L. Berger, D. D. Boos, Journal of the American
Statistical Association 89 (1994) 1012-1016).

Outcomes are ordered by the end of the score interval, one order for every hypothesis, and a worse outcome (a loss in
place of a tie, a tie in place of a win) is always further out. So the p-value is monotone in the hypothesis, and the
end of the exact interval is where it equals the level (R. J. Buehler, ibid. 52 (1957) 482-493). A test and its interval
never contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import optimize, special
from statsmodels.stats.proportion import proportion_confint

from world_modality.decision.pairs import Side

DOUBT = 0.002  # share of the level that is spent on a nuisance outside the range that is searched
TIE = 1e-7  # statistics this close to each other are equal: what is left between them is rounding


class Tail(Protocol):
    """All outcomes at least as far out as one is, on the side of small differences.

    Args:
        limit: the upper end of their score intervals: that of the observed outcome.
    """

    limit: float

    def chances(self, difference: float, nuisance: np.ndarray) -> np.ndarray:
        """(n,) probabilities of the tail, for one true difference and (n,) values of the nuisance."""


@dataclass(frozen=True, eq=False)
class OneSided:
    """The exact test of the claim that the true difference is below a bound.

    Args:
        nuisance: (n,) the values of it that the observed outcome leaves possible.
        doubt: chance that its true value is not among them.
    """

    tail: Tail
    nuisance: np.ndarray
    doubt: float

    def p_value(self, bound: float) -> float:
        return min(1.0, self.doubt + self._chance(bound))

    def limit(self, level: float) -> float:
        """The largest difference that is not rejected at a level; 1 where all are possible.

        The value of the nuisance at which the tail's probability is largest hardly moves: the root is found for one
        value, and again where another one then has the larger probability.
        """
        level -= self.doubt
        low, high, guess = -1.0, 1.0, self.tail.limit  # the probability is above the level at low, and not at high
        if self._chance(high) > level:
            return high
        while high - low > 1e-8:
            chances = self.tail.chances(guess, self.nuisance)
            if abs(chances.max() - level) < 1e-8:
                return guess
            low, high = (guess, high) if chances.max() > level else (low, guess)
            guess = self._root(self.nuisance[[chances.argmax()]], level, low, high)
        return guess

    def _chance(self, difference: float) -> float:
        return float(self.tail.chances(difference, self.nuisance).max())

    def _root(self, nuisance: np.ndarray, level: float, low: float, high: float) -> float:
        """Where the tail's probability for one nuisance is the level; the middle where that is not between the two."""

        def excess(value: float) -> float:
            return float(self.tail.chances(value, nuisance)[0]) - level

        if excess(low) > 0 > excess(high):
            root = float(optimize.brentq(excess, low, high, xtol=1e-10))
            return root if low < root < high else (low + high) / 2
        return (low + high) / 2


@dataclass(frozen=True, eq=False)
class ExactTest:
    """Both sides of a difference.

    Args:
        below: the claim that the option's success rate minus the reference's is below a bound.
        mirrored: the claim that the reference's minus the option's is.
    """

    below: OneSided
    mirrored: OneSided

    def p_value(self, bound: float, side: Side) -> float:
        """P-value of the claim that the true difference is above (or below) a bound."""
        return self.below.p_value(bound) if side == "below" else self.mirrored.p_value(-bound)

    def limit(self, level: float, side: Side) -> float:
        """The furthest bound that the difference is not shown to be above (or below), at a one-sided level."""
        return self.below.limit(level) if side == "below" else -self.mirrored.limit(level)


def upper_end(score: Callable[[float], float], mean: float, z: float) -> float:
    """Upper end of a score interval: the largest difference that a score statistic does not reject.

    Args:
        score: the statistic of the hypothesis that the difference is its argument.
        mean: the observed difference.
        z: the statistic's quantile.
    """
    almost = 1 - 1e-9  # at 1 itself the statistic has no variance
    if mean >= almost or score(almost) + z > 0:
        return 1.0
    return float(optimize.brentq(lambda value: score(value) + z, mean, almost, xtol=1e-12))


def share_grid(number: int) -> np.ndarray:
    """(n,) shares from 0 to 1, so close together that no probability of `number` trials has a peak between two."""
    return np.sin(np.linspace(0, math.pi / 2, 64 + math.ceil(8 * math.sqrt(number)))) ** 2


def binomial_weights(number: int, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The counts that binomial variables are likely to have: all but about 1e-10 of the probability.

    Args:
        shares: (n,) the probability of one trial.

    Returns:
        (n, w) counts around each mean and (n, w) their probabilities; 0 for a count beyond `number`.
    """
    shares = shares[:, None]
    reach = 6.5 * np.sqrt(number * shares * (1 - shares)) + 6
    first = np.maximum(number * shares - reach, 0).astype(int)
    counts = first + np.arange(min(number + 1, int(2 * reach.max()) + 3))
    beyond, counts = counts > number, np.minimum(counts, number)
    combinations = special.gammaln(number + 1) - special.gammaln(counts + 1) - special.gammaln(number - counts + 1)
    weights = special.xlogy(counts, shares) + special.xlogy(number - counts, 1 - shares) + combinations
    return counts, np.where(beyond, 0.0, np.exp(weights))


def possible_shares(count, total: float, grid: np.ndarray, doubt: float) -> np.ndarray:
    """Where in a sorted grid a true share can lie that was seen `count` times of `total`, but for a chance of `doubt`.

    The interval of Clopper and Pearson, widened to the next points of the grid.

    Returns:
        (..., grid) bool, for a count of shape (...).
    """
    low, high = proportion_confint(np.minimum(count, total), total, alpha=doubt, method="beta")
    first = np.asarray(np.searchsorted(grid, low, "right") - 1)[..., None]
    last = np.asarray(np.searchsorted(grid, high, "left"))[..., None]
    return (np.arange(len(grid)) >= first) & (np.arange(len(grid)) <= last)
