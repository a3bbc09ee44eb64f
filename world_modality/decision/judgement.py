"""What the episodes say about two options: paired comparisons, their verdicts, and what so many pairs can show.

A comparison is judged twice: by success, and by progress (who came further in the pickup), which also distinguishes two
episodes that both failed. Each judgement is `NON_INFERIOR`, `INFERIOR` or `INCONCLUSIVE` (`statistics`). Next to them,
time to success is compared (`durations`). Only success decides: what the tree does, and when an evaluation stops.

The comparison the tree asks about, E2 with E0, is the primary one and stands by itself. All others are corrected for
their number (Holm), in two families: those an adoption rests on, and the controls. Each end of an interval is drawn at
the level at which Holm's procedure tests the question it answers, so that every verdict is read off the interval next
to it: `NON_INFERIOR` where that lies above minus the margin, else `INFERIOR` where it lies below 0.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from pydantic import Field

from world_modality.artifacts.documents import Document
from world_modality.decision.durations import Durations, compare_durations
from world_modality.decision.methods import (
    MethodsTest,
    Spread,
    odds_of_methods,
    seeds_to_settle,
    states_to_settle,
)
from world_modality.decision.pairs import Differences, count_pairs, differences, pair_outcomes, shares
from world_modality.decision.power import Odds, Truth, looks_to_settle, odds, odds_of_looks, pairs_to_settle
from world_modality.decision.statistics import Conclusion, Interval, conclude, holm, holm_levels, level, weigh
from world_modality.experiment.sections import Criteria, Decision, Family, OptionName


class Judgement(Document):
    """What the pairs of a comparison show, by success or by progress."""

    wins: int = Field(description="pairs in which the option did better")
    losses: int = Field(description="pairs in which the reference did better")
    ties: int
    difference: float = Field(description="share of wins minus share of losses")
    interval: Interval = Field(
        description="of the difference; each end at the level at which Holm's procedure tests the question it answers: "
        "the lower end whether the option loses the margin, the upper end whether it is worse"
    )
    p_worse: float = Field(description="that the option is worse; corrected within the family")
    p_non_inferior: float = Field(description="that it loses less than the margin; corrected within the family")
    design_effect: float = Field(description="pairs that are worth one independent pair")
    spread: Spread | None = Field(description="between training seeds, for a claim about methods; else null")
    conclusion: Conclusion


class Comparison(Document):
    """An option against a reference, paired by episode over the pickup tasks."""

    option: OptionName
    reference: OptionName
    family: Family = Field(description="its p-values and interval are corrected for the number of comparisons in it")
    both: int
    only_reference: int
    only_option: int
    neither: int
    episodes: int = Field(description="initial states of each task from which both were evaluated for it")
    correlation: float | None = Field(description="phi of the pairs' outcomes; null where one option's never vary")
    success: Judgement
    progress: Judgement | None = Field(
        description="the judgement by who came further; null where a task does not place one object somewhere"
    )
    durations: Durations = Field(description="how soon the two succeed; no verdict, and nothing depends on it")


class Worth(Document):
    """What the comparison can show, with the share of discordant pairs that was observed.

    The chances of a verdict are those of so many pairs chosen beforehand or, with `adaptive`, those of a run that looks
    after every round and may go on to the last one.
    """

    pairs: float = Field(description="the number of independent pairs that they are worth")
    discordance: float = Field(description="share of pairs in which one succeeded and the other failed")
    bare_rule_error: float = Field(description="chance that an equally good option has fewer successes")
    bare_rule_miss: float = Field(description="chance that an option that loses the margin has no fewer")
    non_inferior_if_equal: float = Field(description="chance that an equally good option is judged NON_INFERIOR")
    inferior_if_margin: float = Field(description="chance that a loss of the margin is judged INFERIOR")
    inferior_if_twice_margin: float = Field(description="chance that a loss of twice the margin is")
    smallest_loss: float | None = Field(
        description="the smallest true loss that is judged INFERIOR with a chance of decision.power; null: none is"
    )
    pairs_to_settle: int | None = Field(
        description="about how many independent pairs judge equals NON_INFERIOR and a loss of twice the margin "
        "INFERIOR, each with a chance of decision.power; with `adaptive`, at how many a run that goes on from those "
        "that there are is settled with that chance, if the true difference is the observed one (where it is settled, "
        "those that there are); null: more than 20,000, or a claim about methods"
    )
    seeds_to_settle: int | None = Field(
        description="for a claim about methods, about how many training seeds on the same number of initial states "
        "judge equals NON_INFERIOR with a chance of decision.power; null: more than 100, or no such claim"
    )
    states_to_settle: int | None = Field(
        description="about how many initial states of all pickup tasks, with as many training seeds, do the same; "
        "null: more than 20,000, or no such claim"
    )


def compare(
    episodes: pl.DataFrame,
    families: Mapping[tuple[str, str], Family],
    tasks: Sequence[int],
    criteria: Criteria,
    other_noise: Sequence[str] = (),
    counts: Mapping[tuple[str, str], int] | None = None,
) -> list[Comparison]:
    """Compare pairs of options on some tasks.

    Args:
        episodes: one row per episode (`evaluations.episode_table`).
        families: the family of each (option, reference).
        other_noise: options that are rolled out with their own noise seeds.
        counts: the initial states of each task on which a pair is compared, from 0; None: all, which both must have.
    """
    paired = {}
    for pair in families:
        used = episodes.filter(pl.col("init_state_id") < counts[pair]) if counts else episodes
        paired[pair] = pair_outcomes(used, *pair, tasks, bool(set(pair) & set(other_noise)))
    by_success = _judge({pair: differences(table, "success") for pair, table in paired.items()}, families, criteria)
    has_stages = not episodes.filter(pl.col("task").is_in(tasks))["stages"].has_nulls()
    further = {pair: differences(table, "stages") for pair, table in paired.items()} if has_stages else {}
    by_progress = _judge(further, families, criteria)
    members = Counter(families.values())
    comparisons = []
    for (option, reference), table in paired.items():
        pairs = count_pairs(table)
        comparisons.append(
            Comparison(
                option=option,
                reference=reference,
                family=families[option, reference],
                both=pairs.both,
                only_reference=pairs.only_reference,
                only_option=pairs.only_option,
                neither=pairs.neither,
                episodes=table["init_state_id"].n_unique(),
                correlation=pairs.correlation,
                success=by_success[option, reference],
                progress=by_progress.get((option, reference)),
                durations=_durations(table, criteria, members[families[option, reference]]),
            )
        )
    return comparisons


def _durations(pairs: pl.DataFrame, criteria: Criteria, members: int) -> Durations:
    """How soon the two succeed in these pairs; the interval has its share of the level of a family of `members`."""
    horizon = pairs["horizon"][0]
    means = [pairs[column].mean() for column in ("duration", "duration_reference")]
    ends = level(criteria.confidence) / members
    return compare_durations(shares(pairs, "duration", horizon), means, horizon, ends, criteria.claim)


def _judge(
    compared: Mapping[tuple[str, str], Differences], families: Mapping[tuple[str, str], Family], criteria: Criteria
) -> dict[tuple[str, str], Judgement]:
    judged: dict[tuple[str, str], Judgement] = {}
    for family in dict.fromkeys(families.values()):
        members = [difference for pair, difference in compared.items() if families[pair] == family]
        judgements = judge_family(members, criteria)
        judged |= zip([pair for pair in compared if families[pair] == family], judgements, strict=True)
    return judged


def judge_family(members: Sequence[Differences], criteria: Criteria) -> list[Judgement]:
    """Judge comparisons that are corrected for their number together."""
    criterion = (criteria.margin, criteria.confidence, criteria.stopping, criteria.claim)
    evidence = [weigh(difference, *criterion) for difference in members]
    worse, non_inferior = ([getattr(found, name) for found in evidence] for name in ("p_worse", "p_non_inferior"))
    lower, upper = (holm_levels(p_values, level(criteria.confidence)) for p_values in (non_inferior, worse))
    intervals = [found.interval(*levels) for found, *levels in zip(evidence, lower, upper, strict=True)]
    return [
        Judgement(
            wins=difference.wins,
            losses=difference.losses,
            ties=difference.pairs - difference.wins - difference.losses,
            difference=difference.mean,
            interval=interval,
            p_worse=p_worse,
            p_non_inferior=p_non_inferior,
            design_effect=difference.design_effect,
            spread=MethodsTest(difference).spread if criteria.claim == "methods" else None,
            conclusion=conclude(interval, criteria.margin),
        )
        for difference, interval, p_worse, p_non_inferior in zip(
            members, intervals, holm(worse), holm(non_inferior), strict=True
        )
    ]


def worth(judged: Judgement, decision: Decision, looks: Sequence[int]) -> Worth:
    """What a comparison can show.

    Args:
        looks: the numbers of pairs at which the pipeline looks, the last of them the most there may be.
    """
    pairs = judged.wins + judged.losses + judged.ties
    independent, discordance = pairs / judged.design_effect, (judged.wins + judged.losses) / pairs
    margin, wrong, power = decision.margin, level(decision.confidence), decision.power
    looks = [round(look / judged.design_effect) for look in looks]

    def planned(loss: float) -> Odds:
        return odds(round(independent), Truth.plausible(-loss, discordance), margin, wrong)

    def adaptive(loss: float) -> Odds:
        return odds_of_looks(looks, Truth.plausible(-loss, discordance), margin, wrong)

    def methods(loss: float) -> Odds:
        return odds_of_methods(judged.spread, loss, margin, wrong)

    seeds = states = None
    if judged.spread:
        odds_of, enough, settling = methods, None, (judged.spread, margin, wrong, power)
        seeds, states = seeds_to_settle(*settling), states_to_settle(*settling)
    elif decision.stopping == "adaptive":
        odds_of, observed = adaptive, Truth.plausible(judged.difference, discordance)
        seen = [count / judged.design_effect for count in (judged.wins, judged.losses, judged.ties)]
        enough = math.ceil(independent)
        if judged.conclusion == "INCONCLUSIVE":
            enough = looks_to_settle(looks[0], seen, observed, margin, wrong, power)
    else:
        odds_of, enough = planned, pairs_to_settle(discordance, margin, wrong, power)
    bare = methods if judged.spread else planned
    losses = np.arange(1, 101) / 100
    called = bisect.bisect_left(losses, power, key=lambda loss: odds_of(loss).inferior)
    return Worth(
        pairs=independent,
        discordance=discordance,
        bare_rule_error=bare(0).bare_rule_worse,
        bare_rule_miss=1 - bare(margin).bare_rule_worse,
        non_inferior_if_equal=odds_of(0).non_inferior,
        inferior_if_margin=odds_of(margin).inferior,
        inferior_if_twice_margin=odds_of(2 * margin).inferior,
        smallest_loss=float(losses[called]) if called < len(losses) else None,
        pairs_to_settle=enough,
        seeds_to_settle=seeds,
        states_to_settle=states,
    )
