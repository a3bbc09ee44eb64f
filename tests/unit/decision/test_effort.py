"""What would settle the primary comparison, in episodes and minutes."""

import copy
import os
import time

import pytest

from tests.unit.decision.samples import EPISODES, contents, decided, spec
from world_modality.decision.effort import Evaluated, efforts
from world_modality.decision.judgement import judge_family, worth
from world_modality.decision.pairs import Differences
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.specs import PairCosts
from world_modality.report.decision_text import render

COSTS = PairCosts(state=0.1, seed=12)  # GPU-hours: of both options on all tasks, and of both trainings
DECISION = load_experiment(default_config()).decision
FILES = contents(E0=5, E2=5)


def settings(costs=COSTS, gpus=1, **decision):
    made = spec(**decision)
    return made.model_copy(update={"costs": costs, "plan": made.plan.model_copy(update={"gpus": gpus})})


def words(verdict):
    return " ".join(render(verdict).split())


def test_of_a_number_chosen_beforehand_the_whole_is_priced(tmp_path):
    """135 pairs of two tasks are 68 initial states: twice two tasks of episodes, and 6 minutes each."""
    verdict = decided(tmp_path, settings(), contents(E0=6, E2=8))
    states = -(-verdict.worth.pairs_to_settle // 2)
    found = verdict.effort.by_episodes
    assert (found.episodes, found.minutes) == (4 * states, pytest.approx(6 * states))
    minutes = f"about {6 * states} minutes with 1 job at a time by experiments/costs.yaml"
    assert f"That takes {4 * states} episodes of E2 and E0 in all, {minutes}." in words(verdict)
    assert verdict.effort.by_seeds is None


def test_of_a_run_at_its_cap_what_is_there_is_not_priced_again(tmp_path):
    made = settings(gpus=2, stopping="adaptive").model_copy(update={"rounds": (5, EPISODES)})
    verdict = decided(tmp_path, made, FILES)
    more = -(-verdict.worth.pairs_to_settle // 2) - EPISODES
    found = verdict.effort.by_episodes
    assert more > 0
    assert (found.episodes, found.minutes) == (4 * more, pytest.approx(3 * more))
    assert f"are settled at about {verdict.worth.pairs_to_settle} pairs. That takes {4 * more} more episodes" in words(
        verdict
    )
    assert f"about {3 * more} minutes with 2 jobs at a time" in words(verdict)


def test_where_no_costs_are_known_the_text_counts_episodes_alone(tmp_path):
    verdict = decided(tmp_path, settings(costs=None), FILES)
    assert verdict.effort.by_episodes.minutes is None
    assert f"That takes {verdict.effort.by_episodes.episodes} episodes of E2 and E0 in all." in words(verdict)
    assert "minutes" not in render(verdict)


def test_what_a_clock_says_changes_no_byte(tmp_path, monkeypatch):
    """Costs are data: the same files at another time, read in another time, make the same text."""
    first = render(decided(tmp_path, settings(), FILES))
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert render(decided(tmp_path, settings(), FILES)) == first


def test_more_training_seeds_are_priced_with_their_training(tmp_path):
    files = copy.deepcopy(contents(E0=6, E2=5, train_seeds=(0, 1, 2)))
    for row in files["E2", 0]["episodes"][EPISODES : EPISODES + 3]:
        row["success"], row["steps"] = False, 220
    verdict = decided(tmp_path, settings(claim="methods", margin=0.3, run=["E0", "E2", "A"]), files | contents(
        A=6, train_seeds=(0, 1, 2)
    ))  # fmt: skip
    seeds, found = verdict.worth.seeds_to_settle, verdict.effort.by_seeds
    assert found.episodes == 4 * EPISODES * seeds
    assert found.minutes == pytest.approx(60 * seeds * (12 + 0.1 * EPISODES))
    assert f"about {seeds} seeds on these initial states ({found.episodes} episodes of E2 and E0 in all" in words(
        verdict
    )


def judged(seeds=1, **counts):
    values = Differences.of_counts(**counts).values
    difference = Differences(values.repeat(seeds, axis=1), range(len(values)))
    return judge_family([difference], DECISION)[0]


def effort_of(found, seeds, costs=COSTS):
    there = Evaluated(states=20, pickup_tasks=2, tasks=10, seeds=seeds)
    worthy = worth(found, DECISION, [seeds * 2 * states for states in (10, 20)])
    return worthy, efforts(worthy, found, there, costs, 1, planned=False)


def test_seeds_that_repeat_each_other_take_the_states_that_one_would_and_twice_the_episodes():
    counts = {"wins": 9, "losses": 9, "ties": 22}
    (one, alone), (two, both) = (effort_of(judged(seeds, **counts), seeds) for seeds in (1, 2))
    assert two.pairs_to_settle == pytest.approx(one.pairs_to_settle, abs=21)  # a look apart
    assert two.non_inferior_if_equal == pytest.approx(one.non_inferior_if_equal, abs=0.03)
    assert both.by_episodes.episodes == pytest.approx(2 * alone.by_episodes.episodes, rel=0.3)


def test_what_is_settled_takes_nothing_more():
    worthy, found = effort_of(judged(wins=0, losses=0, ties=40), 1)
    assert worthy.pairs_to_settle == 40
    assert (found.by_episodes.episodes, found.by_episodes.minutes) == (0, 0)


@pytest.mark.parametrize("wins", range(0, 20, 2))
def test_what_is_not_settled_takes_more_pairs_than_there_are(wins):
    """However often such a run, begun anew, would have been settled by now."""
    found = judged(wins=wins, losses=18 - wins, ties=22)
    worthy, effort = effort_of(found, 1)
    if found.conclusion == "INCONCLUSIVE":
        assert worthy.pairs_to_settle is None or worthy.pairs_to_settle > 40
        assert effort.by_episodes is None or effort.by_episodes.minutes > 0
