"""Pairs of episodes: who did better in each, and how many independent pairs they are worth.

Two options are compared on *pairs*: the same task, initial state, simulator seed, noise seed and training seed. A pair
says which of the two did better, or that neither did; only *discordant* pairs, where one did, distinguish them. Pairs
that begin at one initial state (several training seeds) are not independent evidence: they are a *cluster*, and every
test and interval counts clusters. With one training seed a cluster is a pair.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

PAIR_KEY = ["task", "init_state_sha256", "train_seed", "env_seed", "noise_seed"]

Side = Literal["above", "below"]  # of a bound, where the true difference is claimed to be


@dataclass(frozen=True)
class PairedCounts:
    """The four kinds of pairs of an option and the reference it is compared with."""

    both: int
    only_reference: int
    only_option: int
    neither: int

    @property
    def pairs(self) -> int:
        return self.both + self.only_reference + self.only_option + self.neither

    @property
    def correlation(self) -> float | None:
        """Phi, the correlation of the two outcomes of a pair; None where one option's outcomes are all the same."""
        option, reference = self.both + self.only_option, self.both + self.only_reference
        spread = option * (self.pairs - option) * reference * (self.pairs - reference)
        if not spread:
            return None
        return (self.both * self.neither - self.only_option * self.only_reference) / math.sqrt(spread)


@dataclass(frozen=True, eq=False)
class Differences:
    """Who did better in each pair: 1 the option, -1 the reference, 0 neither. Or by how much the two differ.

    Args:
        values: (clusters, repeats) numbers in [-1, 1]; a row holds the pairs of one initial state. Rows stand in the
            order in which the initial states are numbered, not by task, so that a longer evaluation appends rows.
        rounds: (clusters,) number of each row's initial state; a round holds one of every task.
    """

    values: np.ndarray
    rounds: np.ndarray

    @classmethod
    def of_counts(cls, wins: int, losses: int, ties: int = 0) -> Differences:
        """Pairs of which each is a cluster and a round of its own."""
        values = np.repeat([1, -1, 0], [wins, losses, ties])
        return cls(values[:, None], np.arange(len(values)))

    @property
    def pairs(self) -> int:
        return self.values.size

    @property
    def wins(self) -> int:
        """Pairs in which the option did better."""
        return int((self.values > 0).sum())

    @property
    def losses(self) -> int:
        """Pairs in which the reference did better."""
        return int((self.values < 0).sum())

    @property
    def mean(self) -> float:
        """Share of pairs won minus share lost, in [-1, 1]; for successes the difference of the success rates."""
        return float(self.values.mean())

    @cached_property
    def design_effect(self) -> float:
        return design_effect(self.values)

    @property
    def effective(self) -> tuple[float, float, float]:
        """Wins, losses and pairs of independent pairs that would be worth as much."""
        return self.wins / self.design_effect, self.losses / self.design_effect, self.pairs / self.design_effect


def design_effect(values: np.ndarray) -> float:
    """How many clustered observations are worth one independent one: 1 to the number of repeats.

    The variance of the mean computed from clusters over that computed as if all were independent (J. N. K. Rao,
    A. J. Scott, Biometrics 48 (1992) 577-585), as if there were one cluster more, whose repeats all agree. Few clusters
    in which anything differs say little about how much repeats agree, and without that cluster they would often count
    as independent by chance.

    Args:
        values: (clusters, repeats).
    """
    clusters, repeats = values.shape
    centered = values - values.mean()
    independent = (centered**2).sum()
    by_cluster = (centered.sum(axis=1) ** 2).sum() * clusters / max(1, clusters - 1)
    return float(np.clip((by_cluster + repeats**2) / (independent + repeats), 1, repeats))


def pair_outcomes(
    episodes: pl.DataFrame, option: str, reference: str, tasks: Sequence[int], other_noise: bool = False
) -> pl.DataFrame:
    """Pair the episodes of two options on some tasks: one row per pair, the reference's columns ending in _reference.

    Args:
        episodes: one row per episode with the columns option, init_state_id and those of `PAIR_KEY`.
        other_noise: the option is rolled out with noise seeds of its own, which then are no part of the key.

    Raises:
        ValueError: an episode is unpaired, or an initial state lacks a training seed that another one has; polars'
            ComputeError: one stands there twice.
    """
    key = [column for column in PAIR_KEY if not (other_noise and column == "noise_seed")]
    chosen = episodes.filter(pl.col("task").is_in(list(tasks)))
    own, other = chosen.filter(option=option), chosen.filter(option=reference)
    pairs = own.join(other, on=key, how="inner", validate="1:1", suffix="_reference")
    if not len(pairs) == len(own) == len(other) or pairs.is_empty():
        raise ValueError(f"{option} and {reference}: {len(own)} and {len(other)} episodes make {len(pairs)} pairs")
    repeats = pairs.group_by("task", "init_state_sha256").len()["len"]
    if repeats.n_unique() != 1:
        raise ValueError(f"{option} and {reference}: {repeats.min()} to {repeats.max()} pairs of one initial state")
    return pairs.sort("init_state_id", "task", "train_seed")


def count_pairs(pairs: pl.DataFrame) -> PairedCounts:
    """Count `pair_outcomes` by who succeeded."""
    kinds = pairs.group_by("success", "success_reference").len()
    count = {(mine, theirs): n for mine, theirs, n in kinds.iter_rows()}
    return PairedCounts(
        both=count.get((True, True), 0),
        only_reference=count.get((False, True), 0),
        only_option=count.get((True, False), 0),
        neither=count.get((False, False), 0),
    )


def differences(pairs: pl.DataFrame, column: str) -> Differences:
    """Who did better in each of the `pair_outcomes`, by a column of which more is better."""
    return _clustered(pairs, _minus_reference(pairs, column).sign())


def shares(pairs: pl.DataFrame, column: str, most: int) -> Differences:
    """By how much the two differ in each of the `pair_outcomes`, in a column of numbers from 0 to `most`.

    Returns:
        the option's number minus the reference's, as a share of `most`.
    """
    return _clustered(pairs, _minus_reference(pairs, column) / most)


def _minus_reference(pairs: pl.DataFrame, column: str) -> pl.Series:
    return pairs[column].cast(pl.Int64) - pairs[f"{column}_reference"].cast(pl.Int64)


def _clustered(pairs: pl.DataFrame, values: pl.Series) -> Differences:
    clusters = pairs.select("init_state_id", "task").unique(maintain_order=True)
    return Differences(
        values=values.to_numpy().reshape(len(clusters), -1),
        rounds=clusters["init_state_id"].to_numpy(),
    )
