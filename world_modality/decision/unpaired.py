"""The exact test of a difference of two success rates whose episodes are not paired."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from world_modality.decision.exact import (
    DOUBT,
    TIE,
    ExactTest,
    OneSided,
    binomial_weights,
    possible_shares,
    share_grid,
    upper_end,
)

Counted = tuple[int, int]  # successes, episodes


def score_statistic(option, reference, difference):
    """Score statistic of the hypothesis that the true difference is `difference`; successes as arrays or numbers.

    O. Miettinen, M. Nurminen, Comparative analysis of two rates, Statistics in Medicine 4 (1985) 213-226. Not
    statsmodels' `test_proportions_2indep`: its restricted rates are not the most likely ones where the two numbers of
    episodes differ, and rounding makes it NaN where rates are near 0 or 1 (0.14.6).

    Args:
        option, reference: successes and episodes.
    """
    (won, n), (base_won, m) = option, reference
    won, base_won = np.broadcast_arrays(np.asarray(won, float), np.asarray(base_won, float))
    total, successes = n + m, won + base_won
    # The reference's most likely rate, if this were the difference, is a root of a cubic equation.
    squared = ((n + 2 * m) * difference - total - successes) / (3 * total)
    linear = ((m * difference - total - 2 * base_won) * difference + successes) / (3 * total)
    q = squared**3 - 1.5 * squared * linear + base_won * difference * (1 - difference) / (2 * total)
    p = np.copysign(np.sqrt(np.maximum(squared**2 - linear, 0)), q)
    angle = (np.pi + np.arccos(np.clip(q / np.where(p == 0, 1, p**3), -1, 1))) / 3
    low = np.clip(2 * p * np.cos(angle) - squared, max(0.0, -difference), min(1.0, 1 - difference))
    high = low + difference
    variance = (high * (1 - high) / n + low * (1 - low) / m) * total / (total - 1)
    deviation = won / n - base_won / m - difference
    return np.where(deviation == 0, 0.0, deviation / np.sqrt(np.maximum(variance, 1e-24)))


def score_limit(option: Counted, reference: Counted, z: float) -> float:
    """Upper end of the score interval of the difference."""
    mean = option[0] / option[1] - reference[0] / reference[1]
    return upper_end(lambda value: float(score_statistic(option, reference, value)), mean, z)


@dataclass(frozen=True, eq=False)
class UnpairedTail:
    """All outcomes that speak for a small difference at least as much as one does (`exact.Tail`).

    Args:
        limit: the largest `score_limit` of them.
        episodes: of the option.
        most: (reference's episodes + 1,) most successes of the option in such an outcome, for each number of successes
            of the reference; -1: none has so few.
    """

    limit: float
    episodes: int
    most: np.ndarray

    @classmethod
    def below(cls, limit: float, option_episodes: int, reference_episodes: int, z: float) -> UnpairedTail:
        """The outcomes whose `score_limit` is at most `limit`."""
        successes = np.arange(reference_episodes + 1)
        few, most = np.full_like(successes, -1), np.full_like(successes, option_episodes)
        while limit < 1 and (few < most).any():
            middle = (few + most + 1) // 2
            scores = score_statistic((middle, option_episodes), (successes, reference_episodes), limit)
            inside = scores <= TIE - z
            few, most = np.where(inside, middle, few), np.where(inside, most, middle - 1)
        return cls(limit, option_episodes, most)

    def chances(self, difference: float, nuisance: np.ndarray) -> np.ndarray:
        """Probability of the tail, for one true difference and several success rates of the reference.

        Args:
            nuisance: (n,) rates; one that the difference does not leave possible counts as the next that it does.

        Returns:
            (n,) probabilities.
        """
        rates = np.clip(nuisance, max(0.0, -difference), min(1.0, 1 - difference))
        successes, weights = binomial_weights(len(self.most) - 1, rates)
        most = self.most[successes]
        tails = special.bdtr(np.maximum(most, 0), self.episodes, np.clip(rates + difference, 0, 1)[:, None])
        return (weights * np.where(most < 0, 0.0, tails)).sum(axis=1)


def unpaired_test(option: Counted, reference: Counted, order: float) -> ExactTest:
    """The exact test of a difference of two success rates; its nuisance is the true rate of one of them.

    Args:
        order: one-sided level of the score interval that orders the outcomes.
    """
    z = float(special.ndtri(1 - order))

    def below(option: Counted, reference: Counted) -> OneSided:
        tail = UnpairedTail.below(score_limit(option, reference, z), option[1], reference[1], z)
        grid = share_grid(option[1] + reference[1])
        return OneSided(tail, grid[possible_shares(*reference, grid, DOUBT * order)], DOUBT * order)

    return ExactTest(below=below(option, reference), mirrored=below(reference, option))
