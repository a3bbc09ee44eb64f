"""The exact test of a difference of pairs: Tango's score test, calibrated. Neither is in scipy or statsmodels."""

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
from world_modality.decision.pairs import Differences


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


def score_limit(wins: float, losses: float, pairs: float, z: float) -> float:
    """Upper end of Tango's interval."""
    return upper_end(lambda value: float(score_statistic(wins, losses, pairs, value)), (wins - losses) / pairs, z)


@dataclass(frozen=True, eq=False)
class PairedTail:
    """All outcomes of independent pairs that speak for a small difference at least as much as one does (`exact.Tail`).

    Args:
        limit: the largest `score_limit` of them.
        most_wins: (pairs + 1,) most wins of such an outcome with 0, 1, … discordant pairs; -1: none has so few.
    """

    limit: float
    most_wins: np.ndarray

    @classmethod
    def below(cls, limit: float, pairs: int, z: float) -> PairedTail:
        """The outcomes whose `score_limit` is at most `limit`."""
        discordant = np.arange(pairs + 1)
        few, most = np.full(pairs + 1, -1), discordant.copy()
        while limit < 1 and (few < most).any():
            middle = (few + most + 1) // 2
            inside = score_statistic(middle, discordant - middle, pairs, limit) <= TIE - z
            few, most = np.where(inside, middle, few), np.where(inside, most, middle - 1)
        return cls(limit, most)

    def chances(self, difference: float, nuisance: np.ndarray) -> np.ndarray:
        """Probability of the tail, for one true difference and several shares of discordant pairs.

        Args:
            nuisance: (n,) shares; one that is less than the difference needs counts as that.

        Returns:
            (n,) probabilities.
        """
        shares = np.maximum(nuisance, abs(difference))
        discordant, weights = binomial_weights(len(self.most_wins) - 1, shares)
        rows, columns = np.nonzero((weights > 1e-10) & (self.most_wins[discordant] >= 0))
        won = np.where(shares > 0, (shares + difference) / (2 * np.where(shares > 0, shares, 1)), 0.5)
        some = discordant[rows, columns]
        tails = special.bdtr(self.most_wins[some], some, np.clip(won[rows], 0, 1))
        return np.bincount(rows, weights[rows, columns] * tails, minlength=len(shares))


def paired_test(difference: Differences, order: float) -> ExactTest:
    """The exact test of a paired difference; its nuisance is the true share of discordant pairs.

    With one pair to a cluster, and if all pairs have the same probabilities of a win and of a loss, the level holds
    exactly. If tasks differ in them it is usually conservative (at worst, 5.8 % where one of two tasks of 20 pairs is
    discordant in every pair and the other in none). Clusters count as the independent pairs that they are worth
    (`Differences.effective`), rounded down: for them it holds in simulations (`benchmarks/paired_tests.py`).

    Args:
        order: one-sided level of the score interval that orders the outcomes.
    """
    wins, losses, pairs = difference.effective
    whole, z = max(1, int(pairs + 1e-9)), float(special.ndtri(1 - order))
    grid, doubt = share_grid(whole), DOUBT * order
    shares = grid[possible_shares(wins + losses, whole, grid, doubt)]

    def below(wins: float, losses: float) -> OneSided:
        return OneSided(PairedTail.below(score_limit(wins, losses, pairs, z), whole, z), shares, doubt)

    return ExactTest(below=below(wins, losses), mirrored=below(losses, wins))
