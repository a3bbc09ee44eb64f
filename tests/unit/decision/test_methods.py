"""A claim about methods: what training seeds and initial states contribute to the uncertainty, and what that allows."""

import numpy as np
import pytest
from scipy import stats

from tests.unit.decision.samples import contents, decided, spec
from world_modality.decision.judgement import judge_family
from world_modality.decision.methods import MethodsTest, Spread, odds_of_methods, seeds_to_settle, states_to_settle
from world_modality.decision.pairs import Differences
from world_modality.experiment.config import default_config, load_experiment
from world_modality.report.decision_text import render

CRITERIA = load_experiment(default_config()).decision.model_copy(
    update={"claim": "methods", "stopping": "fixed", "margin": 0.1}
)


def pairs(values):
    return Differences(np.asarray(values), np.arange(len(values)))


def worlds(seeds, luck, count=300, states=60, mean=0.0):
    """Experiments whose pairs differ by a luck of each seed, and by chance."""
    rng = np.random.default_rng(seeds)
    for _ in range(count):
        chance = np.clip(0.3 + mean / 2 + rng.normal(0, luck, (1, seeds)) / 2, 0, 0.6)
        draw = rng.random((states, seeds))
        yield pairs(np.where(draw < chance, 1, np.where(draw > 0.4 + chance, -1, 0)))


def test_the_interval_is_students_around_the_mean_of_the_seeds_where_seeds_alone_differ():
    test = MethodsTest(pairs([[1, 0, 0]] * 30))
    reach = stats.t.isf(0.05, 2) * np.std([1, 0, 0], ddof=1) / np.sqrt(3)
    assert test.limit(0.05, "above") == pytest.approx(max(-1, 1 / 3 - reach))
    assert test.limit(0.05, "below") == pytest.approx(min(1, 1 / 3 + reach))
    assert test.spread.share_of_seeds == pytest.approx(1)


def test_identical_seeds_are_worth_their_initial_states_and_no_more():
    states = np.repeat([1, -1, 0], 10)[:, None]
    few, many = (MethodsTest(pairs(np.repeat(states, seeds, axis=1))) for seeds in (3, 6))
    assert few.error == pytest.approx(many.error)
    assert few.spread.share_of_seeds == 0


def test_without_any_difference_nothing_is_certain():
    (judged,) = judge_family([pairs(np.zeros((5, 2), int))], CRITERIA)
    assert judged.conclusion == "INCONCLUSIVE"


@pytest.mark.parametrize("luck", [0.1, 0.2])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_false_verdicts_are_as_rare_as_the_level_says_however_lucky_a_seed_is(seeds, luck):
    most = stats.binom.ppf(0.999, 300, 0.05)
    assert sum(MethodsTest(w).p_value(0.0, "below") <= 0.05 for w in worlds(seeds, luck)) <= most


def test_a_claim_about_checkpoints_would_err_there():
    checkpoints = CRITERIA.model_copy(update={"claim": "checkpoints"})
    judged = [judge_family([world], checkpoints)[0].conclusion for world in worlds(3, 0.2, count=60)]
    assert judged.count("INFERIOR") > 60 * 0.15


def test_p_values_and_limits_say_the_same():
    test = MethodsTest(next(worlds(5, 0.1)))
    for side in ("above", "below"):
        assert test.p_value(test.limit(0.05, side), side) == pytest.approx(0.05)


def test_more_seeds_beat_more_episodes_where_seeds_differ_most():
    spread = Spread(states=100, seeds=3, state=0.0, seed=0.02, rest=0.4)
    assert states_to_settle(spread, 0.1, 0.05, 0.8) is None
    assert 10 < seeds_to_settle(spread, 0.1, 0.05, 0.8) < 40


@pytest.mark.parametrize(("loss", "verdict"), [(0.0, "non_inferior"), (0.5, "inferior")])
def test_where_hardly_anything_varies_the_verdict_is_certain(loss, verdict):
    """However far beyond the bound a difference lies, in units of its error."""
    still = Spread(states=100, seeds=3, state=0.0, seed=0.0, rest=0.0)
    assert getattr(odds_of_methods(still, loss, 0.1, 0.05), verdict) == pytest.approx(1)


def test_the_decision_says_how_much_seeds_differ_and_how_many_would_settle_it(tmp_path):
    settings = spec(claim="methods")
    verdict = decided(tmp_path, settings, contents(E0=6, E2=6, train_seeds=(0, 1, 2)))
    assert verdict.primary.success.spread.seeds == 3
    text = " ".join(render(verdict).split())
    assert "this compares the methods. The verdicts hold for other training seeds too." in text
    assert "From one training seed to another the difference varies by 0.0 points" in text
    assert "Student's t over training seeds and initial states (decision.claim: methods)" in text


@pytest.mark.parametrize(("stopping", "seeds"), [("adaptive", [0, 1]), ("fixed", [0])])
def test_a_claim_about_methods_needs_several_seeds_and_a_number_chosen_beforehand(stopping, seeds):
    config = default_config()
    config["decision"] |= {"claim": "methods", "stopping": stopping}
    config["evaluation"]["episodes"] = 20 if stopping == "fixed" else None
    config["training"]["seeds"] = seeds
    with pytest.raises(ValueError, match=r"decision\.claim: methods needs two training\.seeds or more"):
        load_experiment(config)
