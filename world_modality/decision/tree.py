"""The decision tree: which branch the pickup tasks chose, what runs next, and the verdict.

`judge_pickup` makes `results/pickup.json` (a `Pickup`) from the look at which E2 : E0 stopped (`looks`) and nothing
else. It schedules those of the branch's options that `experiment.plan` chooses. `decide` makes `results/decision.json`
(a `Verdict`) from `pickup.json`, the look at which each comparison stopped, and all evaluations, including those of the
scheduled options. The fields of these two models are the schema of the files. "At least as good" compares pooled
success on the pickup tasks, on the episodes of the comparison, as the experiment asks. What the numbers are worth
(`judgement`) is reported next to it and never changes the branch.

The first token whose condition holds (E0, E2, A, C: `decision.baseline`, `.world`, `.wrist`, `.fusion`):

    VOID_BASELINE_TOO_WEAK    E0 below decision.min_baseline_success
    ADOPT_FUSION              C run and: E2 ≥ E0 and C > E2, or E2 < E0, C ≥ E0 and C > A
    WORLD_HELPS_OR_NEUTRAL    E2 ≥ E0
    ADOPT_WRIST               E2 < E0 and A ≥ E0
    KEEP_BASELINE             E2 < E0, A or C run, neither ≥ E0
    WRIST_EXPERIMENT_PENDING  E2 < E0, neither A nor C run

Only the options in these roles can be adopted, and a role is never given to a row with `checkpoint_of`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from world_modality.artifacts.documents import Document
from world_modality.decision.effort import Efforts, Evaluated, efforts
from world_modality.decision.evaluations import (
    ComparisonError,
    Evaluation,
    WorldPath,
    check_comparable,
    check_complete,
    episode_table,
    first_episodes,
)
from world_modality.decision.judgement import Comparison, Worth, compare, worth
from world_modality.decision.looks import Counts, Look, OptionCounts, count
from world_modality.decision.statistics import Interval, rate_interval
from world_modality.examination.foresight import Foresight, View
from world_modality.experiment.branches import Pair, comparisons, wanted_options
from world_modality.experiment.plan import Plan, choose, make_plan
from world_modality.experiment.sections import Branch, Decision, OptionName, Scale
from world_modality.experiment.specs import DecisionSpec, JudgeSpec
from world_modality.simulation.pickup import STAGES

Token = Literal[
    "VOID_BASELINE_TOO_WEAK",
    "WORLD_HELPS_OR_NEUTRAL",
    "ADOPT_FUSION",
    "ADOPT_WRIST",
    "KEEP_BASELINE",
    "WRIST_EXPERIMENT_PENDING",
]

# Why a comparison got no more episodes. planned: their number was chosen beforehand; settled: a look settled it; cap:
# evaluation.max_episodes; reference: it is a control, whose reference was not evaluated any further
Stopped = Literal["planned", "settled", "cap", "reference"]


class Pickup(Document):
    """`pickup.json`: the checkpoint's verdict."""

    baseline: OptionName
    world: OptionName
    options: dict[OptionName, OptionCounts] = Field(
        description="counts on the pickup tasks, of the two options that the branch compares, when it was taken"
    )
    branch: Branch = Field(description="success: world ≥ baseline; wrist: world < baseline")
    scheduled: list[OptionName] = Field(description="options to train and evaluate next")


class Rate(Counts):
    interval: Interval = Field(description="Wilson interval of the success rate")
    exact: Interval = Field(description="the interval of Clopper and Pearson: never too narrow, but wider")


class PickupCounts(Document):
    """How far the episodes of one option came on the pickup tasks."""

    furthest: dict[str, int] = Field(description="episodes by the furthest stage they reached; none: no stage")
    grasp_attempts: int
    slips: int


class OptionResult(Document):
    name: OptionName
    label: str
    checkpoint_of: OptionName | None
    tasks: dict[int, Rate]
    pickup: Rate = Field(description="all pickup tasks pooled")
    all_tasks: Rate = Field(description="all evaluated tasks pooled")
    blind_as_good: bool = Field(description="it sees no picture, and is as good as the baseline on pickup")
    other_noise: bool = Field(description="rolled out with other noise than its reference, to see what chance does")
    eyes_shut: bool = Field(description="the baseline's checkpoint without pictures: a loss that the test must see")
    world: dict[str, WorldPath] | None = Field(description="per training seed; null where there is no world path")
    learning_schedule: dict[str, float] | None = Field(description="null: the baseline's")
    progress: PickupCounts | None = Field(description="null where a pickup task does not place one object somewhere")
    world_inactive: bool = Field(description="its world path hardly changes its actions")
    foresight: View | None = Field(
        description="how well its Prophet predicts held-out episodes; null: it has none, or nothing was held out"
    )


class Verdict(Document):
    """`decision.json`: everything the decision rests on."""

    token: Token
    branch: Branch
    scale: Scale
    settings: Decision = Field(description="roles, thresholds and choices of the tree")
    scheduled: list[OptionName] = Field(description="options the checkpoint scheduled")
    plan: Plan = Field(description="what the tree asked for, and what the budget allowed")
    suite_tasks: int = Field(description="number of tasks in the suite")
    tasks: dict[int, str] = Field(description="evaluated tasks and their instructions")
    initial_states: int = Field(description="of each task, of the option that was evaluated from most of them")
    rounds: list[int] = Field(description="initial states of each task after each round that was allowed")
    training_seeds: list[int]
    protocol: dict[str, Any]
    options: list[OptionResult]
    comparisons: list[Comparison]
    stops: dict[str, Stopped] = Field(description="why each comparison, as `E2 : E0`, got no more episodes")
    worth: Worth = Field(description="what the pairs of the primary comparison can show")
    effort: Efforts = Field(description="what would settle the primary comparison, in episodes and minutes")

    @property
    def primary(self) -> Comparison:
        """The comparison the branch rests on."""
        return self.comparison(self.settings.world, self.settings.baseline)

    def stopped(self, comparison: Comparison) -> Stopped:
        """Why a comparison got no more episodes."""
        return self.stops[_name((comparison.option, comparison.reference))]

    def comparison(self, option: str, reference: str) -> Comparison:
        return next(c for c in self.comparisons if (c.option, c.reference) == (option, reference))

    def option(self, name: str | None) -> OptionResult | None:
        """The result of one option; None where it was not run."""
        return next((option for option in self.options if option.name == name), None)


# ---- the options ----------------------------------------------------------------------------------------------------


def _source(spec: DecisionSpec, name: str) -> str:
    """The option whose training made the checkpoint that `name` rolls out."""
    return spec.options[name].checkpoint_of or name


def _sees(spec: DecisionSpec, name: str) -> bool:
    """Whether the policy gets any picture, directly or through the world latents."""
    option, source = spec.options[name], spec.options[_source(spec, name)]
    return bool(source.cameras) or "blank" not in (option.images, source.images)


def _is_inactive(world: Mapping[str, WorldPath] | None, spec: DecisionSpec, name: str) -> bool:
    """Whether an option's world path hardly changes its actions, for at least one training seed.

    An option that is trained on a memory of zeros has no memory to take away. There the gate alone decides.
    """
    if not spec.options[name].cameras:
        return False
    zeros = spec.options[name].memory == "zero"
    strengths = [path.gate if zeros else min(path.gate, path.action_change_rms) for path in world.values()]
    return min(strengths) < spec.decision.min_world_effect


# ---- the checkpoint -------------------------------------------------------------------------------------------------


def judge_pickup(look: Look, spec: JudgeSpec) -> Pickup:
    """Choose the branch, and say which options run next.

    Args:
        look: the one at which the comparison of the world option with the baseline stopped.

    Raises:
        ComparisonError: it is a look at another comparison.
    """
    decision = spec.decision
    if look.pair != (decision.world, decision.baseline):
        raise ComparisonError(
            f"a look at {_name(look.pair)}; the branch compares {decision.world} : {decision.baseline}"
        )
    helps = look.counts[decision.world].pooled.rate >= look.counts[decision.baseline].pooled.rate
    branch: Branch = "success" if helps else "wrist"
    return Pickup(
        baseline=decision.baseline,
        world=decision.world,
        options=look.counts,
        branch=branch,
        scheduled=list(choose(spec.plan, tuple(wanted_options(spec, branch)))),
    )


def plan_branch(branch: Branch, spec: JudgeSpec) -> Plan:
    """Which of the options that a branch asks for are run, as `Pickup.scheduled` says, and when."""
    return make_plan(spec.plan, wanted_options(spec, branch))


def _name(pair: Pair) -> str:
    return f"{pair[0]} : {pair[1]}"


def _check_spec(evaluations: Iterable[Evaluation], spec: DecisionSpec) -> None:
    for e in evaluations:
        if e.checkpoint.source_option != _source(spec, e.option):
            raise ComparisonError(
                f"{e.name}: rolled out {e.checkpoint.source_option}'s checkpoint, not {_source(spec, e.option)}'s"
            )
        if e.rollout.noise_stream != spec.options[e.option].rollout_noise:
            raise ComparisonError(
                f"{e.name}: rolled out under noise stream {e.rollout.noise_stream}, "
                f"not {spec.options[e.option].rollout_noise}"
            )
        if spec.options[e.option].cameras and e.world is None:
            raise ComparisonError(f"{e.name}: says nothing about the world path (`world` is null)")


# ---- the verdict ----------------------------------------------------------------------------------------------------


def decide(
    pickup: Pickup,
    plan: Plan,
    looks: Sequence[Look],
    evaluations: Sequence[Evaluation],
    spec: DecisionSpec,
    fairness: Mapping[str, Any],
    foresights: Sequence[Foresight] = (),
) -> Verdict:
    """Walk the tree to its end.

    Args:
        plan: what the checkpoint planned.
        looks: of every comparison, the one at which it stopped.
        fairness: what `fairness.json` says of these options.
        foresights: of every option that was trained with a Prophet; none where no episode was held out.
        evaluations: exactly those of every option in `spec.run` and in `pickup.scheduled`, each on the same tasks.

    Raises:
        ComparisonError: one is missing, not asked for or not comparable, or `pickup` or a look does not follow from
            them.
    """
    decision, names = spec.decision, [*spec.run, *pickup.scheduled]
    tasks = {e.task.id: e.task.description for e in sorted(evaluations, key=lambda e: e.task.id)}
    check_complete(evaluations, names, {*tasks, *decision.pickup_tasks})
    _check_spec(evaluations, spec)
    check_comparable(evaluations, decision.baseline, adaptive=decision.stopping == "adaptive")
    _check_pickup(pickup, looks, spec)
    families = comparisons(names, spec.options, decision)
    stops = _check_looks(looks, families, evaluations, decision)
    if plan.chosen != pickup.scheduled:
        raise ComparisonError(f"plan.json: chose {plan.chosen}, but pickup.json schedules {pickup.scheduled}")
    _check_audited(names, spec, fairness)
    foreseen = _check_foresights(foresights, names, spec)
    table = episode_table(evaluations)
    other_noise = [name for name in names if spec.options[name].rollout_noise]
    compared = compare(table, families, decision.pickup_tasks, decision, other_noise, stops)
    primary = next(c for c in compared if c.family == "primary")
    leads = {(c.option, c.reference): c.success.difference for c in compared}
    baseline = pickup.options[decision.baseline].pooled.rate
    there = Evaluated(primary.episodes, len(decision.pickup_tasks), len(tasks), table["train_seed"].n_unique())
    pairs_a_state = there.pickup_tasks * there.seeds
    worthy = worth(primary.success, decision, [pairs_a_state * states for states in spec.rounds])
    return Verdict(
        token=choose_token(baseline, leads, decision),
        branch=pickup.branch,
        scale=spec.scale,
        settings=decision,
        scheduled=pickup.scheduled,
        plan=plan,
        suite_tasks=evaluations[0].suite_tasks,
        tasks=tasks,
        initial_states=table.group_by("task").agg(pl.col("init_state_id").n_unique())["init_state_id"].max(),
        rounds=list(spec.rounds),
        training_seeds=sorted(table["train_seed"].unique()),
        protocol=evaluations[0].protocol,
        options=[_result(name, evaluations, table, spec, foreseen.get(name)) for name in names],
        comparisons=compared,
        stops={_name(look.pair): _stopped(look, spec) for look in looks},
        worth=worthy,
        effort=efforts(worthy, primary.success, there, spec.costs, plan.gpus, decision.stopping == "fixed"),
    )


def _stopped(look: Look, spec: DecisionSpec) -> Stopped:
    if spec.decision.stopping != "adaptive":
        return "planned"
    if look.settled:
        return "settled"
    return "cap" if look.comparison.episodes == spec.rounds[-1] else "reference"


def choose_token(baseline: float, leads: Mapping[Pair, float], decision: Decision) -> Token:
    """The first token whose condition holds.

    Args:
        baseline: the baseline's success rate on the pickup tasks.
        leads: of each (option, reference), the success rate of the one minus that of the other, on the same episodes.
    """
    e0, e2, a, c = decision.baseline, decision.world, decision.wrist, decision.fusion
    wrist, fusion = leads.get((a, e0)), leads.get((c, e0))
    if baseline < decision.min_baseline_success:
        return "VOID_BASELINE_TOO_WEAK"
    if leads[e2, e0] >= 0:
        return "ADOPT_FUSION" if fusion is not None and leads[c, e2] > 0 else "WORLD_HELPS_OR_NEUTRAL"
    if fusion is not None and fusion >= 0 and (wrist is None or leads[c, a] > 0):
        return "ADOPT_FUSION"
    if wrist is not None and wrist >= 0:
        return "ADOPT_WRIST"
    return "WRIST_EXPERIMENT_PENDING" if wrist is None and fusion is None else "KEEP_BASELINE"


def _check_looks(
    looks: Sequence[Look], families: Iterable[Pair], evaluations: Sequence[Evaluation], decision: Decision
) -> dict[Pair, int]:
    """Each comparison must have one look, which follows from the evaluations.

    Returns:
        the number of initial states of each task at which each comparison stopped.
    """
    given = [look.pair for look in looks]
    for pair in families:
        if given.count(pair) != 1:
            raise ComparisonError(f"looks: {given.count(pair)} at {_name(pair)}; the decision takes one")
    for look in looks:
        if look.pair not in families:
            raise ComparisonError(
                f"looks: {_name(look.pair)} is not compared; expected {', '.join(map(_name, families))}"
            )
        seen = first_episodes(evaluations, look.comparison.episodes)
        seen = [e for e in seen if e.option in look.pair and e.task.id in decision.pickup_tasks]
        if look.counts != {name: count(seen, name) for name in look.pair}:
            raise ComparisonError(
                f"looks: that at {_name(look.pair)} does not follow from these evaluations; look again"
            )
    return {look.pair: look.comparison.episodes for look in looks}


def _check_pickup(pickup: Pickup, looks: Iterable[Look], spec: DecisionSpec) -> None:
    """All of it must follow from the look, the tree and the budget."""
    primary = (spec.decision.world, spec.decision.baseline)
    (look,) = [look for look in looks if look.pair == primary] or [None]
    if look is None:
        raise ComparisonError(f"looks: none at {_name(primary)}, which the branch compares")
    judged = judge_pickup(look, spec)
    for field in ("baseline", "world", "branch", "options"):
        if getattr(pickup, field) != getattr(judged, field):
            raise ComparisonError(f"pickup.json: {field} does not follow from the look; judge it again")
    for name in pickup.scheduled:
        if name not in judged.scheduled:
            raise ComparisonError(f"pickup.json: {name} is scheduled, but the tree asks for {judged.scheduled}")
    for name in judged.scheduled:
        if name not in pickup.scheduled:
            raise ComparisonError(f"pickup.json: {name} is not scheduled, but the plan chooses {judged.scheduled}")


def _check_audited(names: Sequence[str], spec: DecisionSpec, fairness: Mapping[str, Any]) -> None:
    if (fairness["baseline"], fairness["world"]) != (spec.decision.baseline, spec.decision.world):
        raise ComparisonError(f"fairness.json: audited against {fairness['baseline']} and {fairness['world']}")
    for name in names:
        if _source(spec, name) not in fairness["options"]:
            raise ComparisonError(f"fairness.json: the checkpoint of {_source(spec, name)} was not audited")


def _check_foresights(foresights: Sequence[Foresight], names: Sequence[str], spec: DecisionSpec) -> dict[str, View]:
    found = {foresight.option: foresight.whole for foresight in foresights}
    wanted = {name for name in names if spec.options[name].cameras}
    if found and set(found) != wanted:
        raise ComparisonError(f"prophet_<option>.json of {sorted(found)}, expected those of {sorted(wanted)}")
    return found


def _result(
    name: str, evaluations: Sequence[Evaluation], table: pl.DataFrame, spec: DecisionSpec, foresight: View | None
) -> OptionResult:
    decision, tasks = spec.decision, sorted({e.task.id for e in evaluations})
    world = next(e.world for e in evaluations if e.option == name)
    schedules = {e.option: e.learning_schedule for e in evaluations}
    own = {k: v for k, v in schedules[name].items() if v != schedules[decision.baseline][k]}
    pickup, baseline = (_rate(table, option, decision.pickup_tasks, decision) for option in (name, decision.baseline))
    blind = not _sees(spec, name)
    return OptionResult(
        name=name,
        label=spec.labels[name],
        checkpoint_of=spec.options[name].checkpoint_of,
        tasks={task: _rate(table, name, [task], decision) for task in tasks},
        pickup=pickup,
        all_tasks=_rate(table, name, tasks, decision),
        blind_as_good=name != decision.baseline and blind and pickup.rate >= baseline.rate,
        other_noise=bool(spec.options[name].rollout_noise),
        eyes_shut=spec.options[name].checkpoint_of == decision.baseline and blind,
        world=world,
        learning_schedule=own or None,
        progress=_progress([e for e in evaluations if e.option == name and e.task.id in decision.pickup_tasks]),
        foresight=foresight,
        world_inactive=_is_inactive(world, spec, name),
    )


def _progress(evaluations: Iterable[Evaluation]) -> PickupCounts | None:
    pickups = [episode.pickup for e in evaluations for episode in e.episodes]
    if None in pickups:
        return None
    furthest = [pickup["furthest"] or "none" for pickup in pickups]
    return PickupCounts(
        furthest={stage: furthest.count(stage) for stage in ("none", *STAGES)},
        grasp_attempts=sum(pickup["grasp_attempts"] for pickup in pickups),
        slips=sum(pickup["slips"] for pickup in pickups),
    )


def _rate(table: pl.DataFrame, option: str, tasks: Sequence[int], decision: Decision) -> Rate:
    """Successes on some tasks; episodes of several checkpoints from one initial state count as a cluster."""
    own = table.filter(pl.col("task").is_in(list(tasks)), option=option).sort("task", "init_state_id", "train_seed")
    repeats = own["train_seed"].n_unique()
    outcomes = own["success"].to_numpy().astype(np.int64).reshape(-1, repeats)
    return Rate(
        successes=int(outcomes.sum()),
        episodes=outcomes.size,
        interval=rate_interval(outcomes, decision.confidence, "wilson"),
        exact=rate_interval(outcomes, decision.confidence, "beta"),
    )
