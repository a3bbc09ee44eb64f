"""What `decision.txt` says."""

import copy
import json
import re

import pytest

from tests.unit.decision.samples import (
    AUDITED,
    OPTIONS,
    PICKUP,
    contents,
    decided,
    foresight,
    judged,
    read,
    spec,
    wrist_verdict,
)
from world_modality.decision.tree import Verdict, decide
from world_modality.report.decision_text import WIDTH, render


@pytest.mark.parametrize(
    ("world", "conclusion", "action"),
    [(10, "NON_INFERIOR", None), (0, "INFERIOR", None), (4, "INCONCLUSIVE", "keep E0")],
)
def test_the_second_line_says_what_the_branch_is_worth(tmp_path, world, conclusion, action):
    verdict = decided(tmp_path, spec(), contents(E0=5, E2=world, **({} if world > 5 else {"A": 5})))
    line = render(verdict).splitlines()[1]
    assert line.startswith(f"{conclusion}  E2 : E0  branch {'success' if world > 5 else 'wrist'}  bare rule errs ")
    assert f"{100 * verdict.worth.bare_rule_error:.0f}% (N 20" in line
    assert line.endswith(f"default: {action}") == bool(action)


@pytest.mark.parametrize(
    ("declared", "said"),
    [("keep_baseline", "keep E0"), ("follow_branch", "follow the branch"), ("extend", "evaluate more")],
)
def test_what_is_declared_for_an_open_question_is_said_and_changes_nothing(tmp_path, declared, said):
    files = contents(E0=5, E2=4, A=5)
    verdict = decided(tmp_path, spec(when_inconclusive=declared), files)
    assert f"default: {said}" in render(verdict)
    assert verdict.token == "ADOPT_WRIST"


def test_a_living_world_path_is_reported_without_the_warning(tmp_path):
    text = render(wrist_verdict(tmp_path))
    assert "world path inactive" not in text
    assert "E2 seed_0" in text
    assert "A seed_0" in text


@pytest.mark.parametrize(("state_only", "said"), [(6, True), (5, False)])
def test_a_state_only_baseline_as_good_as_the_baseline_is_pointed_out(tmp_path, state_only, said):
    text = render(wrist_verdict(tmp_path, S0=state_only))
    assert ("these initial states cannot show which camera is better" in " ".join(text.split())) == said


def test_episodes_of_several_seeds_on_one_initial_state_are_a_cluster(tmp_path):
    files = contents(E0=5, E2=6, train_seeds=(0, 1))
    text = " ".join(render(decided(tmp_path, spec(), files)).split())
    assert "episodes from one initial state are a cluster" in text
    assert "2.00 pairs are worth one independent pair" in text
    assert "compares checkpoints, not methods" not in text


def test_a_wrist_option_run_beside_a_success_is_said_so(tmp_path):
    text = render(decided(tmp_path, spec(wrist_experiment="always"), contents(E0=5, E2=6, A=9)))
    assert "A was run although this branch does not ask for it (wrist_experiment: always)" in text
    assert "A : E0" in text


GOLDEN = """\
ADOPT_WRIST
INFERIOR  E2 : E0  branch wrist  bare rule errs 40% (N 20, r 0.67)

E2 does worse than E0 on pickup, and A, which predicts the wrist camera, does not.
Embedded scale: this shows that the pipeline works. It says nothing about SmolVLA, V-JEPA 2 ViT-g or
LIBERO at full scale.
2 of the suite's 10 tasks were run: 0, 1. Pickup tasks, which decide: 0, 1.

THE TREE
=> E0 and E2 on the pickup tasks: E0 12/20, E2 8/20
   ├─ E0 below 20%                                     VOID_BASELINE_TOO_WEAK
   ├─ E2 ≥ E0: world helps or is neutral
   │  ├─ C > E2                                        ADOPT_FUSION
   │  └─ C not above E2, or not run                    WORLD_HELPS_OR_NEUTRAL
=> └─ E2 < E0: the wrist experiment
      ├─ C ≥ E0 and C > A                              ADOPT_FUSION
=>    ├─ A ≥ E0                                        ADOPT_WRIST
      ├─ no retrained wrist option ≥ E0                KEEP_BASELINE
      └─ neither A nor C was run                       WRIST_EXPERIMENT_PENDING
   A 14/20; C not run
   ADOPT_WRIST: E2 < E0, A ≥ E0, and C not run, below E0 or not above A

SUCCESSES
Task 0: pick up bowl 0
Task 1: pick up bowl 1
                successes   rate  90% interval (Wilson)  (Clopper-Pearson)
E0: SmolVLA baseline
  task 0             6/10  60.0%           [35.2, 80.6]       [30.4, 85.0]
"""


def test_the_text_starts_as_people_know_it(tmp_path):
    assert render(wrist_verdict(tmp_path)).startswith(GOLDEN)


def test_no_line_of_the_text_is_wider_than_a_terminal(tmp_path, monkeypatch):
    monkeypatch.setitem(OPTIONS, "E2-random-scaled", OPTIONS["E2-zero"] | {"label": "a long label " * 20})
    files = contents(E0=5, E2=4, A=5, E2_random_scaled=0, train_seeds=(0, 1), tasks=range(10))
    text = render(decided(tmp_path, spec(run=["E0", "E2", "E2-random-scaled"]), files))
    assert max(len(line) for line in text.splitlines()) <= WIDTH


def test_the_text_follows_from_the_json_alone(tmp_path):
    verdict = wrist_verdict(tmp_path)
    again = Verdict.model_validate(json.loads(json.dumps(verdict.as_json(), sort_keys=True)))
    assert render(again) == render(verdict)


def test_the_order_of_the_files_changes_nothing(tmp_path):
    evaluations = read(tmp_path, contents(E0=6, E2=4, A=7))
    checkpoint = judged(evaluations, spec())
    assert decide(*checkpoint, evaluations[::-1], spec(), AUDITED) == decide(*checkpoint, evaluations, spec(), AUDITED)


def test_every_token_has_a_text_for_every_scale(tmp_path):
    verdict = wrist_verdict(tmp_path)
    for scale in ("embedded", "smoke", "full"):
        text = render(verdict.model_copy(update={"scale": scale}))
        assert f"{scale.capitalize()} scale" in text
        assert ("Run the experiment at full scale" in text) == (scale != "full")


def test_a_learning_schedule_of_ones_own_is_reported(tmp_path):
    files = copy.deepcopy(contents(E0=5, E2=4, A=5))
    for task in PICKUP:
        files["A", task]["learning_schedule"] = {"learning_rate": 5e-4}
    verdict = decided(tmp_path, spec(), files)
    assert "A was trained with its own learning schedule (learning_rate 0.0005)" in " ".join(render(verdict).split())
    assert verdict.option("E2").learning_schedule is None


def test_a_prophet_that_does_not_beat_the_last_latent_is_told_in_plain_words(tmp_path):
    files, settings = contents(E0=5, E2=6), spec()
    good, bad = (render(decided(tmp_path, settings, files, [foresight("E2", p)])) for p in (0.9, 0.8))
    assert "E2's Prophet does not beat repeating the last latent on held-out episodes (cosine 0.800 against" in bad
    assert "does not beat" not in good
    assert re.search(r"E2's Prophet +0\.9000 +0\.8000 +0\.7000 +3 of 4\n", good)


def test_without_held_out_episodes_the_text_says_that_nothing_is_known(tmp_path):
    assert "No episode was held out" in render(decided(tmp_path, spec(), contents(E0=5, E2=6)))


@pytest.mark.parametrize(
    ("blind", "said"), [(0, "is judged worse (-90.0 points"), (8, "is not judged worse: an effect")]
)
def test_the_baseline_with_its_eyes_shut_must_be_judged_worse(tmp_path, blind, said):
    text = render(decided(tmp_path, spec(run=["E0", "E2", "E0-blind"]), contents(E0=9, E2=9, E0_blind=blind)))
    assert f"Positive control: E0-blind, E0 with its eyes shut, {said}" in re.sub(r"\s+", " ", text)
