"""Looks: when a comparison is settled, and what the decision makes of options that stopped at different times."""

import pytest

from tests.unit.decision.samples import AUDITED, EPISODES, PICKUP, contents, judged, pickup, read, spec
from world_modality.decision.evaluations import ComparisonError, first_episodes
from world_modality.decision.looks import look_at
from world_modality.decision.tree import decide
from world_modality.experiment.config import default_config, load_experiment
from world_modality.report.decision_text import render

RUN = ["E0", "E2", "S0"]
ROUNDS = {"stopping": "adaptive", "margin": 0.3}


def adaptive(run=RUN, **decision):
    """Rounds of five initial states of each of the two tasks."""
    settings = spec(run=run, **ROUNDS | decision)
    return settings.model_copy(update={"rounds": (5, EPISODES)})


def look_spec(option="E2", reference="E0", **changes):
    config = default_config()
    config["decision"] |= ROUNDS
    return load_experiment(config).look_spec(option, reference, rounds=1).model_copy(update=changes)


def stopped(evaluations, stops):
    """The evaluations without the episodes that no comparison asked for."""
    longest = {name: max(n for pair, n in stops.items() if name in pair) for pair in stops for name in pair}
    return [only for e in evaluations for only in first_episodes([e], longest[e.option])]


def decided(folder, settings, files, stops):
    evaluations = stopped(read(folder, files), stops)
    return decide(*judged(evaluations, settings, stops), evaluations, settings, AUDITED)


@pytest.mark.parametrize(("world", "settled"), [(10, True), (8, True), (6, False), (0, True)])
def test_a_look_settles_a_comparison_once_it_is_clear(tmp_path, world, settled):
    assert look_at(read(tmp_path, contents(E0=8, E2=world)), look_spec()).settled == settled


def test_each_comparison_of_a_family_is_settled_at_its_share_of_the_level(tmp_path):
    evaluations = read(tmp_path, contents(E0=7, E2=7))
    alone, among_four = (look_at(evaluations, look_spec(members=n)).comparison.success for n in (1, 4))
    assert alone.interval[0] > among_four.interval[0]
    assert alone.p_non_inferior == among_four.p_non_inferior  # the evidence itself is the same


def test_a_look_counts_both_options(tmp_path):
    look = look_at(read(tmp_path, contents(E0=8, E2=6)), look_spec())
    assert {name: counts.pooled.successes for name, counts in look.counts.items()} == {"E2": 12, "E0": 16}
    assert look.comparison.episodes == EPISODES
    assert look.summary() == (
        "E2 : E0 after 20 pairs: INCONCLUSIVE (E2 12/20, E0 16/20); by progress NON_INFERIOR; "
        "time to success +26.0 steps"
    )


def test_a_look_has_progress_and_time_and_neither_settles_it(tmp_path):
    """E2 never comes as far as E0 and takes longer, but the successes are too few to say."""
    files = contents(E0=8, E2=6)
    for task in PICKUP:
        for row in files["E0", task]["episodes"]:
            row["pickup"] = pickup(1, 2, 3, furthest="grasped")
            row["steps"] = 5 if row["success"] else 220
    look = look_at(read(tmp_path, files), look_spec())
    assert look.comparison.progress.conclusion == "INFERIOR"
    assert look.comparison.durations.difference == pytest.approx((0.6 * 90 + 0.4 * 220) - (0.8 * 5 + 0.2 * 220))
    assert not look.settled


def test_a_look_at_incomparable_evaluations_is_refused(tmp_path):
    files = contents(E0=8, E2=6)
    files["E2", 0]["episodes"][3]["env_seed"] = 9
    with pytest.raises(ComparisonError, match=r"eval_E2_0\.json: initial state 3 .* env_seed is 9"):
        look_at(read(tmp_path, files), look_spec())


def test_options_may_stop_at_different_times(tmp_path):
    """The first five states of each task: E0 all, E2 all, S0 none."""
    stops = {("E2", "E0"): EPISODES, ("S0", "E0"): 5}
    verdict = decided(tmp_path, adaptive(), contents(E0=7, E2=7, S0=0), stops)
    assert {(c.option, c.reference): c.episodes for c in verdict.comparisons} == stops
    assert verdict.comparison("S0", "E0").success.losses == 10
    assert [verdict.option(name).pickup.episodes for name in RUN] == [20, 20, 10]
    assert {c.option: verdict.stopped(c) for c in verdict.comparisons} == {"E2": "settled", "S0": "settled"}


def test_the_branch_is_that_of_the_moment_at_which_its_comparison_stopped(tmp_path):
    """E2 is as good on the first five states, and worse on the others, which only S0 : E0 asked for."""
    settings, stops = adaptive(margin=0.6), {("E2", "E0"): 5, ("S0", "E0"): EPISODES}
    files = contents(E0=7, E2=5, S0=6)
    verdict = decided(tmp_path, settings, files, stops)
    assert (verdict.branch, verdict.token) == ("success", "WORLD_HELPS_OR_NEUTRAL")
    assert verdict.primary.success.difference == 0
    assert verdict.option("E0").pickup.successes == 14


def test_a_comparison_that_is_not_settled_stopped_at_the_cap_or_with_its_reference(tmp_path):
    stops = {("E2", "E0"): EPISODES, ("S0", "E0"): 5}
    verdict = decided(tmp_path, adaptive(margin=0.1), contents(E0=5, E2=4, S0=4, A=5), stops | {("A", "E0"): EPISODES})
    assert {c.option: verdict.stopped(c) for c in verdict.comparisons} == {"E2": "cap", "S0": "reference", "A": "cap"}
    headline = render(verdict).splitlines()[1]
    assert headline.startswith("INCONCLUSIVE  E2 : E0  branch wrist")
    assert headline.endswith("  cap  default: keep E0")
    text = " ".join(render(verdict).split())
    assert "Raise evaluation.max_episodes (10) and run it again: only the new episodes are rolled out" in text


def test_the_text_says_how_small_a_loss_could_have_been_called(tmp_path):
    verdict = decided(tmp_path, adaptive(run=["E0", "E2"]), contents(E0=7, E2=7), {("E2", "E0"): EPISODES})
    assert 0.1 < verdict.worth.smallest_loss <= 1
    points = round(100 * verdict.worth.smallest_loss)
    text = " ".join(render(verdict).split())
    assert f"The smallest loss that 80% of them call INFERIOR is {points} points." in text
    assert "looks after every 10 pairs and stops after 20 at the latest" in text


def test_a_look_sees_the_pairs_of_all_training_seeds(tmp_path):
    """Two seeds: ten initial states of each of two tasks are 40 pairs, of which 20 are independent."""
    single, double = (
        decided(tmp_path, adaptive(run=["E0", "E2"]), contents(E0=7, E2=7, train_seeds=seeds), {("E2", "E0"): EPISODES})
        for seeds in ((0,), (0, 1))
    )
    assert "looks after every 20 pairs and stops after 40 at the latest" in " ".join(render(double).split())
    assert double.worth.pairs == single.worth.pairs == 20
    assert double.worth.smallest_loss == single.worth.smallest_loss


def test_episodes_that_a_look_saw_must_be_there(tmp_path):
    settings, stops = adaptive(run=["E0", "E2"]), {("E2", "E0"): EPISODES}
    evaluations = read(tmp_path, contents(E0=7, E2=7))
    made = judged(evaluations, settings, stops)
    with pytest.raises(ComparisonError, match="E2 : E0 does not follow from these evaluations; look again"):
        decide(*made, first_episodes(evaluations, 5), settings, AUDITED)


def test_options_of_different_lengths_are_refused_where_the_number_was_chosen_beforehand(tmp_path):
    settings, evaluations = spec(), read(tmp_path, contents(E0=7, E2=7))
    made = judged(evaluations, settings)
    shorter = [only for e in evaluations for only in first_episodes([e], 5 if e.option == "E2" else EPISODES)]
    with pytest.raises(ComparisonError, match=r"eval_E2_0\.json: unpaired episode: it lacks initial state 5"):
        decide(*made, shorter, settings, AUDITED)
