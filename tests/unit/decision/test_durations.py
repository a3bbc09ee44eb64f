"""Time to success: what it counts, and that its interval holds although success stops the evaluation."""

import copy

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tests.unit.decision.samples import PICKUP, contents, decided, spec
from world_modality.decision.durations import compare_durations
from world_modality.decision.judgement import compare
from world_modality.decision.pairs import Differences
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.sections import Criteria
from world_modality.report.decision_text import render

HORIZON = 220
LEVEL = 0.05
DECISION = load_experiment(default_config()).decision
ADAPTIVE = Criteria(**{name: getattr(DECISION, name) for name in Criteria.model_fields})


def durations(steps, claim="checkpoints", level=LEVEL):
    """Of pairs that differ by so many steps."""
    values = np.array(steps, float).reshape(len(steps), -1) / HORIZON
    return compare_durations(Differences(values, np.arange(len(values))), (0.0, 0.0), HORIZON, level, claim)


def episodes(rates, rng, states=60):
    """Two tasks; a success takes from 40 to 200 steps, and E2 is exactly as quick as E0."""
    rows = []
    for option, rate in rates.items():
        for task in (0, 1):
            for state in range(states):
                success = bool(rng.random() < rate)
                rows.append((option, task, state, success, int(rng.integers(40, 200)) if success else HORIZON))
    table = pl.DataFrame(rows, ["option", "task", "init_state_id", "success", "duration"], orient="row")
    return table.with_columns(
        init_state_sha256=pl.format("{} {}", "task", "init_state_id"),
        train_seed=0, env_seed=0, noise_seed=0, stages=None, horizon=HORIZON,
    )  # fmt: skip


def test_a_failure_counts_as_the_horizon(tmp_path):
    """E0 succeeds in 90 steps on six states of each task, E2 on four."""
    found = decided(tmp_path, spec(), contents(E0=6, E2=4, A=6)).primary.durations
    assert found.horizon == HORIZON
    assert found.reference == pytest.approx(0.6 * 90 + 0.4 * 220)
    assert found.option == pytest.approx(0.4 * 90 + 0.6 * 220)
    assert found.difference == pytest.approx(found.option - found.reference)
    assert found.interval[0] < found.difference < found.interval[1]


def test_an_option_is_not_quicker_for_succeeding_on_easy_states_alone(tmp_path):
    """Of the successes alone, E2's are the quicker ones: it solves only what takes 30 steps."""
    files = copy.deepcopy(contents(E0=10, E2=5, A=10))
    for task in PICKUP:
        for option in ("E0", "E2"):
            for row in files[option, task]["episodes"]:
                row["steps"] = (30 if row["init_state_id"] < 5 else 200) if row["success"] else HORIZON
                row["pickup"]["stage_steps"] = {"approached": 1, "touched": 2}
    assert decided(tmp_path, spec(), files).primary.durations.difference == pytest.approx((220 - 200) / 2)


def test_the_two_options_exchanged_mirror_the_interval():
    steps = np.random.default_rng(0).integers(-HORIZON, HORIZON + 1, 40)
    one, other = durations(steps), durations(-steps)
    assert one.difference == -other.difference
    assert one.interval == pytest.approx([-end for end in reversed(other.interval)], abs=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("steps", [[0], [0] * 50, [HORIZON], [HORIZON] * 50, [-HORIZON] * 50, [1, -1]])
@pytest.mark.parametrize("level", [0.0005, 0.2499])
def test_the_interval_holds_the_difference_and_no_more_than_the_horizon(steps, level):
    found = durations(steps, level=level)
    low, high = found.interval
    assert -HORIZON <= low <= found.difference <= high <= HORIZON


def test_more_pairs_make_the_interval_narrower():
    steps = [40, -60, 0, 10, -30]
    widths = [high - low for low, high in (durations(steps * n).interval for n in (2, 8, 32))]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 2


def test_a_claim_about_methods_counts_training_seeds():
    """Two seeds that disagree: many initial states do not make up for them."""
    seeds = np.tile([60, -60], (100, 1))
    methods, checkpoints = (durations(seeds, claim).interval for claim in ("methods", "checkpoints"))
    assert methods[1] - methods[0] > 3 * (checkpoints[1] - checkpoints[0])


def test_the_intervals_of_a_family_hold_together():
    rng = np.random.default_rng(1)
    table = episodes({"E0": 0.5, "A": 0.5, "B": 0.5}, rng)
    alone = compare(table, {("A", "E0"): "adoption"}, PICKUP, ADAPTIVE)[0].durations.interval
    together = compare(table, {("A", "E0"): "adoption", ("B", "E0"): "adoption"}, PICKUP, ADAPTIVE)[0]
    apart = compare(table, {("A", "E0"): "adoption", ("B", "E0"): "controls"}, PICKUP, ADAPTIVE)[0]
    assert together.durations.interval[0] < alone[0] < alone[1] < together.durations.interval[1]
    assert apart.durations.interval == alone


RUNS = 200


def misses(read):
    """How many of the runs that stop as soon as a look excludes a difference of 0, which is the truth, do so."""
    rng, missed = np.random.default_rng(2), 0
    for _ in range(RUNS):
        steps = rng.choice([0, 1, -1], 120) * rng.integers(1, HORIZON, 120)
        missed += any(not low <= 0 <= high for low, high in (read(steps[:n]) for n in range(10, 121, 10)))
    return missed


def test_the_interval_holds_at_any_look_and_one_for_a_number_chosen_beforehand_does_not():
    def student(steps):
        reach = stats.t.isf(LEVEL, len(steps) - 1) * stats.sem(steps)
        return steps.mean() - reach, steps.mean() + reach

    most = stats.binom.ppf(0.999, RUNS, 2 * LEVEL)
    assert misses(lambda steps: durations(steps).interval) <= most < misses(student)


@pytest.mark.parametrize("stopping", ["adaptive", "anytime"])
def test_progress_is_judged_by_a_test_that_holds_at_any_look_where_success_is(stopping):
    """Both are the same pairs here, so they must have the same interval; a test for a fixed number is narrower."""
    table = episodes({"E0": 0.6, "E2": 0.4}, np.random.default_rng(3)).with_columns(stages=pl.col("success") * 6)
    judged = {
        name: compare(table, {("E2", "E0"): "primary"}, PICKUP, ADAPTIVE.model_copy(update={"stopping": name}))[0]
        for name in (stopping, "fixed")
    }
    assert judged[stopping].progress.interval == judged[stopping].success.interval
    low, high = judged[stopping].progress.interval
    assert high - low > np.ptp(judged["fixed"].progress.interval)


def test_the_text_says_how_soon_and_that_only_success_decides(tmp_path):
    verdict = decided(tmp_path, spec(), contents(E0=5, E2=6))
    text = render(verdict)
    assert "TIME TO SUCCESS on the pickup tasks" in text
    (row,) = [line for line in text.partition("TIME TO SUCCESS")[2].splitlines() if line.startswith("E2 : E0")]
    assert row.split()[3:6] == ["142.0", "155.0", "-13.0"]
    assert "-0.65" in row.split()
    words = " ".join(text.split())
    assert "A failure counts as the horizon, 220 steps" in words
    assert "Only success decides." in words
