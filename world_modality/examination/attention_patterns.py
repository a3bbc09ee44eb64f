"""Summaries of attention tables: where each option's attention goes, and how the wrist option's attention differs.

`compare` makes an `AttentionReport`, the content of `attention.json`, from the tables of several options. Every episode
counts equally, however long it is. Light (no torch).

Non-obvious behaviour: polars adds up in no fixed order. Means are rounded so that the same tables give the same file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field
from scipy import stats

from world_modality.artifacts.documents import read_document
from world_modality.errors import InputError
from world_modality.examination.attention import EPISODE, AttentionSpec, AttentionTable
from world_modality.experiment.sections import OptionName, Section

PHASES = ("first quarter", "second quarter", "third quarter", "last quarter")  # of an episode's length
CONFIDENCE = 0.95
DIGITS = 6  # decimal places that means are rounded to


class Spread(Section):
    """How attention is spread over the K predicted frames."""

    shares: list[float] = Field(description="each frame's share of the attention; they sum to 1")
    mean_k: float = Field(description="the frame attended to on average")
    evenness: float = Field(description="entropy relative to even attention's: 1 if even, 0 if all is on one frame")


class Pattern(Section):
    """The attention of one option, in training or at rollout."""

    table: AttentionSpec
    episodes: int
    chunks: int
    overall: Spread
    phases: list[Spread | None] = Field(description="by quarter of the episode; null if no chunk starts in it")
    denoise_steps: list[Spread]
    heads: list[Spread]
    memory_norm: list[float] = Field(description="root mean square of the memory, by frame, in standard units")
    gates: dict[str, float] = Field(description="tanh(gate) by training seed")

    @property
    def name(self) -> str:
        """The option's name, with the cameras that its world modality sees."""
        memory = "" if self.table.memory == "predicted" else f", {self.table.memory} memory"
        return f"{self.table.option} ({' + '.join(self.table.cameras)}{memory})"


class Difference(Section):
    """The second of two options minus the first, as a mean over the episodes they share."""

    mean: float
    interval: tuple[float, float] | None = Field(description="from Student's t; null if there is a single pair")


class PairedPatterns(Section):
    """Two options on the same episodes."""

    where: Literal["training", "rollout"]
    pairs: int
    mean_k: Difference
    evenness: Difference
    moved: float = Field(
        description="share of one option's attention that would have to move to other frames to match the other's: "
        "0 if they are alike, 1 if they share no frame"
    )


class AttentionReport(Section):
    """`attention.json`."""

    world: OptionName = Field(description="the option that the wrist option is compared with")
    wrist: OptionName
    patterns: list[Pattern]
    differences: list[PairedPatterns] = Field(description="the wrist option minus the world option, where both ran")

    def pattern(self, option: str, where: str) -> Pattern | None:
        found = (p for p in self.patterns if (p.table.option, p.table.where) == (option, where))
        return next(found, None)

    @property
    def options(self) -> list[str]:
        return list(dict.fromkeys(pattern.table.option for pattern in self.patterns))

    @property
    def leading(self) -> list[Pattern]:
        """One pattern of each option: the one at rollout if there is one, else the one in training."""
        return [self.pattern(name, "rollout") or self.pattern(name, "training") for name in self.options]


def read_report(path: str | Path) -> AttentionReport:
    """Read `attention.json`.

    Raises:
        InputError: it is missing or malformed.
    """
    return read_document(AttentionReport, path, "an attention.json")


# ---- from rows to numbers -------------------------------------------------------------------------------------------


def compare(tables: Iterable[AttentionTable], world: str, wrist: str) -> AttentionReport:
    """The patterns of several options, and how the wrist option differs from the world option.

    Args:
        tables: read one by one, so that only one needs to be in memory.

    Raises:
        InputError: a table is of a policy without a world modality or is given twice; two were not measured in the same
            way, or not on the same checkpoints; or the two options were not run on the same episodes.
    """
    patterns, scores = [], {}
    for table in tables:
        rows = _scored(table)
        patterns.append(_pattern(table.spec, rows))
        scores[table.spec.option, table.spec.where] = _episodes(rows, ["mean_k", "evenness"])
    _check_alike([pattern.table for pattern in patterns])
    report = AttentionReport(world=world, wrist=wrist, patterns=patterns, differences=[])
    both = [where for where in ("training", "rollout") if {(world, where), (wrist, where)} <= scores.keys()]
    differences = [
        _paired(report.pattern(world, where), scores[world, where], report.pattern(wrist, where), scores[wrist, where])
        for where in both
    ]
    return report.model_copy(update={"differences": differences})


def _check_alike(specs: Sequence[AttentionSpec]) -> None:
    seen: dict[tuple[str, str], AttentionSpec] = {}
    for spec in specs:
        name = f"option {spec.option} in {spec.where}"
        if seen.setdefault((spec.option, spec.where), spec) is not spec:
            raise InputError(f"{name}: there are two tables")
        for field in ("horizon", "actions"):
            if (value := getattr(spec, field)) != (first := getattr(specs[0], field)):
                raise InputError(f"{name}: {field} is {value}, but {first} in the table of {specs[0].option}")
        other = seen.get((spec.option, "rollout" if spec.where == "training" else "training"), spec)
        if other.checkpoints != spec.checkpoints:
            raise InputError(f"{name}: measured on other checkpoints than in {other.where}")


def _scored(table: AttentionTable) -> pl.DataFrame:
    """The rows, with the phase of the episode and with terms of mean k and evenness, which are means of these terms."""
    horizon, share = table.spec.horizon, pl.col("attention").cast(pl.Float64)
    if not table.spec.cameras:
        raise InputError(f"option {table.spec.option}: a policy without a world modality attends to nothing")
    surprise = pl.when(share > 0).then(-share * share.log()).otherwise(0.0)
    return pl.from_arrow(table.rows).select(
        *EPISODE,
        *("denoise_step", "head", "k", "gate"),
        pl.col("memory_norm").cast(pl.Float64),
        whole=pl.lit(0),
        phase=pl.col("step") * len(PHASES) // pl.col("episode_steps"),
        attention=share,
        mean_k=share * pl.col("k") * horizon,  # in this order, because k has only 8 bits
        evenness=horizon * surprise / math.log(horizon) if horizon > 1 else pl.lit(1.0),
    )


def _pattern(spec: AttentionSpec, rows: pl.DataFrame) -> Pattern:
    phases = _spreads(rows, "phase")
    gates = rows.group_by("train_seed").agg(pl.col("gate").first()).sort("train_seed")
    return Pattern(
        table=spec,
        episodes=rows.select(EPISODE).n_unique(),
        chunks=len(rows) // math.prod(spec.shape),
        overall=_spreads(rows, "whole")[0],
        phases=[phases.get(number) for number in range(len(PHASES))],
        denoise_steps=list(_spreads(rows, "denoise_step").values()),
        heads=list(_spreads(rows, "head").values()),
        memory_norm=_mean(rows, ["memory_norm"], ["k"])["memory_norm"].to_list(),
        gates={str(seed): gate for seed, gate in gates.iter_rows()},
    )


def _spreads(rows: pl.DataFrame, by: str) -> dict[int, Spread]:
    """How attention is spread in each group of rows, by group."""
    shares = _mean(rows, ["attention"], [by, "k"]).partition_by(by, as_dict=True)
    return {
        group: Spread(shares=shares[group,]["attention"].to_list(), mean_k=mean_k, evenness=evenness)
        for group, mean_k, evenness in _mean(rows, ["mean_k", "evenness"], [by]).iter_rows()
    }


def _mean(rows: pl.DataFrame, values: list[str], by: list[str]) -> pl.DataFrame:
    """Means by group; within a group, every episode counts equally."""
    return _episodes(rows, values, by).group_by(by).agg(pl.col(values).mean().round(DIGITS)).sort(by)


def _episodes(rows: pl.DataFrame, values: list[str], by: Sequence[str] = ()) -> pl.DataFrame:
    """Each episode's means, by group."""
    return rows.group_by(*EPISODE, *by).agg(pl.col(values).mean())


def _paired(one: Pattern, mine: pl.DataFrame, other: Pattern, theirs: pl.DataFrame) -> PairedPatterns:
    """The `other` option minus `one`, in mean k and evenness, paired by episode.

    One may have been evaluated for longer, but all episodes of the other must be among its own.
    """
    pairs = mine.join(theirs, on=EPISODE, suffix="_other")
    if len(pairs) < min(len(mine), len(theirs)):
        raise InputError(
            f"{one.table.option} and {other.table.option} in {one.table.where}: {len(mine)} and {len(theirs)} episodes "
            f"make {len(pairs)} pairs"
        )
    return PairedPatterns(
        where=one.table.where,
        pairs=len(pairs),
        mean_k=_difference(pairs["mean_k_other"] - pairs["mean_k"]),
        evenness=_difference(pairs["evenness_other"] - pairs["evenness"]),
        moved=_rounded(sum(abs(a - b) for a, b in zip(one.overall.shares, other.overall.shares, strict=True)) / 2),
    )


def _difference(values: pl.Series) -> Difference:
    mean, n = values.mean(), len(values)
    if n == 1:
        return Difference(mean=_rounded(mean), interval=None)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * values.std() / math.sqrt(n)
    return Difference(mean=_rounded(mean), interval=(_rounded(mean - half), _rounded(mean + half)))


def _rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0  # no -0.0
