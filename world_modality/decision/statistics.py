"""Tests, intervals and verdicts of a difference, and the interval of one success rate.

Two one-sided questions are asked of a comparison: is the option worse (below 0), and does it lose less than the margin
(above minus the margin)? One test answers both, and the interval is its inversion: each end is where the test's
p-value equals the level. So the verdict is read off the interval:

    NON_INFERIOR  the interval lies above minus the margin: a smaller loss would not matter
    INFERIOR      not the former, and the interval lies below 0
    INCONCLUSIVE  neither

A false `INFERIOR` (of an option as good as its reference) and a false `NON_INFERIOR` (of one that loses the margin or
more) are each made at most at the level. With `stopping: fixed` that holds for a number of episodes chosen beforehand
(`paired.paired_test`), with `anytime` and `adaptive` for any number, chosen at any look (`sequential.SequentialTest`).
All of that is about the checkpoints that were trained. With `claim: methods` it holds for any training seeds
(`methods.MethodsTest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from world_modality.decision.exact import ExactTest
from world_modality.decision.methods import MethodsTest
from world_modality.decision.paired import paired_test
from world_modality.decision.pairs import Differences, design_effect
from world_modality.decision.sequential import SequentialTest

Interval = tuple[float, float]
Stopping = Literal["fixed", "anytime", "adaptive"]
Claim = Literal["checkpoints", "methods"]
Conclusion = Literal["NON_INFERIOR", "INFERIOR", "INCONCLUSIVE"]


def level(confidence: float) -> float:
    """Largest chance of a false verdict, of each of its two kinds: that one end of an interval misses the truth."""
    return (1 - confidence) / 2


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


# ---- the verdict ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What the pairs of a comparison say of its two questions."""

    test: ExactTest | SequentialTest | MethodsTest
    p_worse: float
    p_non_inferior: float

    def interval(self, lower: float, upper: float) -> Interval:
        """The differences not rejected, each end at its own one-sided level."""
        return self.test.limit(lower, "above"), self.test.limit(upper, "below")


def weigh(
    difference: Differences, margin: float, confidence: float, stopping: Stopping, claim: Claim = "checkpoints"
) -> Evidence:
    """Test a difference for being below zero, and for being above minus the margin."""
    if claim == "methods":
        test = MethodsTest(difference)
    else:
        test = paired_test(difference, level(confidence)) if stopping == "fixed" else SequentialTest(difference)
    return Evidence(test, p_worse=test.p_value(0.0, "below"), p_non_inferior=test.p_value(-margin, "above"))


def conclude(interval: Interval, margin: float) -> Conclusion:
    """The verdict of an interval."""
    low, high = interval
    if low > -margin:
        return "NON_INFERIOR"
    return "INFERIOR" if high < 0 else "INCONCLUSIVE"


def interval_text(interval: Interval, margin: float) -> str:
    """In percentage points, with as many digits as show on which side of minus the margin and of 0 the ends lie."""

    def end(value: float, bound: float) -> str:
        texts = (f"{value:+.{digits}f}" for digits in range(1, 7))
        return next((text for text in texts if abs(float(text) - bound) > 1e-9), f"{value:+.1e}")

    return f"[{end(100 * interval[0], -100 * margin)}, {end(100 * interval[1], 0)}]"


# ---- several comparisons --------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the chance of any false rejection among them stays below the level.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    if len(p_values) < 2:
        return list(p_values)
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """The level at which Holm's procedure tests each hypothesis: an end of an interval at that level agrees with it.

    The smallest p-value is tested at the level over their number, each next one over one less; the first that is not
    rejected ends the procedure, and all from there on keep the level of that last step. Equal p-values are tested
    together, at the smallest of their levels, which rejects the same hypotheses.

    The ends of comparisons that are not rejected, at level / (hypotheses not rejected), are those of the simultaneous
    intervals that go with Holm's procedure (K. Strassburger, F. Bretz, Statistics in Medicine 27 (2008) 4914-4927; O.
    Guilbaud, Biometrical Journal 50 (2008) 678-692). For a rejected one, these say simultaneously with the others only
    that the difference is beyond the bound; how far beyond, its end says by itself, at its own level.
    """
    found, tested = np.asarray(p_values, float), {}
    step, going = level, True
    for p in np.unique(found):
        if going:
            step = level / int((found >= p).sum())
        tested[p] = step
        going = going and p <= step
    return [tested[p] for p in found]
