"""What it would take to settle the primary comparison: episodes, and minutes by the planned costs.

The minutes come from `experiments/costs.yaml`, which a person reads and commits. What a run measures differs from run
to run, so it must not enter a decision, which is the same in every byte whenever its inputs are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from world_modality.artifacts.documents import Document
from world_modality.decision.judgement import Judgement, Worth
from world_modality.experiment.specs import PairCosts


@dataclass(frozen=True)
class Evaluated:
    """From what the primary comparison was evaluated.

    Args:
        states: initial states of each task.
        pickup_tasks: number of tasks whose episodes are paired.
        tasks: number of tasks that are evaluated, these included.
        seeds: number of training seeds.
    """

    states: int
    pickup_tasks: int
    tasks: int
    seeds: int


class Effort(Document):
    """One way to settle it."""

    episodes: int = Field(description="of the option and its reference together, on all evaluated tasks")
    minutes: float | None = Field(
        description="with `plan.gpus` jobs at a time, by `experiments/costs.yaml`; with more seeds, their training is "
        "included; null: the costs of the scale are not known [min]"
    )


class Efforts(Document):
    """What would settle the primary comparison: with `fixed` in all, because the number must be chosen beforehand, else
    in addition to the episodes that there are."""

    by_episodes: Effort | None = Field(
        description="for pairs_to_settle or states_to_settle of `worth`; null where both are"
    )
    by_seeds: Effort | None = Field(description="for seeds_to_settle of `worth`; null where that is")


def efforts(
    worth: Worth, judged: Judgement, there: Evaluated, costs: PairCosts | None, gpus: int, planned: bool
) -> Efforts:
    """What would settle the primary comparison.

    Args:
        costs: of the two options that it compares; None: not known.
        gpus: how many jobs run at a time.
        planned: the number of episodes must be chosen beforehand.
    """

    def effort(states: int, seeds: int, trainings: int) -> Effort:
        hours = costs and costs.state * states * seeds + costs.seed * trainings
        return Effort(episodes=2 * states * there.tasks * seeds, minutes=costs and 60 * hours / gpus)

    by_episodes = by_seeds = None
    pairs = worth.pairs_to_settle and worth.pairs_to_settle * judged.design_effect / there.seeds
    if wanted := worth.states_to_settle or pairs:
        states = math.ceil(wanted / there.pickup_tasks)
        by_episodes = effort(states if planned else max(0, states - there.states), there.seeds, 0)
    if seeds := worth.seeds_to_settle:
        by_seeds = effort(there.states, seeds, seeds)
    return Efforts(by_episodes=by_episodes, by_seeds=by_seeds)
