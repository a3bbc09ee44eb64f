"""The test of a claim about methods, not about these checkpoints: it holds for other training seeds as well.

A training seed gives a checkpoint luck of its own, which all of its episodes share; and an initial state may suit one
option better than the other, whatever the seed. So the difference in the pair of state i and seed s is taken as

    difference(i, s) = mean + state(i) + seed(s) + rest(i, s)

and the variance of the mean of all pairs has a part of each. The parts are estimated from mean squares (two crossed
random effects; H. Scheffe, The Analysis of Variance, 1959, chapter 7). The mean is compared with Student's t of
seeds - 1 degrees of freedom, because seeds are the fewest. That is what makes verdicts rare with few seeds: the
quantile at 5 % is 6.3 for two seeds, 2.9 for three, 1.8 for ten. `benchmarks/calibration.py --claim methods` measures
how often the verdicts are false.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from pydantic import Field
from scipy import stats

from world_modality.artifacts.documents import Document
from world_modality.decision.pairs import Differences, Side
from world_modality.decision.power import Odds


class Spread(Document):
    """Why the mean difference of two methods would be another one with other seeds and initial states."""

    states: int = Field(description="initial states, of all tasks together")
    seeds: int = Field(description="training seeds")
    state: float = Field(description="variance between initial states, whatever the seed")
    seed: float = Field(description="variance between training seeds, whatever the initial state")
    rest: float = Field(description="variance of a single pair on top of both")

    def error(self, states: int, seeds: int) -> float:
        """Standard error of the mean difference with so many initial states and training seeds."""
        return math.sqrt(self.state / states + self.seed / seeds + self.rest / (states * seeds))

    @property
    def share_of_seeds(self) -> float:
        """Which share of the variance of the mean difference comes from the seeds; 0 if nothing varies."""
        return self.seed / self.seeds / self.error(self.states, self.seeds) ** 2 if self.seed else 0.0


@dataclass(frozen=True)
class MethodsTest:
    """Student's t test of the mean difference over initial states and training seeds; needs two seeds or more."""

    difference: Differences

    @property
    def seeds(self) -> int:
        return self.difference.values.shape[1]

    @cached_property
    def _mean_squares(self) -> tuple[float, float, float]:
        """Between initial states, between training seeds, and of the rest."""
        values = self.difference.values.astype(float)
        states, seeds = values.shape
        by_state, by_seed = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
        rest = values - by_state - by_seed + values.mean()
        between_states = seeds * ((by_state - values.mean()) ** 2).sum() / max(1, states - 1)
        between_seeds = states * ((by_seed - values.mean()) ** 2).sum() / (seeds - 1)
        return between_states, between_seeds, (rest**2).sum() / (max(1, states - 1) * (seeds - 1))

    @cached_property
    def spread(self) -> Spread:
        states, seeds, rest = self._mean_squares
        count = len(self.difference.values)
        return Spread(
            states=count,
            seeds=self.seeds,
            state=max(0.0, states - rest) / self.seeds,
            seed=max(0.0, seeds - rest) / count,
            rest=rest,
        )

    @cached_property
    def error(self) -> float:
        """Standard error of the mean difference: never less than if initial states or seeds alone varied.

        Where no pair differs from any other, it is that of one pair in which they do.
        """
        states, seeds, rest = self._mean_squares
        pairs = self.difference.pairs
        return math.sqrt(max(states + seeds - rest, states, seeds, 1 / pairs) / pairs)

    def p_value(self, bound: float, side: Side) -> float:
        """P-value of the claim that the true difference of the methods is above (or below) a bound."""
        distance = (self.difference.mean - bound) / self.error
        return float(stats.t.sf(distance if side == "above" else -distance, self.seeds - 1))

    def limit(self, level: float, side: Side) -> float:
        """The furthest bound that the difference is not shown to be above (or below), at a one-sided level."""
        reach = float(stats.t.isf(level, self.seeds - 1)) * self.error
        return max(-1.0, self.difference.mean - reach) if side == "above" else min(1.0, self.difference.mean + reach)


# ---- what so many seeds and initial states can show -----------------------------------------------------------------

MOST_SEEDS, MOST_STATES = 100, 20_000
FAR = 30.0  # standard errors beyond which a chance is 0 or 1; the noncentral t is not computed much further out


def odds_of_methods(spread: Spread, loss: float, margin: float, level: float) -> Odds:
    """About how often such an experiment leads to each verdict, where the option truly loses so much."""
    error = max(spread.error(spread.states, spread.seeds), 1e-9)
    within, worse = (_chance(distance, error, spread.seeds, level) for distance in (margin - loss, loss))
    return Odds(
        bare_rule_worse=float(stats.norm.cdf(loss / error)),
        non_inferior=within,
        inferior=min(worse, 1 - within),
    )


def _chance(distance: float, error: float, seeds: int, level: float) -> float:
    """The chance that the test shows a difference to be beyond a bound that it truly is beyond by a distance."""
    away = np.clip(distance / error, -FAR, FAR)
    return float(stats.nct.sf(stats.t.isf(level, seeds - 1), seeds - 1, away))


def seeds_to_settle(spread: Spread, margin: float, level: float, power: float) -> int | None:
    """About how many seeds, on as many initial states, judge equals NON_INFERIOR with a chance of `power`.

    None: more than `MOST_SEEDS`.
    """
    counts = ((spread.states, seeds) for seeds in range(2, MOST_SEEDS + 1))
    return next((seeds for _, seeds in _settling(counts, spread, margin, level, power)), None)


def states_to_settle(spread: Spread, margin: float, level: float, power: float) -> int | None:
    """About how many initial states, with as many seeds, do the same; None: more than `MOST_STATES`."""
    doubled = (spread.states * 2**i for i in range(20))
    counts = ((states, spread.seeds) for states in doubled if states <= MOST_STATES)
    return next((states for states, _ in _settling(counts, spread, margin, level, power)), None)


def _settling(counts: Iterable[tuple[int, int]], spread: Spread, margin: float, level: float, power: float):
    for states, seeds in counts:
        if _chance(margin, max(spread.error(states, seeds), 1e-9), seeds, level) >= power:
            yield states, seeds
