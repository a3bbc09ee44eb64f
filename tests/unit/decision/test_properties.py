"""What must hold of every judgement, whatever the episodes: looked for by hypothesis."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from world_modality.decision.pairs import Differences
from world_modality.decision.statistics import conclude, rate_interval, weigh
from world_modality.decision.unpaired import unpaired_test

MARGIN, CONFIDENCE, LEVEL = 0.1, 0.9, 0.05

stoppings = st.sampled_from(["fixed", "anytime"])
outcomes = st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=120)
counts = st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
quickly = settings(max_examples=60, deadline=None, derandomize=True)


def differences(values, seeds=1):
    return Differences(np.repeat(np.array(values)[:, None], seeds, axis=1), np.arange(len(values)))


def interval(pairs, stopping="fixed"):
    return weigh(pairs, MARGIN, CONFIDENCE, stopping).interval(LEVEL, LEVEL)


@quickly
@given(outcomes, stoppings)
def test_the_two_options_exchanged_mirror_the_interval(values, stopping):
    low, high = interval(differences(values), stopping)
    mirrored = interval(differences([-value for value in values]), stopping)
    assert np.allclose(mirrored, (-high, -low), atol=1e-6)


@quickly
@given(outcomes, st.data())
def test_a_pair_that_goes_better_never_moves_the_interval_down(values, data):
    place = data.draw(st.integers(0, len(values) - 1))
    better = [*values[:place], min(1, values[place] + 1), *values[place + 1 :]]
    before, after = interval(differences(values)), interval(differences(better))
    assert all(new >= old - 1e-6 for old, new in zip(before, after, strict=True))


@quickly
@given(outcomes, st.integers(2, 6), stoppings)
def test_seeds_that_repeat_each_other_are_never_more_certain_than_their_initial_states(values, seeds, stopping):
    low, high = interval(differences(values), stopping)
    repeated_low, repeated_high = interval(differences(values, seeds), stopping)
    assert repeated_low <= low + 0.02
    assert repeated_high >= high - 0.02


@quickly
@given(outcomes, stoppings)
def test_a_verdict_is_its_interval(values, stopping):
    evidence = weigh(differences(values), MARGIN, CONFIDENCE, stopping)
    low, high = evidence.interval(LEVEL, LEVEL)
    assert -1 <= low <= np.mean(values) <= high <= 1
    verdict = "NON_INFERIOR" if evidence.p_non_inferior < LEVEL else "INFERIOR" if evidence.p_worse < LEVEL else None
    assert conclude((low, high), MARGIN) == (verdict or "INCONCLUSIVE")


@quickly
@given(counts, counts)
def test_any_counts_from_elsewhere_can_be_judged(option, reference):
    test = unpaired_test(option, reference, LEVEL)
    low, high = test.limit(LEVEL, "above"), test.limit(LEVEL, "below")
    assert -1 <= low <= option[0] / option[1] - reference[0] / reference[1] <= high <= 1
    p_worse, p_non_inferior = test.p_value(0.0, "below"), test.p_value(-MARGIN, "above")
    assert math.isfinite(p_worse + p_non_inferior)
    assert (high < 0) == (p_worse < LEVEL)
    assert (low > -MARGIN) == (p_non_inferior < LEVEL)


@quickly
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=60))
def test_a_rate_is_within_its_intervals(successes):
    outcomes = np.array(successes, int)
    for method in ("wilson", "beta"):
        low, high = rate_interval(outcomes, CONFIDENCE, method)
        assert -1e-9 <= low <= outcomes.mean() + 1e-9
        assert outcomes.mean() - 1e-9 <= high <= 1 + 1e-9
