"""Pairs of episodes, and how many independent pairs they are worth."""

import numpy as np
import polars as pl
import pytest

from world_modality.decision.pairs import (
    Differences,
    PairedCounts,
    count_pairs,
    design_effect,
    differences,
    pair_outcomes,
)


def episodes(task=0, train_seeds=(0,), **successes):
    """Episodes of several options; their numbers are those of the initial states."""
    rows = [
        {
            "option": option,
            "task": task,
            "init_state_id": i,
            "init_state_sha256": f"{task} {i}",
            "train_seed": seed,
            "env_seed": 10 * task + i,
            "noise_seed": 100 * task + i,
            "success": success,
        }
        for option, outcomes in successes.items()
        for seed in train_seeds
        for i, success in enumerate(outcomes)
    ]
    return pl.DataFrame(rows)


def test_pairs_are_counted_by_who_succeeded():
    table = episodes(E0=[True, True, True, False, False, False], E2=[True, False, False, True, False, False])
    counts = count_pairs(pair_outcomes(table, "E2", "E0", [0]))
    assert counts == PairedCounts(both=1, only_reference=2, only_option=1, neither=2)


def test_the_order_of_the_episodes_does_not_matter():
    table = episodes(E0=[True, True, False, False], E2=[True, False, True, False])
    one, other = (differences(pair_outcomes(t, "E2", "E0", [0]), "success") for t in (table, table.reverse()))
    assert (one.values == other.values).all()
    assert one.values.ravel().tolist() == [0, -1, 1, 0]


def test_an_unpaired_episode_is_refused():
    with pytest.raises(ValueError, match="3 and 4 episodes make 3 pairs"):
        pair_outcomes(episodes(E0=[True] * 4, E2=[True] * 3), "E2", "E0", [0])


def test_a_duplicated_episode_is_refused():
    table = episodes(E0=[True, True], E2=[True, False])
    with pytest.raises(pl.exceptions.ComputeError):
        pair_outcomes(pl.concat([table, table]), "E2", "E0", [0])


@pytest.mark.parametrize("column", ["init_state_sha256", "env_seed", "noise_seed", "train_seed"])
def test_episodes_under_other_conditions_make_no_pair(column):
    table = episodes(E0=[True, True], E2=[True, False])
    other = pl.lit("other") if column == "init_state_sha256" else pl.col(column) + 7
    moved = table.with_columns(pl.when(pl.col("option") == "E2").then(other).otherwise(pl.col(column)).alias(column))
    with pytest.raises(ValueError, match="2 and 2 episodes make 0 pairs"):
        pair_outcomes(moved, "E2", "E0", [0])


def test_an_option_with_noise_of_its_own_is_paired_without_it():
    table = episodes(E0=[True, True], E0b=[True, False])
    moved = table.with_columns(noise_seed=pl.col("noise_seed") + (pl.col("option") == "E0b"))
    assert len(pair_outcomes(moved, "E0b", "E0", [0], other_noise=True)) == 2


def test_an_initial_state_that_lacks_a_training_seed_is_refused():
    table = episodes(train_seeds=(0, 1), E0=[True, True], E2=[True, False])
    torn = table.filter(~((pl.col("train_seed") == 1) & (pl.col("init_state_id") == 1)))
    with pytest.raises(ValueError, match="1 to 2 pairs of one initial state"):
        pair_outcomes(torn, "E2", "E0", [0])


def test_tasks_that_were_not_asked_for_are_left_out():
    both = pl.concat([episodes(task, E0=[True, True], E2=[True, False]) for task in (0, 1)])
    assert len(pair_outcomes(both, "E2", "E0", [1])) == 2
    assert len(pair_outcomes(both, "E2", "E0", [0, 1])) == 4


def test_a_cluster_holds_the_training_seeds_of_one_initial_state_and_a_round_the_tasks():
    both = pl.concat([episodes(t, (0, 1), E0=[True, False], E2=[False, not t]) for t in (0, 1)])
    found = differences(pair_outcomes(both, "E2", "E0", [0, 1]), "success")
    assert found.values.tolist() == [[-1, -1], [-1, -1], [1, 1], [0, 0]]
    assert found.rounds.tolist() == [0, 0, 1, 1]


def test_the_correlation_is_that_of_the_outcomes():
    counts = PairedCounts(both=11, only_reference=4, only_option=2, neither=8)
    option = [1] * 11 + [0] * 4 + [1] * 2 + [0] * 8
    reference = [1] * 11 + [1] * 4 + [0] * 2 + [0] * 8
    assert counts.correlation == pytest.approx(np.corrcoef(option, reference)[0, 1])
    assert PairedCounts(5, 3, 0, 0).correlation is None


# ---- clusters -------------------------------------------------------------------------------------------------------


def test_pairs_by_themselves_have_no_design_effect():
    assert Differences.of_counts(3, 5, 4).design_effect == 1


def test_seeds_that_repeat_each_other_are_worth_one():
    single = [[1]] * 6 + [[-1]] * 3 + [[0]] * 11
    tripled = Differences(np.array([row * 3 for row in single]), np.arange(20))
    assert tripled.design_effect == pytest.approx(3, rel=0.1)
    wins, losses, pairs = tripled.effective
    assert (wins, losses, pairs) == pytest.approx((6, 3, 20), rel=0.1)


def test_seeds_that_have_nothing_in_common_are_worth_nearly_all():
    values = np.random.default_rng(0).choice([-1, 0, 1], (4000, 3))
    assert design_effect(values) == pytest.approx(1, abs=0.1)


def test_clusters_never_make_the_evidence_stronger():
    assert design_effect(np.array([[1, -1]] * 5 + [[0, 0]] * 5)) == 1
