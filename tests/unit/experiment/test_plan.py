"""What fits a budget and when it runs: against every subset and every schedule of small problems, and by example."""

import copy
import itertools
import random
import subprocess
import sys
from fractions import Fraction

import pytest
from pydantic import ValidationError

from world_modality.errors import InputError
from world_modality.experiment import plan as planning
from world_modality.experiment.branches import wanted_options
from world_modality.experiment.config import default_config, load_experiment
from world_modality.experiment.plan import Plan, check_solver, choose, make_plan, schedule, stages_of
from world_modality.experiment.sections import ConfigError, Figures
from world_modality.experiment.specs import PlanSpec, Stage
from world_modality.report.figures import plot_plan, save

LOOK = Figures(task_colors=["#1f77b4", "#ff7f0e"], pickup_color="#000000")
B = {"label": "E2 with the wrist camera", "checkpoint_of": "E2", "rollout_cameras": ["wrist"]}
C = {"label": "both cameras", "cameras": ["front", "wrist"]}
COSTS = {
    "latents": {"front": 2, "wrist": 2},
    "train": {"none": 6, "one": 6, "both": 12},
    "evaluate": {"none": 4, "one": 4, "both": 4},
    "episodes": 40,
}


def experiment(
    on_hurt=("A", "B", "C"), gpu_hours=None, gpus=1, seeds=(0,), run=("E0", "E2"), costs_of="embedded", **options
):
    config = copy.deepcopy(default_config())
    config["options"] |= {"B": B, "C": C} | options
    config["costs"] = {costs_of: COSTS}
    config["decision"] |= {"on_hurt": list(on_hurt)}
    config["budget"] = {"gpu_hours": gpu_hours, "gpus": gpus}
    config["training"]["seeds"] = list(seeds)
    config["run"] = list(run)
    return load_experiment(config)


def planned(*arguments, branch="wrist", **keywords):
    made = experiment(*arguments, **keywords)
    return make_plan(made.plan_spec(), wanted_options(made.judge_spec(), branch))


def problem(draw, options=4):
    """A random study in whole hours: options of a few stages, some of which they share."""
    stages = []
    for number in range(draw.randint(options, 2 * options)):
        after = draw.sample([stage["name"] for stage in stages], k=min(len(stages), draw.choice([0, 1, 1, 2])))
        stages.append({"name": f"s{number}", "kind": "train", "hours": draw.randint(0, 6), "after": after})
    names = [stage["name"] for stage in stages]
    candidates = [
        {"name": f"O{number}", "ends": draw.sample(names, k=draw.randint(1, min(2, len(names)))) or names[:1]}
        for number in range(options)
    ]
    budget = draw.randint(0, 20)
    return PlanSpec.model_validate(
        {"scale": "smoke", "gpu_hours": budget, "gpus": 1, "stages": stages, "candidates": candidates}
    )


# ---- what the experiment needs --------------------------------------------------------------------------------------


def test_a_stage_that_options_share_is_listed_once_and_what_run_has_made_is_not():
    stages = {stage.name: stage for stage in experiment().plan_spec().stages}
    assert list(stages) == ["latents_wrist", "ckpt_A/seed_0", "eval_A/seed_0", "eval_B/seed_0"] + [
        "ckpt_C/seed_0",
        "eval_C/seed_0",
    ]
    assert stages["ckpt_A/seed_0"].after == stages["ckpt_C/seed_0"].after == ("latents_wrist",)
    assert stages["eval_A/seed_0"].after == ("ckpt_A/seed_0",)
    assert stages["eval_B/seed_0"].after == ()
    assert {name: stage.hours for name, stage in stages.items()} == {
        "latents_wrist": 2,
        "ckpt_A/seed_0": 6,
        "eval_A/seed_0": 4,
        "eval_B/seed_0": 4,
        "ckpt_C/seed_0": 12,
        "eval_C/seed_0": 4,
    }


def test_a_rollout_of_an_option_that_has_not_run_needs_its_training():
    spec = experiment(on_hurt=["A-zero", "A"], **{"A-zero": {"label": "0", "checkpoint_of": "A"}}).plan_spec()
    assert [stage.name for stage in stages_of(spec, ["A-zero"])] == [
        "latents_wrist",
        "ckpt_A/seed_0",
        "eval_A-zero/seed_0",
    ]
    assert [stage.name for stage in spec.stages].count("ckpt_A/seed_0") == 1


def test_every_seed_is_trained_and_evaluated_and_the_latents_are_made_once():
    assert planned(["A"], seeds=[0, 1, 2]).hours == 2 + 3 * (6 + 4)


def test_another_window_needs_latents_of_its_own():
    wide = {"label": "a window of 8", "cameras": ["wrist"], "window": 8}
    assert planned(["A", "A8"], A8=wide).hours == 2 * (2 + 6 + 4)


def test_an_option_in_run_is_not_planned():
    assert planned(["A", "B"], run=["E0", "E2", "A"]).wanted == ["B"]


# ---- what is chosen -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu_hours", "chosen"),
    [
        (None, ["A", "B", "C"]),
        (32, ["A", "B", "C"]),
        (31.9, ["A", "B"]),
        (16, ["A", "B"]),
        (15.9, ["A"]),
        (12, ["A"]),
        (11.9, ["B"]),
        (4, ["B"]),
        (3.9, []),
        (0, []),
    ],
)
def test_the_preferred_options_that_fit_are_chosen(gpu_hours, chosen):
    assert planned(gpu_hours=gpu_hours).chosen == chosen


def test_what_is_preferred_comes_before_what_is_more():
    assert planned(["C", "A", "B"], gpu_hours=18).chosen == ["C"]
    assert planned(["A", "B", "C"], gpu_hours=18).chosen == ["A", "B"]


def fit(spec, options):
    return sum(Fraction(repr(stage.hours)) for stage in stages_of(spec, options)) <= Fraction(repr(spec.gpu_hours))


@pytest.mark.parametrize("seed", range(25))
def test_no_other_subset_that_fits_is_preferred(seed):
    spec = problem(random.Random(seed))
    names = [candidate.name for candidate in spec.candidates]
    wanted = tuple(random.Random(seed).sample(names, k=3))
    subsets = itertools.product([True, False], repeat=len(wanted))  # the preferred first
    fitting = (tuple(itertools.compress(wanted, subset)) for subset in subsets)
    assert choose(spec, wanted) == next(subset for subset in fitting if fit(spec, subset))


def test_costs_that_no_binary_number_holds_fill_a_budget_exactly():
    stages = [{"name": f"s{i}", "kind": "train", "hours": 0.1, "after": []} for i in range(3)]
    candidates = [{"name": f"O{i}", "ends": [f"s{i}"]} for i in range(3)]
    spec = PlanSpec.model_validate(
        {"scale": "smoke", "gpu_hours": 0.3, "gpus": 1, "stages": stages, "candidates": candidates}
    )
    assert choose(spec, ("O0", "O1", "O2")) == ("O0", "O1", "O2")
    assert make_plan(spec, ("O0", "O1", "O2")).hours == 0.3


def test_what_is_left_out_says_how_much_it_lacks():
    plan = planned(gpu_hours=10)
    assert [(left.option, left.hours, left.missing) for left in plan.left_out] == [("A", 12, 2), ("C", 18, 12)]
    assert planned(gpu_hours=12).chosen[0] == "A"


@pytest.mark.parametrize(
    ("gpu_hours", "gained", "lost"),
    [(15, ["B"], []), (11, ["A"], ["B"]), (14.5, [], []), (31, ["C"], []), (None, [], []), (32, [], [])],
)
def test_one_more_hour_buys_what_a_budget_of_an_hour_more_would_choose(gpu_hours, gained, lost):
    more = planned(gpu_hours=gpu_hours).one_more_hour
    assert (more.gained, more.lost) == (gained, lost)


@pytest.mark.parametrize(
    ("gpu_hours", "lines"),
    [
        (None, ["Planned: A, B, C. 32 GPU-hours, 32 h on 1 GPU."]),
        (
            31,
            [
                "Planned: A, B. 16 of the budget of 31 GPU-hours, 16 h on 1 GPU.",
                "C is left out: it needs 16 GPU-hours, 1 beyond the budget.",
                "One more GPU-hour would run C.",
            ],
        ),
        (
            3,
            [
                "Nothing fits the budget of 3 GPU-hours.",
                "A is left out: it needs 12 GPU-hours, 9 beyond the budget.",
                "B is left out: it needs 4 GPU-hours, 1 beyond the budget.",
                "C is left out: it needs 18 GPU-hours, 15 beyond the budget.",
                "One more GPU-hour would run B.",
            ],
        ),
    ],
)
def test_the_plan_in_words(gpu_hours, lines):
    assert planned(gpu_hours=gpu_hours).summary() == lines


def test_where_the_tree_asks_for_nothing_nothing_is_planned():
    plan = planned(branch="success", gpu_hours=5)
    assert (plan.wanted, plan.chosen, plan.left_out, plan.stages) == ([], [], [], [])
    assert (plan.hours, plan.makespan, plan.bound) == (0, 0, 0)
    assert plan.summary() == ["The tree asks for no option besides those that have run."]


# ---- where costs are not known --------------------------------------------------------------------------------------


def test_where_costs_are_not_known_all_that_is_wanted_is_chosen_and_nothing_is_scheduled():
    plan = planned(costs_of="full")
    assert plan.wanted == plan.chosen == ["A", "B", "C"]
    assert (plan.hours, plan.makespan, plan.bound, plan.stages, plan.left_out) == (None, None, None, [], [])
    assert plan.summary() == [
        "Planned: A, B, C.",
        "The costs of embedded scale are not known: `make costs` measures them; no schedule is drawn.",
    ]
    assert Plan.model_validate(plan.as_json()) == plan


def test_where_costs_are_not_known_and_nothing_is_wanted_the_plan_costs_nothing():
    plan = planned(branch="success", costs_of="full")
    assert (plan.hours, plan.makespan) == (0, 0)
    assert plan.summary() == ["The tree asks for no option besides those that have run."]


def test_a_budget_needs_the_costs_of_its_scale():
    with pytest.raises(ConfigError) as refused:
        experiment(gpu_hours=8, costs_of="full")
    assert str(refused.value) == (
        "budget.gpu_hours: 8 needs costs.embedded: the costs of embedded scale are not known; "
        "`make costs` measures them in a run without a budget (null)"
    )


def test_the_costs_of_another_scale_say_nothing():
    spec = experiment(costs_of="smoke").plan_spec()
    assert {stage.hours for stage in spec.stages} == {None}


# ---- when it runs ---------------------------------------------------------------------------------------------------


def check(stages, gpus, planned_stages):
    """A schedule is one: every stage once and whole, after those before it, one at a time on each GPU."""
    places = {stage.name: stage for stage in planned_stages}
    assert sorted(places) == sorted(stage.name for stage in stages)
    for stage in stages:
        place = places[stage.name]
        assert place.end - place.start == pytest.approx(stage.hours)
        assert 0 <= place.gpu < gpus
        for name in stage.after:
            assert places[name].end <= place.start + 1e-9
    for a, b in itertools.combinations(planned_stages, 2):
        assert a.gpu != b.gpu or a.end <= b.start + 1e-9 or b.end <= a.start + 1e-9


def shortest(stages, gpus):
    """The makespan of the best of all schedules that leave no stage waiting needlessly: every order, every GPU."""
    best = [float("inf")]

    def place(left, ends, free):
        if max([0, *ends.values()]) >= best[0]:
            return
        if not left:
            best[0] = max(ends.values())
        for stage in left:
            if all(name in ends for name in stage.after):
                ready = max([0, *(ends[name] for name in stage.after)])
                for gpu in {time: gpu for gpu, time in enumerate(free)}.values():
                    end = max(ready, free[gpu]) + stage.hours
                    rest = [other for other in left if other is not stage]
                    place(rest, ends | {stage.name: end}, [*free[:gpu], end, *free[gpu + 1 :]])

    place(list(stages), {}, [0] * gpus)
    return best[0]


@pytest.mark.parametrize("seed", range(40))
def test_no_schedule_ends_earlier(seed):
    draw = random.Random(seed)
    stages, gpus = problem(draw, options=3).stages, draw.choice([2, 2, 3])
    found, makespan, bound = schedule(stages, gpus)
    check(stages, gpus, found)
    assert makespan == bound == shortest(stages, gpus)


def test_some_of_these_schedules_need_the_program():
    """Else the tests above would not test it: by hand they end later than they must."""
    needed = 0
    for seed in range(40):
        draw = random.Random(seed)
        stages, gpus = problem(draw, options=3).stages, draw.choice([2, 2, 3])
        ticks = {stage.name: int(stage.hours) for stage in stages}
        tails = planning._longest_ways(stages, ticks)
        orders = (stages, sorted(stages, key=lambda stage: -tails[stage.name]))
        needed += min(planning._end(planning._place(order, ticks, gpus)) for order in orders) > shortest(stages, gpus)
    assert needed


def stage(name, hours, *after):
    return Stage(name=name, kind="train", hours=hours, after=after)


def test_the_program_finds_what_no_list_does():
    """Two GPUs need six hours for these; seven both in this order and with the longest first."""
    stages = [stage("a", 2), stage("b", 2), stage("c", 2), stage("d", 3), stage("e", 3)]
    found, makespan, bound = schedule(stages, 2)
    check(stages, 2, found)
    assert makespan == bound == 6


def test_on_one_gpu_the_preferred_option_is_done_first():
    assert [s.name for s in planned().stages][:3] == ["latents_wrist", "ckpt_A/seed_0", "eval_A/seed_0"]


def test_more_gpus_end_earlier_and_never_before_the_longest_chain():
    spans = [planned(seeds=[0, 1, 2], gpus=gpus).makespan for gpus in (1, 2, 4, 8, 64)]
    assert spans == [92, 46, 24, 18, 18]


def test_three_options_of_three_seeds_on_many_gpus_are_proven():
    for gpus in range(2, 9):
        plan = planned(seeds=[0, 1, 2], gpus=gpus)
        assert plan.makespan == plan.bound


def test_a_time_too_fine_for_the_program_is_scheduled_and_the_bound_says_what_is_proven():
    draw = random.Random(0)
    stages = [stage(f"s{i}", round(draw.uniform(1, 9), 3)) for i in range(7)]
    found, makespan, bound = schedule(stages, 3)
    check(stages, 3, found)
    best = shortest(stages, 3)
    assert bound <= best <= makespan <= 1.05 * best
    assert bound < makespan


def test_a_stage_that_costs_nothing_takes_no_time():
    stages = [stage("free", 0), stage("dear", 3, "free"), stage("end", 0, "dear")]
    found, makespan, bound = schedule(stages, 1)
    assert [(s.start, s.end) for s in sorted(found, key=lambda s: "free dear end".index(s.name))] == [
        (0, 0),
        (0, 3),
        (3, 3),
    ]
    assert makespan == bound == 3
    assert schedule([stage("free", 0)], 2)[1:] == (0, 0)


def test_the_search_is_limited_by_nodes_and_what_it_has_stands(monkeypatch):
    stages = [stage("a", 2), stage("b", 2), stage("c", 2), stage("d", 3), stage("e", 3)]
    monkeypatch.setattr(planning, "_solve", lambda problem, nodes=None: 0)  # PuLP: not solved
    found, makespan, bound = schedule(stages, 2)
    check(stages, 2, found)
    assert (makespan, bound) == (7, 6)


def test_the_same_study_gives_the_same_plan():
    choose.cache_clear()
    first = planned(seeds=[0, 1, 2], gpus=3, gpu_hours=90)
    choose.cache_clear()
    assert planned(seeds=[0, 1, 2], gpus=3, gpu_hours=90) == first


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ImportError("no module named\nhighspy"), OSError("wrong ELF class")])
def test_a_solver_that_cannot_be_loaded_is_reported_in_one_line(monkeypatch, error):
    class Foreign:
        def find_spec(self, name, *_):
            if name == "highspy":
                raise error

    monkeypatch.delitem(sys.modules, "highspy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Foreign(), *sys.meta_path])
    with pytest.raises(InputError, match=r"^HiGHS, which makes the plan, cannot be loaded \((no|wrong).*\); `make"):
        check_solver()


def test_planning_prints_nothing():
    """`snakemake --dag` writes its graph to standard output, and HiGHS 1.16.0 prints a banner there."""
    program = (
        "import pulp; from world_modality.experiment import plan;"
        "problem = pulp.LpProblem('two', pulp.LpMaximize); x = problem.add_variable('x', cat='Binary');"
        "problem.setObjective(x + 0); assert plan._solve(problem) == pulp.LpStatusOptimal"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"stages": [{"name": "b", "kind": "train", "hours": 1, "after": ["a"]}]},
            "b comes after a, which is not listed",
        ),
        ({"stages": [{"name": "a", "kind": "train", "hours": 1, "after": []}] * 2}, "a is listed twice"),
        ({"candidates": [{"name": "A", "ends": ["evl_A"]}]}, "A ends with evl_A; did you mean eval_A"),
        (
            {"stages": [{"name": "eval_A", "kind": "evaluate", "hours": None, "after": []}]},
            "a budget needs the costs of all stages; that of eval_A is not known",
        ),
        (
            {
                "gpu_hours": None,
                "stages": [
                    {"name": "ckpt_A", "kind": "train", "hours": None, "after": []},
                    {"name": "eval_A", "kind": "evaluate", "hours": 1, "after": ["ckpt_A"]},
                ],
            },
            "what ckpt_A costs is not known, but what others cost is",
        ),
        ({"gpus": 0}, "greater than or equal to 1"),
        ({"gpu_hours": -1}, "greater than or equal to 0"),
    ],
)
def test_a_spec_that_cannot_be_planned_is_refused(change, message):
    good = {"name": "eval_A", "kind": "evaluate", "hours": 1, "after": []}
    spec = {
        "scale": "smoke",
        "gpu_hours": 1,
        "gpus": 1,
        "stages": [good],
        "candidates": [{"name": "A", "ends": ["eval_A"]}],
    }
    PlanSpec.model_validate(spec)
    with pytest.raises(ValidationError, match=message):
        PlanSpec.model_validate(spec | change)


# ---- what the pipeline runs -----------------------------------------------------------------------------------------


def test_always_knows_what_the_plan_chose_before_the_branch_is_taken():
    config = copy.deepcopy(default_config())
    config["options"] |= {"B": B, "C": C}
    config["costs"] = {"embedded": COSTS}
    config["decision"] |= {"on_hurt": ["C", "A", "B"], "on_success": ["C"], "wrist_experiment": "always"}
    config["budget"] = {"gpu_hours": 13, "gpus": 1}
    made = load_experiment(config)
    assert made.known_options() == [*config["run"], "A"]
    assert made.scheduled("success") == made.scheduled("wrist") == ("A",)


def test_a_branch_that_may_not_be_taken_is_not_known():
    made = experiment(["A", "B"])
    assert made.known_options() == made.run
    assert made.scheduled("wrist") == ("A", "B")
    assert made.scheduled("success") == ()


# ---- the figure -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{"gpus": 3, "seeds": [0, 1, 2]}, {"gpu_hours": 3}, {"branch": "success"}, {"costs_of": "full"}]
)
def test_the_figure_is_the_same_bytes_every_time(tmp_path, arguments):
    for name in ("a.svg", "b.svg"):
        save(plot_plan(planned(**arguments), LOOK), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def texts(figure):
    return [text.get_text() for text in (*figure.texts, *figure.axes[0].texts)]


def test_the_figure_names_every_stage_and_says_what_is_left_out():
    plan = planned(gpus=2, seeds=[0, 1], gpu_hours=31)
    figure = plot_plan(plan, LOOK)
    assert {stage.name for stage in plan.stages} <= set(texts(figure))
    assert any("C is left out" in text for text in texts(figure))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["GPU 0", "GPU 1"]
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert sorted(bars) == sorted((s.start, s.end - s.start) for s in plan.stages)


def test_the_figure_of_an_empty_plan_says_so():
    assert "nothing was planned" in texts(plot_plan(planned(gpu_hours=3), LOOK))
    assert any(
        "Nothing fits the budget of 3 GPU-hours." in text for text in texts(plot_plan(planned(gpu_hours=3), LOOK))
    )


def test_the_figure_of_a_plan_whose_costs_are_not_known_says_so_and_draws_no_bar():
    figure = plot_plan(planned(costs_of="full"), LOOK)
    assert "no schedule" in texts(figure)
    assert any("The costs of embedded scale are not known" in text for text in texts(figure))
    assert not figure.axes[0].patches
