"""Success counts of two policies from elsewhere: the first question of the tree, for a table in a paper.

Nobody knows which episodes of such a table began at the same initial state, so they cannot be paired and are judged as
independent (`unpaired`). Pairs of the same number of episodes would show more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import yaml
from pydantic import Field, ValidationError, model_validator
from scipy import stats

from world_modality.artifacts.documents import Document
from world_modality.artifacts.files import read_text
from world_modality.decision.statistics import Conclusion, Interval, conclude, interval_text, level, rate_interval
from world_modality.decision.tree import Rate, Token, choose_token
from world_modality.decision.unpaired import unpaired_test
from world_modality.errors import InputError
from world_modality.experiment.sections import Branch, Decision, OptionName, Section, explain

Pair = Annotated[tuple[int, int], Field(description="successes, episodes")]


class PublishedPolicy(Section):
    name: OptionName
    tasks: dict[int, Pair] = Field(min_length=1, description="successes and episodes of each task")

    @model_validator(mode="after")
    def _check(self):
        for task, (successes, episodes) in self.tasks.items():
            if not 0 <= successes <= episodes or not episodes:
                raise ValueError(f"task {task}: {successes} successes of {episodes} episodes")
        return self


class PublishedCounts(Section):
    """What a user copies from a published table."""

    source: str = Field(min_length=1, description="where the counts come from")
    baseline: PublishedPolicy
    world: PublishedPolicy

    @model_validator(mode="after")
    def _check(self):
        if set(self.baseline.tasks) != set(self.world.tasks):
            raise ValueError(f"{self.world.name} and {self.baseline.name} are counted on different tasks")
        totals = [sum(n for _, n in policy.tasks.values()) for policy in (self.baseline, self.world)]
        for task in self.baseline.tasks:
            here, there = self.baseline.tasks[task][1], self.world.tasks[task][1]
            if here * totals[1] != there * totals[0]:
                raise ValueError(
                    f"task {task}: {here} of {totals[0]} episodes of {self.baseline.name}, but {there} of {totals[1]} "
                    f"of {self.world.name}: pooled, they would compare tasks and not policies"
                )
        return self


class Unpaired(Document):
    """Two policies on the same tasks, but not on the same episodes."""

    baseline: Rate
    world: Rate
    difference: float = Field(description="success rate of world minus that of the baseline")
    interval: Interval = Field(description="of the difference: what the exact score test does not reject")
    p_worse: float = Field(description="world is worse")
    p_non_inferior: float = Field(description="world loses less than the margin")
    conclusion: Conclusion


class PublishedVerdict(Document):
    token: Token
    branch: Branch
    counts: PublishedCounts
    margin: float
    confidence: float
    tasks: dict[int, Unpaired]
    pooled: Unpaired
    bare_rule_error: float = Field(description="chance that a policy as good as the baseline has a lower rate")


def read_counts(path: str | Path) -> PublishedCounts:
    """Read a file of counts (YAML or JSON).

    Raises:
        InputError: naming the first offending key.
    """
    try:
        return PublishedCounts.model_validate(yaml.safe_load(read_text(path)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error.errors()[0], PublishedCounts)}") from None


def judge(counts: PublishedCounts, decision: Decision) -> PublishedVerdict:
    """The branch the tree would take, and what the counts are worth.

    Args:
        decision: the thresholds; its roles are not used.
    """
    tasks = {
        task: _compare(counts.baseline.tasks[task], counts.world.tasks[task], decision)
        for task in sorted(counts.baseline.tasks)
    }
    baseline, world = (
        tuple(map(sum, zip(*policy.tasks.values(), strict=True))) for policy in (counts.baseline, counts.world)
    )
    pooled = _compare(baseline, world, decision)
    roles = {"baseline": counts.baseline.name, "world": counts.world.name}
    return PublishedVerdict(
        token=choose_token(
            pooled.baseline.rate,
            {(counts.world.name, counts.baseline.name): pooled.difference},
            decision.model_copy(update=roles),
        ),
        branch="success" if pooled.world.rate >= pooled.baseline.rate else "wrist",
        counts=counts,
        margin=decision.margin,
        confidence=decision.confidence,
        tasks=tasks,
        pooled=pooled,
        bare_rule_error=_chance_of_lower_rate(baseline, world),
    )


def _compare(baseline: Pair, world: Pair, decision: Decision) -> Unpaired:
    wrong = level(decision.confidence)
    test = unpaired_test(world, baseline, wrong)
    interval = (test.limit(wrong, "above"), test.limit(wrong, "below"))
    return Unpaired(
        baseline=_rate(baseline, decision),
        world=_rate(world, decision),
        difference=world[0] / world[1] - baseline[0] / baseline[1],
        interval=interval,
        p_worse=test.p_value(0.0, "below"),
        p_non_inferior=test.p_value(-decision.margin, "above"),
        conclusion=conclude(interval, decision.margin),
    )


def _rate(counted: Pair, decision: Decision) -> Rate:
    successes, episodes = counted
    outcomes = (np.arange(episodes) < successes).astype(int)[:, None]
    wilson, exact = (rate_interval(outcomes, decision.confidence, method) for method in ("wilson", "beta"))
    return Rate(successes=successes, episodes=episodes, interval=wilson, exact=exact)


def _chance_of_lower_rate(baseline: Pair, world: Pair) -> float:
    """The chance that `world` has the lower rate although both truly succeed at the rate of all episodes together."""
    rate = (baseline[0] + world[0]) / (baseline[1] + world[1])
    successes = np.arange(baseline[1] + 1)
    fewest = np.ceil(successes * world[1] / baseline[1] - 1e-9) - 1  # the most successes that are a lower rate
    return float((stats.binom.pmf(successes, baseline[1], rate) * stats.binom.cdf(fewest, world[1], rate)).sum())


# ---- in words -------------------------------------------------------------------------------------------------------


def render(verdict: PublishedVerdict) -> str:
    """What a person reads; its first two lines are those of `decision.txt`."""
    counts, pooled = verdict.counts, verdict.pooled
    world, baseline = counts.world.name, counts.baseline.name
    rows = [*((f"task {task}", compared) for task, compared in verdict.tasks.items()), ("all of them", pooled)]
    lines = [
        verdict.token,
        f"{pooled.conclusion}  {world} : {baseline}  branch {verdict.branch}  bare rule errs "
        f"{100 * verdict.bare_rule_error:.0f}% (N {pooled.world.episodes} and {pooled.baseline.episodes}, unpaired)",
        "",
        f"Published counts: {counts.source}",
        "Not paired: nothing says which episodes began at the same initial state, so the luck of both",
        "policies with their initial states counts in full. As many paired episodes would show more.",
        "",
        f"{'':<12}{baseline:>10}{world:>10}{'difference':>12}{'interval':>18}{'p worse':>10}{'p margin':>11}",
        *(_row(label, compared, verdict.margin) for label, compared in rows),
        f"p worse: {world} is worse. p margin: it loses less than {100 * verdict.margin:g} points. Both by the exact",
        f"score test. Interval ({100 * verdict.confidence:g}%): the differences that this test does not reject.",
    ]
    return "".join(f"{line}\n" for line in lines)


def _row(label: str, compared: Unpaired, margin: float) -> str:
    rates = "".join(f"{f'{c.successes}/{c.episodes}':>10}" for c in (compared.baseline, compared.world))
    difference, interval = f"{100 * compared.difference:+.1f}", interval_text(compared.interval, margin)
    return f"{label:<12}{rates}{difference:>12}{interval:>18}{compared.p_worse:>10.4f}{compared.p_non_inferior:>11.4f}"
