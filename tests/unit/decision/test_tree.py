"""The tree: the branch, every token and its precedence, what is refused, and what the verdict holds."""

import argparse
import copy
import math

import pytest

from tests.unit.decision.samples import (
    AUDITED,
    PICKUP,
    content,
    contents,
    decided,
    foresight,
    judged,
    looks,
    pickup,
    read,
    refused,
    spec,
    wrist_verdict,
)
from world_modality.decision.evaluations import ComparisonError
from world_modality.decision.paired import paired_test
from world_modality.decision.pairs import Differences
from world_modality.decision.tree import Pickup, decide, judge_pickup
from world_modality.errors import InputError
from world_modality.report.decision_text import render

# ---- the checkpoint -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world", "branch"), [(6, "success"), (5, "success"), (4, "wrist")])
def test_the_branch_is_success_where_world_is_at_least_as_good(tmp_path, world, branch):
    assert judged(read(tmp_path, contents(E0=5, E2=world)), spec())[0].branch == branch


def test_successes_are_pooled_over_the_pickup_tasks(tmp_path):
    files = contents(E0=5, E2=5)
    files["E2", 0] = content("E2", 0, 2)
    files["E2", 1] = content("E2", 1, 8)
    pickup, *_ = judged(read(tmp_path, files), spec())
    assert pickup.branch == "success"
    assert pickup.options["E2"].pooled.successes == 10
    assert {task: c.successes for task, c in pickup.options["E2"].tasks.items()} == {0: 2, 1: 8}


@pytest.mark.parametrize(
    ("world", "choices", "scheduled"),
    [
        (6, {}, []),
        (4, {}, ["A"]),
        (6, {"wrist_experiment": "always"}, ["A"]),
        (6, {"on_success": ["C"]}, ["C"]),
        (4, {"on_success": ["C"]}, ["A"]),
        (6, {"on_success": ["C"], "wrist_experiment": "always"}, ["A", "C"]),
        (4, {"on_hurt": ["A", "B", "C"], "on_success": ["C"]}, ["A", "B", "C"]),
        (4, {"on_hurt": ["C", "A"], "gpu_hours": 10}, ["C"]),
        (6, {"on_hurt": ["A", "B"], "gpu_hours": 9}, []),
        (4, {"on_hurt": ["A", "B"], "gpu_hours": 9}, []),
    ],
)
def test_only_what_the_branch_asks_for_is_scheduled(tmp_path, world, choices, scheduled):
    assert judged(read(tmp_path, contents(E0=5, E2=world)), spec(**choices))[0].scheduled == scheduled


def test_an_option_that_already_ran_is_not_scheduled_again(tmp_path):
    settings = spec(run=["E0", "E2", "A"])
    assert judged(read(tmp_path, contents(E0=5, E2=4)), settings)[0].scheduled == []


def test_running_the_wrist_experiment_always_leaves_the_branch_as_it_is(tmp_path):
    evaluations = read(tmp_path, contents(E0=5, E2=6))
    assert judged(evaluations, spec(wrist_experiment="always"))[0].branch == "success"


def test_the_branch_is_not_taken_from_another_comparison(tmp_path):
    *_, looks = judged(read(tmp_path, contents(E0=5, E2=6, S0=5)), spec(run=["E0", "E2", "S0"]))
    assert looks[1].pair == ("S0", "E0")
    with pytest.raises(ComparisonError, match="a look at S0 : E0; the branch compares E2 : E0"):
        judge_pickup(looks[1], spec())


# ---- the tokens -----------------------------------------------------------------------------------------------------

TOKENS = [
    ("VOID_BASELINE_TOO_WEAK", {"E0": 1, "E2": 9}),
    ("VOID_BASELINE_TOO_WEAK", {"E0": 1, "E2": 0, "A": 9, "C": 9}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 2, "E2": 2}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 5, "E2": 6}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 5, "E2": 6, "A": 9}),
    ("WORLD_HELPS_OR_NEUTRAL", {"E0": 5, "E2": 6, "C": 6}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 6, "C": 7}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 6, "A": 9, "C": 7}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 4, "A": 3, "C": 5}),
    ("ADOPT_FUSION", {"E0": 5, "E2": 4, "A": 6, "C": 7}),
    ("ADOPT_WRIST", {"E0": 5, "E2": 4, "A": 5}),
    ("ADOPT_WRIST", {"E0": 5, "E2": 4, "A": 6, "C": 6}),
    ("ADOPT_WRIST", {"E0": 5, "E2": 4, "A": 6, "C": 4}),
    ("KEEP_BASELINE", {"E0": 5, "E2": 4, "A": 4}),
    ("KEEP_BASELINE", {"E0": 5, "E2": 4, "A": 4, "C": 4}),
]


@pytest.mark.parametrize(("token", "successes"), TOKENS)
def test_each_token_follows_from_the_pooled_successes(tmp_path, token, successes):
    verdict = decided(tmp_path, spec(run=list(successes)), contents(**successes))
    assert verdict.token == token
    assert render(verdict).splitlines()[0] == token


def test_a_budget_that_leaves_the_wrist_options_out_leaves_the_experiment_pending(tmp_path):
    verdict = decided(tmp_path, spec(gpu_hours=9), contents(E0=5, E2=4))
    assert verdict.scheduled == []
    assert render(verdict).splitlines()[0] == "WRIST_EXPERIMENT_PENDING"


def test_a_budget_for_nothing_but_a_rollout_leaves_the_experiment_pending(tmp_path):
    settings = spec(on_hurt=["B", "A"], gpu_hours=10)
    verdict = decided(tmp_path, settings, contents(E0=5, E2=4, B=9))
    assert verdict.scheduled == ["B"]
    assert render(verdict).splitlines()[0] == "WRIST_EXPERIMENT_PENDING"


def test_without_a_wrist_run_the_fusion_alone_can_be_adopted(tmp_path):
    settings = spec(run=["E0", "E2", "C"], gpu_hours=9)
    assert decided(tmp_path, settings, contents(E0=5, E2=4, C=5)).token == "ADOPT_FUSION"


def test_a_borrowed_checkpoint_is_never_adopted(tmp_path):
    files = contents(E0=5, E2=4, A=3, E2_zero=10)
    assert decided(tmp_path, spec(run=["E0", "E2", "E2-zero"]), files).token == "KEEP_BASELINE"


def test_tasks_beside_the_pickup_tasks_do_not_decide(tmp_path):
    files = contents(E0=5, E2=6) | {("E0", 5): content("E0", 5, 10), ("E2", 5): content("E2", 5, 0)}
    verdict = decided(tmp_path, spec(), files)
    assert verdict.token == "WORLD_HELPS_OR_NEUTRAL"
    assert verdict.option("E2").all_tasks.episodes == 30


def test_a_missing_task_is_refused(tmp_path):
    files = contents(E0=5, E2=6)
    del files["E2", 1]
    refused(tmp_path, files, r"eval_E2_1\.json: missing")


def test_a_scheduled_option_that_was_not_evaluated_is_refused(tmp_path):
    refused(tmp_path, contents(E0=5, E2=4), r"eval_A_0\.json: missing")


def test_an_option_nobody_asked_for_is_refused(tmp_path):
    refused(tmp_path, contents(E0=5, E2=6, S0=5), r"eval_S0_0\.json: not asked for")


def test_an_evaluation_given_twice_is_refused(tmp_path):
    evaluations = read(tmp_path, contents(E0=5, E2=6))
    with pytest.raises(ComparisonError, match=r"eval_E0_0\.json: given twice"):
        decide(*judged(evaluations, spec()), [*evaluations, evaluations[0]], spec(), AUDITED)


def test_a_pickup_that_does_not_follow_from_the_evaluations_is_refused(tmp_path):
    stale = judged(read(tmp_path, contents(E0=5, E2=6)), spec())
    evaluations = read(tmp_path, contents(E0=5, E2=4))
    with pytest.raises(ComparisonError, match="E2 : E0 does not follow from these evaluations; look again"):
        decide(*stale, read(tmp_path, contents(E0=5, E2=4)), spec(), AUDITED)
    pickup, plan, _ = stale
    with pytest.raises(ComparisonError, match="branch does not follow"):
        decide(pickup, plan, judged(evaluations, spec())[2][:1], evaluations, spec(), AUDITED)
    overfull = scheduling(evaluations, ["S0"])
    with pytest.raises(ComparisonError, match="S0 is scheduled, but the tree asks for"):
        decide(*overfull, read(tmp_path, contents(E0=5, E2=4, S0=1)), spec(), AUDITED)
    with pytest.raises(ComparisonError, match="A is not scheduled, but the plan chooses"):
        decide(*scheduling(evaluations, []), evaluations, spec(), AUDITED)


def scheduling(evaluations, scheduled):
    """A pickup and a plan that agree on what was scheduled."""
    pickup, plan, _ = judged(evaluations, spec())
    again = looks(evaluations, ["E0", "E2", *scheduled], spec(run=["E0", "E2"]))
    return pickup.model_copy(update={"scheduled": scheduled}), plan.model_copy(update={"chosen": scheduled}), again


def test_a_plan_that_is_not_what_was_scheduled_is_refused(tmp_path):
    evaluations = read(tmp_path, contents(E0=5, E2=4, A=6))
    pickup, plan, looks = judged(evaluations, spec())
    with pytest.raises(ComparisonError, match=r"plan.json: chose \[\], but pickup.json schedules \['A'\]"):
        decide(pickup, plan.model_copy(update={"chosen": []}), looks, evaluations, spec(), AUDITED)


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        ({"world": "A"}, "run: the tree needs A"),
        ({"wrist_experiment": "never"}, r"decision\.wrist_experiment: "),
        ({"confidence": 95.0}, r"decision\.confidence: Input should be less than or equal to 0.999"),
    ],
)
def test_a_spec_the_tree_cannot_run_with_is_refused(decision, message):
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        spec(**decision)


def test_an_option_in_run_without_a_row_is_refused():
    with pytest.raises(argparse.ArgumentTypeError, match="no option E9; valid: E0, E1, E2"):
        spec(run=("E0", "E2", "E9"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "S0"}, "audited against S0 and E2"),
        ({"options": {"E0": {}}}, "the checkpoint of E2 was not audited"),
    ],
)
def test_an_audit_of_something_else_is_refused(tmp_path, change, message):
    evaluations = read(tmp_path, contents(E0=5, E2=6))
    with pytest.raises(ComparisonError, match=message):
        decide(*judged(evaluations, spec()), evaluations, spec(), AUDITED | change)


@pytest.mark.parametrize("text", ["", "{}", '{"branch": "left"}'])
def test_a_malformed_pickup_is_refused(tmp_path, text):
    (tmp_path / "pickup.json").write_text(text)
    with pytest.raises(InputError, match=r"pickup\.json: not "):
        Pickup.read(tmp_path / "pickup.json")


def p_worse(wins, losses, ties):
    return paired_test(Differences.of_counts(wins, losses, ties), 0.05).p_value(0.0, "below")


def p_non_inferior(wins, losses, ties):
    return paired_test(Differences.of_counts(wins, losses, ties), 0.05).p_value(-0.1, "above")


def test_every_trained_option_is_compared_with_the_baseline_and_every_ablation_with_its_source(tmp_path):
    compared = [(c.option, c.reference, c.family) for c in wrist_verdict(tmp_path).comparisons]
    assert compared == [
        ("E2", "E0", "primary"),
        ("S0", "E0", "controls"),
        ("A", "E0", "adoption"),
        ("E2-zero", "E2", "controls"),
    ]


def test_the_paired_table_counts_the_episodes_of_the_pickup_tasks(tmp_path):
    main = wrist_verdict(tmp_path).comparisons[0]
    assert (main.both, main.only_reference, main.only_option, main.neither) == (8, 4, 0, 8)
    assert main.success.difference == pytest.approx(-0.2)
    assert main.success.p_worse == pytest.approx(p_worse(wins=0, losses=4, ties=16))
    assert main.correlation == pytest.approx((8 * 8 - 4 * 0) / math.sqrt(12 * 8 * 8 * 12))


def test_p_values_are_corrected_within_their_family_and_the_primary_one_stands_by_itself(tmp_path):
    by_pair = {(c.option, c.reference): c.success for c in wrist_verdict(tmp_path, S0=1, E2_zero=0).comparisons}
    assert by_pair["E2", "E0"].p_worse == pytest.approx(p_worse(0, 4, 16))
    assert by_pair["A", "E0"].p_worse == 1
    assert by_pair["S0", "E0"].p_worse == pytest.approx(2 * p_worse(0, 10, 10))  # the smaller of two
    assert by_pair["E2-zero", "E2"].p_worse == pytest.approx(p_worse(0, 8, 12))


def test_an_evaluation_may_be_looked_at_any_time_where_that_was_chosen(tmp_path):
    files = contents(E0=9, E2=4, A=9)
    fixed, anytime = (decided(tmp_path, spec(stopping=stopping), files) for stopping in ("fixed", "anytime"))
    assert anytime.primary.success.p_worse > fixed.primary.success.p_worse
    assert "valid however often one looks" in " ".join(render(anytime).split())


def test_progress_is_judged_like_success(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=4, A=5))
    for task in PICKUP:
        for row in files["E0", task]["episodes"]:
            row["pickup"] = pickup(1, 2, 3, furthest="grasped")
    primary = decided(tmp_path, spec(), files).primary
    assert (primary.success.conclusion, primary.progress.conclusion) == ("INCONCLUSIVE", "INFERIOR")


@pytest.mark.parametrize("key", ["gate", "action_change_rms"])
def test_a_world_path_that_hardly_acts_is_called_inactive(tmp_path, key):
    files = copy.deepcopy(contents(E0=5, E2=6, E2_zero=6))
    for (option, _), file in files.items():
        if option != "E0":
            file["world"]["seed_0"][key] = 9e-4
    verdict = decided(tmp_path, spec(run=["E0", "E2", "E2-zero"]), files)
    assert [option.name for option in verdict.options if option.world_inactive] == ["E2"]
    assert "world path inactive: E2." in render(verdict)
    assert "9.00e-04" in render(verdict)


@pytest.mark.parametrize(("gate", "inactive"), [(1e-3, []), (9e-4, ["E1"])])
def test_of_a_path_trained_on_a_memory_of_zeros_the_gate_alone_is_asked(tmp_path, gate, inactive):
    files = copy.deepcopy(contents(E0=5, E1=5, E2=6))
    for task in PICKUP:
        files["E1", task]["world"]["seed_0"] |= {"gate": gate, "action_change_rms": 0.0}
    verdict = decided(tmp_path, spec(run=["E0", "E1", "E2"]), files)
    assert [option.name for option in verdict.options if option.world_inactive] == inactive


def test_how_far_each_pickup_came_stands_beside_the_successes(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6))
    for row in files["E2", 0]["episodes"][:6]:
        row["pickup"] = pickup(1, 2, 3, 4, 5, 6, furthest="placed") | {"slips": 2}
    files["E0", 0]["episodes"][9]["pickup"] = pickup(1, 2, 3, furthest="grasped")
    files["E2", 1]["episodes"][0]["pickup"] = pickup(furthest=None)
    verdict = decided(tmp_path, spec(), files)
    found = verdict.option("E2").progress
    assert {stage: n for stage, n in found.furthest.items() if n} == {"none": 1, "touched": 13, "placed": 6}
    assert found.slips == 12
    comparison = verdict.comparisons[0]
    assert (comparison.progress.wins, comparison.progress.losses, comparison.progress.ties) == (6, 2, 12)
    assert comparison.progress.p_non_inferior == pytest.approx(p_non_inferior(6, 2, 12))
    assert "E2 : E0      6    2     12" in render(verdict)


def again(files, stream=1):
    """E0 under other noise."""
    files = copy.deepcopy(files)
    for task in PICKUP:
        files["E0-again", task]["rollout"]["noise_stream"] = stream
        for row in files["E0-again", task]["episodes"]:
            row["noise_seed"] += 1
    return files


def test_a_policy_may_be_compared_with_itself_under_other_noise(tmp_path):
    files = again(contents(E0=5, E2=6, E0_again=4))
    verdict = decided(tmp_path, spec(run=["E0", "E2", "E0-again"]), files)
    assert verdict.comparison("E0-again", "E0").success.losses == 2
    assert "E0-again is E0 itself under other noise, and differs from it by -10.0 points in 2 pairs" in " ".join(
        render(verdict).split()
    )


def test_other_noise_than_the_row_says_is_refused(tmp_path):
    files = contents(E0=5, E2=6, E0_again=4)
    with pytest.raises(ComparisonError, match=r"eval_E0-again_0\.json: rolled out under noise stream 0, not 1"):
        decided(tmp_path, spec(run=["E0", "E2", "E0-again"]), files)
    files = again(files, stream=0)
    with pytest.raises(ComparisonError, match=r"eval_E0-again_0\.json: .*noise"):
        decided(tmp_path, spec(run=["E0", "E2", "E0-again"]), files)


def test_tasks_without_a_pickup_leave_its_stages_out(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=6))
    for file in files.values():
        for row in file["episodes"]:
            row["pickup"] = None
    verdict = decided(tmp_path, spec(), files)
    assert verdict.option("E2").progress is None
    assert "HOW FAR" not in render(verdict)


def test_a_blind_baseline_is_not_compared_with_itself(tmp_path):
    settings = spec(run=["E0", "E2", "S0"], baseline="S0")
    audited = AUDITED | {"baseline": "S0"}
    evaluations = read(tmp_path, contents(E0=5, E2=6, S0=5))
    text = render(decide(*judged(evaluations, settings), evaluations, settings, audited))
    assert "cannot show which camera" not in " ".join(text.split())


def test_the_foresight_of_every_option_with_a_prophet_is_asked_for(tmp_path):
    files = contents(E0=5, E2=4, A=6)
    with pytest.raises(ComparisonError, match=r"prophet_<option>.json of \['E2'\], expected those of \['A', 'E2'\]"):
        decided(tmp_path, spec(run=["E0", "E2", "A"]), files, [foresight("E2")])
