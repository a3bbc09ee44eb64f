"""Time to success: how soon two options solve the same episodes, in control steps. It is reported and decides nothing.

Successful episodes alone would compare the easy states of one option with the easy states of the other. So every
episode counts: a failure with the horizon, at which it was cut off. The mean of that is the *restricted mean time to
success* (P. Royston, M. K. B. Parmar, BMC Medical Research Methodology 13 (2013) 152). It needs no assumption about
what would have happened after the horizon, and it also moves with how often an option succeeds.

The paired difference is bounded by the horizon. So the bets of `sequential` give it an interval that holds for any
number of pairs, chosen at any look, although it was success that stopped the evaluation (I. Waudby-Smith, A. Ramdas,
Journal of the Royal Statistical Society B 86 (2024) 1-27). With `claim: methods`, it is that of `methods`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from world_modality.artifacts.documents import Document
from world_modality.decision.methods import MethodsTest
from world_modality.decision.pairs import Differences
from world_modality.decision.sequential import SequentialTest
from world_modality.decision.statistics import Claim, Interval


class Durations(Document):
    """Mean control steps until success over the pairs of a comparison, 20 a second; a failure counts as the horizon."""

    horizon: int = Field(description="what a failure counts as [steps]")
    option: float = Field(description="mean of the option [steps]")
    reference: float = Field(description="mean of the reference [steps]")
    difference: float = Field(description="the option's mean minus the reference's: below 0 it is sooner [steps]")
    interval: Interval = Field(
        description="of the difference; those of a family hold together, for any number of pairs chosen at any look "
        "(with a claim about methods, for the number chosen beforehand) [steps]"
    )


def compare_durations(
    shares: Differences, means: Sequence[float], horizon: int, level: float, claim: Claim
) -> Durations:
    """How much sooner or later an option succeeds than its reference.

    Args:
        shares: of each pair, the option's steps minus the reference's, as a share of the horizon.
        means: of the option and of the reference [steps].
        level: chance that one end of the interval misses the truth.
    """
    test = MethodsTest(shares) if claim == "methods" else SequentialTest(shares)
    option, reference = means
    return Durations(
        horizon=horizon,
        option=option,
        reference=reference,
        difference=horizon * shares.mean,
        interval=(horizon * test.limit(level, "above"), horizon * test.limit(level, "below")),
    )
