"""The test that may be looked at after any number of pairs."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from world_modality.decision.paired import paired_test
from world_modality.decision.pairs import Differences
from world_modality.decision.power import Truth
from world_modality.decision.sequential import SequentialTest, e_values

counted = Differences.of_counts


def clustered(rows, rounds=None):
    values = np.array(rows)
    return Differences(values, np.arange(len(values)) if rounds is None else np.array(rounds))


def chance_of(table, truth):
    won = (truth.discordance + truth.difference) / 2
    return stats.multinomial.pmf(table, sum(table), (won, truth.discordance - won, 1 - truth.discordance))


@pytest.mark.parametrize(("side", "bound", "truth"), [
    ("below", 0.0, Truth(0.0, 0.5)),
    ("below", 0.0, Truth(0.1, 0.4)),
    ("above", -0.1, Truth(-0.1, 0.3)),
    ("above", -0.1, Truth(-0.2, 0.5)),
])  # fmt: skip
def test_the_e_process_is_not_expected_to_grow_where_there_is_nothing_to_find(side, bound, truth):
    """Every sequence of 7 pairs: the mean e-value after each, and how often one ever reaches 1/level."""
    length, level = 7, 0.2
    means, crossed = np.zeros(length), 0.0
    for sequence in itertools.product((-1, 0, 1), repeat=length):
        chance = math.prod(chance_of(((s > 0), (s < 0), (s == 0)), truth) for s in sequence)
        values = e_values(clustered([[s] for s in sequence]), bound, side)
        means += chance * values
        crossed += chance * (values.max() >= 1 / level)
    assert (means <= 1 + 1e-9).all()
    assert 0 < crossed <= level


def test_only_whole_rounds_are_looked_at():
    """Two tasks with opposite differences: after half a round the fortune may be expected to have grown."""
    rows, rounds = [[-1], [1], [-1], [1]], [0, 0, 1, 1]
    values = e_values(clustered(rows, rounds), 0.0, "below")
    assert len(values) == 2
    assert (values <= 1).all()


def test_for_bound_0_only_discordant_pairs_count():
    """The mean fortune of gamblers whose stakes are spread as Beta(2, 4), as an integral."""
    wins, losses = 3, 9
    fortune = integrate.quad(lambda s: stats.beta.pdf(s, 2, 4) * (1 + s) ** losses * (1 - s) ** wins, 0, 1)[0]
    mixed = e_values(counted(wins, losses, 20), 0.0, "below")[-1]
    assert mixed == pytest.approx(fortune, rel=1e-2)
    assert e_values(counted(wins, losses), 0.0, "below")[-1] == pytest.approx(mixed)


def test_evidence_is_that_of_all_pairs_seen_so_far():
    """Twelve losses are evidence; twelve wins after them take it back, as they do in the interval."""
    lost = SequentialTest(counted(0, 12))
    both = SequentialTest(clustered([[-1]] * 12 + [[1]] * 12))
    assert lost.p_value(0.0, "below") < 0.02 < 0.5 < both.p_value(0.0, "below")
    assert both.limit(0.05, "above") < 0 < both.limit(0.05, "below")


def test_the_confidence_sequence_holds_what_is_not_rejected():
    pairs = clustered(np.random.default_rng(3).choice([-1, 0, 1], (60, 1), p=[0.3, 0.6, 0.1]))
    test = SequentialTest(pairs)
    low, high = test.limit(0.05, "above"), test.limit(0.05, "below")
    assert test.p_value(low, "above") == pytest.approx(0.05, rel=1e-3)
    assert test.p_value(high, "below") == pytest.approx(0.05, rel=1e-3)
    assert paired_test(pairs, 0.05).limit(0.05, "above") > low  # what looking at any time costs
