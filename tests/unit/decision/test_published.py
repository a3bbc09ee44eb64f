"""Counts from elsewhere: what is refused, what is said, and the numbers behind it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scipy import stats

from world_modality.decision.published import judge, read_counts, render
from world_modality.errors import InputError
from world_modality.experiment.config import default_config, load_experiment
from world_modality.report.decision_text import WIDTH

REPOSITORY = Path(__file__).parents[3]
EXAMPLE = REPOSITORY / "docs" / "published_counts.yaml"


def written(folder, baseline, world, **changes):
    content = {"source": "a table", "baseline": {"name": "E0", "tasks": baseline}} | changes
    content |= {"world": {"name": "E2", "tasks": world}}
    (folder / "counts.yaml").write_text(yaml.safe_dump(content))
    return folder / "counts.yaml"


def judged(folder, baseline, world):
    counts = read_counts(written(folder, baseline, world))
    return judge(counts, load_experiment(default_config()).decision)


def test_the_test_agrees_with_a_published_example(tmp_path):
    """Content with their work: 74 of 117 and 31 of 63, in the documentation of scipy.stats.boschloo_exact.

    That is another exact test of the same question.
    """
    verdict = judged(tmp_path, {0: [74, 117]}, {0: [31, 63]})
    assert verdict.pooled.p_worse == pytest.approx(0.0355, abs=1e-3)
    assert verdict.pooled.conclusion == "INFERIOR"


@pytest.mark.parametrize(
    ("world", "branch", "token"),
    [([40, 50], "success", "WORLD_HELPS_OR_NEUTRAL"), ([39, 50], "wrist", "WRIST_EXPERIMENT_PENDING")],
)
def test_the_branch_compares_rates(tmp_path, world, branch, token):
    verdict = judged(tmp_path, {0: [80, 100]}, {0: world})
    assert (verdict.branch, verdict.token) == (branch, token)


def test_a_weak_baseline_is_void(tmp_path):
    assert judged(tmp_path, {0: [1, 10]}, {0: [9, 10]}).token == "VOID_BASELINE_TOO_WEAK"


def test_unpaired_counts_say_less_than_the_same_counts_paired(tmp_path):
    """The published example of the paired interval, its margins taken for independent samples."""
    unpaired = judged(tmp_path, {0: [75, 161]}, {0: [65, 161]}).pooled.interval
    assert unpaired[1] - unpaired[0] > 0.109  # Tango's 90 % interval of the pairs, 6 and 16 discordant, is narrower


def test_the_bare_rules_error_is_that_of_independent_samples(tmp_path):
    verdict = judged(tmp_path, {0: [6, 8]}, {0: [3, 4]})
    rate = 9 / 12
    expected = sum(
        stats.binom.pmf(b, 8, rate) * stats.binom.pmf(w, 4, rate) for b in range(9) for w in range(5) if w / 4 < b / 8
    )
    assert verdict.bare_rule_error == pytest.approx(expected)


@pytest.mark.parametrize(
    ("baseline", "world", "message"),
    [
        ({0: [11, 10]}, {0: [5, 10]}, "baseline: task 0: 11 successes of 10 episodes"),
        ({0: [1, 10]}, {1: [5, 10]}, "E2 and E0 are counted on different tasks"),
        ({0: [1, 10], 1: [2, 10]}, {0: [1, 10], 1: [2, 20]}, "task 0: 10 of 20 episodes of E0, but 10 of 30 of E2"),
        ({}, {}, "baseline.tasks: Dictionary should have at least 1 item"),
    ],
)
def test_counts_that_cannot_be_compared_are_refused(tmp_path, baseline, world, message):
    with pytest.raises(InputError, match=message):
        read_counts(written(tmp_path, baseline, world))


def test_a_misspelt_key_is_named(tmp_path):
    with pytest.raises(InputError, match=r"sorce: unknown key; did you mean source\?"):
        read_counts(written(tmp_path, {0: [1, 2]}, {0: [1, 2]}, sorce="a table"))


def test_what_is_no_text_is_refused(tmp_path):
    (tmp_path / "counts.yaml").write_bytes(b"\xb1\x00")
    with pytest.raises(InputError, match=r"counts\.yaml: damaged"):
        read_counts(tmp_path / "counts.yaml")


def test_what_is_no_yaml_is_refused(tmp_path):
    (tmp_path / "counts.yaml").write_text("{source: [")
    with pytest.raises(InputError, match=r"counts\.yaml: not YAML"):
        read_counts(tmp_path / "counts.yaml")


def test_the_documented_example_is_printed_within_a_terminal():
    command = [sys.executable, REPOSITORY / "scripts" / "tools" / "judge_counts.py", EXAMPLE]
    text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout
    assert text.startswith("WRIST_EXPERIMENT_PENDING\nNON_INFERIOR  E2 : E0  branch wrist")
    assert "Not paired" in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text == render(judge(read_counts(EXAMPLE), load_experiment(default_config()).decision))
