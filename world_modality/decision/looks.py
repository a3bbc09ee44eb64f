"""Looks: what the episodes so far say of one comparison, and whether that settles it.

With `decision.stopping: adaptive` the pipeline evaluates in rounds and looks after each one. A comparison that a look
settles gets no more episodes. Otherwise there is a single round, and a single look at its end. A look also has progress
and time to success, but only success settles.

The evidence is that of an e-process, which may be looked at after every round (`sequential`). A comparison of a family
of n is settled at 1/n of the level: e-values of n comparisons that are each stopped at a time of their own give valid
p-values 1/e, and the correction holds however these depend on each other (V. Vovk, R. Wang, E-values: calibration,
combination and applications, Annals of Statistics 49 (2021) 1736-1754). At the end the decision corrects by Holm's
procedure, which rejects at least as much, so what a look settled stays settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from world_modality.artifacts.documents import Document
from world_modality.decision.evaluations import Evaluation, check_comparable, check_complete, episode_table
from world_modality.decision.judgement import Comparison, compare
from world_modality.decision.statistics import level
from world_modality.experiment.sections import OptionName
from world_modality.experiment.specs import LookSpec


class Counts(Document):
    successes: int
    episodes: int

    @property
    def rate(self) -> float:
        return self.successes / self.episodes


class OptionCounts(Document):
    tasks: dict[int, Counts]
    pooled: Counts


class Look(Document):
    """`looks/<option>_<reference>/round_<r>.json`."""

    counts: dict[OptionName, OptionCounts] = Field(description="of the option and of the reference")
    comparison: Comparison = Field(description="judged at its share of the family's level")
    settled: bool = Field(description="the comparison needs no more episodes")

    @property
    def pair(self) -> tuple[str, str]:
        return self.comparison.option, self.comparison.reference

    def summary(self) -> str:
        """One line for the log."""
        (option, reference), judged = self.pair, self.comparison.success
        rates = ", ".join(f"{name} {c.pooled.successes}/{c.pooled.episodes}" for name, c in self.counts.items())
        pairs, progress = judged.wins + judged.losses + judged.ties, self.comparison.progress
        further = f"; by progress {progress.conclusion}" if progress else ""
        sooner = f"; time to success {self.comparison.durations.difference:+.1f} steps"
        return f"{option} : {reference} after {pairs} pairs: {judged.conclusion} ({rates}){further}{sooner}"


def look_at(evaluations: Sequence[Evaluation], spec: LookSpec) -> Look:
    """Judge a comparison by the episodes so far.

    Args:
        evaluations: of the option and the reference on every task of the spec, from the same initial states.

    Raises:
        ComparisonError: one is missing, or they are not comparable.
    """
    option, reference = spec.option.rollout, spec.reference.rollout
    check_complete(evaluations, [option.option, reference.option], spec.tasks)
    check_comparable(evaluations, reference.option)
    pair = (option.option, reference.option)
    share = level(spec.criteria.confidence) / spec.members
    criteria = spec.criteria.model_copy(update={"confidence": 1 - 2 * share})
    other_noise = [rollout.option for rollout in (option, reference) if rollout.noise_stream]
    (comparison,) = compare(episode_table(evaluations), {pair: spec.family}, spec.tasks, criteria, other_noise)
    return Look(
        counts={name: count(evaluations, name) for name in pair},
        comparison=comparison,
        settled=comparison.success.conclusion != "INCONCLUSIVE",
    )


def count(evaluations: Iterable[Evaluation], option: str) -> OptionCounts:
    """Count the successes of one option, by task and in all."""
    counts = {
        e.task.id: Counts(successes=sum(episode.success for episode in e.episodes), episodes=len(e.episodes))
        for e in sorted(evaluations, key=lambda e: e.task.id)
        if e.option == option
    }
    pooled = Counts(
        successes=sum(c.successes for c in counts.values()), episodes=sum(c.episodes for c in counts.values())
    )
    return OptionCounts(tasks=counts, pooled=pooled)
