"""What fits the budget: which of the options that the tree asks for are run, and when each of their stages runs.

Two integer programs find this out. The first chooses the options: it takes them in order of preference, and keeps each
one that fits in addition to those already chosen. A stage that several options need is counted once. The second looks
for a schedule that ends earlier than one made by a simple rule: start every stage as soon as possible, the one with the
longest chain behind it first. The second program runs only if the simple schedule ends later than a bound that no
schedule beats: the longest chain of stages, or all hours spread evenly over the GPUs.

Time is counted in ticks, the largest unit that all hours are multiples of, so a schedule is exact. The second program
cuts time into at most `SLOTS` slots. If a slot must be longer than a tick, or if the search stops after `NODES` nodes,
the best schedule found is kept and `Plan.bound` says what is proven. Nothing depends on the clock.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction

import pulp
from pydantic import Field

from world_modality.artifacts.documents import Document
from world_modality.errors import InputError
from world_modality.experiment.sections import OptionName, Scale
from world_modality.experiment.specs import PlanSpec, Stage

SLOTS = 100
NODES = 2000


class PlannedStage(Document):
    name: str
    kind: str = Field(description="latents, train or evaluate")
    gpu: int = Field(description="which GPU, from 0")
    start: float = Field(description="after the judgement [h]")
    end: float = Field(description="after the judgement [h]")


class LeftOut(Document):
    option: OptionName
    hours: float = Field(description="what it adds to the cost of the chosen options before it [GPU-hours]")
    missing: float = Field(description="how much of that is beyond the budget [GPU-hours]")


class OneMoreHour(Document):
    """What the plan would be with one more GPU-hour."""

    gained: list[OptionName] = Field(description="options it would run that are now left out")
    lost: list[OptionName] = Field(description="options it would leave out for those")


class Plan(Document):
    """`plan.json`: what runs after the judgement. Where costs are not known, no hours are counted or scheduled."""

    scale: Scale = Field(description="whose costs it counts")
    gpu_hours: float | None = Field(description="the budget; null: no limit [GPU-hours]")
    gpus: int
    wanted: list[OptionName] = Field(description="options the tree asks for, in order of preference")
    chosen: list[OptionName] = Field(description="those that fit the budget, in order of preference")
    left_out: list[LeftOut] = Field(description="those that do not, in order of preference")
    one_more_hour: OneMoreHour
    hours: float | None = Field(description="what the chosen options cost; null: not known [GPU-hours]")
    makespan: float | None = Field(description="end of the last stage; null: costs are not known [h]")
    bound: float | None = Field(
        description="it is proven that no schedule ends before this; where it equals the makespan, the schedule is the "
        "shortest; null: costs are not known [h]"
    )
    stages: list[PlannedStage] = Field(description="in order of their start; none where costs are not known")

    def summary(self) -> list[str]:
        """The plan in words, one line each for what runs, what is left out, and what another hour would change."""
        if not self.wanted:
            return ["The tree asks for no option besides those that have run."]
        if self.hours is None:
            return [
                f"Planned: {', '.join(self.chosen)}.",
                f"The costs of {self.scale} scale are not known: `make costs` measures them; no schedule is drawn.",
            ]
        of = "" if self.gpu_hours is None else f" of the budget of {self.gpu_hours:g}"
        on = f"on {self.gpus} GPU{'s' if self.gpus > 1 else ''}"
        at_best = f", {self.bound:g} h at best" if self.bound < self.makespan else ""
        lines = [f"Planned: {', '.join(self.chosen)}. {self.hours:g}{of} GPU-hours, {self.makespan:g} h {on}{at_best}."]
        if not self.chosen:
            lines = [f"Nothing fits the budget of {self.gpu_hours:g} GPU-hours."]
        lines += [
            f"{left.option} is left out: it needs {left.hours:g} GPU-hours, {left.missing:g} beyond the budget."
            for left in self.left_out
        ]
        more = self.one_more_hour
        if self.left_out:
            lost = f" and leave out {', '.join(more.lost)}" if more.lost else ""
            bought = f"run {', '.join(more.gained)}{lost}" if more.gained else "change nothing"
            lines.append(f"One more GPU-hour would {bought}.")
        return lines


def make_plan(spec: PlanSpec, wanted: Sequence[str]) -> Plan:
    """Choose among the wanted options, the preferred ones first, and schedule the stages the chosen ones need."""
    wanted = tuple(wanted)
    chosen, more = choose(spec, wanted), choose(_with_one_more_hour(spec), wanted)
    stages = stages_of(spec, chosen)
    known = all(stage.hours is not None for stage in stages)
    planned, makespan, bound = schedule(stages, spec.gpus) if known else ([], None, None)
    return Plan(
        scale=spec.scale,
        gpu_hours=spec.gpu_hours,
        gpus=spec.gpus,
        wanted=list(wanted),
        chosen=list(chosen),
        left_out=[_left_out(spec, option, wanted, chosen) for option in wanted if option not in chosen],
        one_more_hour=OneMoreHour(
            gained=[option for option in more if option not in chosen],
            lost=[option for option in chosen if option not in more],
        ),
        hours=float(_hours(stages)) if known else None,
        makespan=makespan,
        bound=bound,
        stages=planned,
    )


def _with_one_more_hour(spec: PlanSpec) -> PlanSpec:
    hours = None if spec.gpu_hours is None else float(_exact(spec.gpu_hours) + 1)
    return spec.model_copy(update={"gpu_hours": hours})


def stages_of(spec: PlanSpec, options: Collection[str]) -> list[Stage]:
    """All stages that some options need, each once."""
    needed = {name for c in spec.candidates if c.name in options for name in c.ends}
    for stage in reversed(spec.stages):
        needed |= set(stage.after) if stage.name in needed else set()
    return [stage for stage in spec.stages if stage.name in needed]


def _left_out(spec: PlanSpec, option: str, wanted: Sequence[str], chosen: Sequence[str]) -> LeftOut:
    before = [name for name in wanted[: wanted.index(option)] if name in chosen]
    kept, needed = _hours(stages_of(spec, before)), _hours(stages_of(spec, [*before, option]))
    return LeftOut(option=option, hours=float(needed - kept), missing=float(needed - _exact(spec.gpu_hours)))


# ---- hours, exactly -------------------------------------------------------------------------------------------------


def _exact(hours: float) -> Fraction:
    """Exactly the decimal number that was written: 0.1 is a tenth."""
    return Fraction(repr(hours))


def _hours(stages: Iterable[Stage]) -> Fraction:
    return sum((_exact(stage.hours) for stage in stages), Fraction(0))


def _in_ticks(stages: Iterable[Stage]) -> tuple[dict[str, int], Fraction]:
    """The length of each stage in whole ticks, and the length of a tick in hours."""
    hours = {stage.name: _exact(stage.hours) for stage in stages}
    denominator = math.lcm(*(h.denominator for h in hours.values()))
    tick = Fraction(math.gcd(*(int(h * denominator) for h in hours.values())), denominator) or Fraction(1)
    return {name: int(h / tick) for name, h in hours.items()}, tick


# ---- which options --------------------------------------------------------------------------------------------------


@functools.cache
def choose(spec: PlanSpec, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The wanted options that fit the budget: each that can be run in addition to the chosen ones before it.

    Args:
        wanted: candidates of the spec, in order of preference.
    """
    if spec.gpu_hours is None:
        return wanted
    ticks, tick = _in_ticks(spec.stages)
    problem = pulp.LpProblem("choose", pulp.LpMaximize)
    made = {stage.name: problem.add_variable(f"made_{i}", cat="Binary") for i, stage in enumerate(spec.stages)}
    run = {c.name: problem.add_variable(f"run_{i}", cat="Binary") for i, c in enumerate(spec.candidates)}
    problem += pulp.lpSum(ticks[name] * made[name] for name in made) <= _exact(spec.gpu_hours) // tick
    for candidate in spec.candidates:
        for name in candidate.ends:
            problem += run[candidate.name] <= made[name]
    for stage in spec.stages:
        for name in stage.after:
            problem += made[stage.name] <= made[name]
    chosen = []
    for option in wanted:
        problem.setObjective(run[option] + 0)
        if _solve(problem) != pulp.LpStatusOptimal:
            raise InputError(f"no plan: HiGHS does not say whether {option} fits the budget")
        fits = round(run[option].value())
        problem += run[option] == fits
        chosen += [option] * fits
    return tuple(chosen)


# ---- when and where -------------------------------------------------------------------------------------------------

Places = dict[str, tuple[int, int, int]]  # GPU, start and end of each stage [ticks]


def schedule(stages: Sequence[Stage], gpus: int) -> tuple[list[PlannedStage], float, float]:
    """When and where each stage runs; the end of the last one, and a bound that no schedule beats [h].

    Args:
        stages: each listed after the stages it waits for.
    """
    if not stages:
        return [], 0.0, 0.0
    ticks, tick = _in_ticks(stages)
    places, bound = _shortest(stages, ticks, gpus)
    planned = [
        PlannedStage(name=s.name, kind=s.kind, gpu=gpu, start=float(start * tick), end=float(end * tick))
        for s in stages
        for gpu, start, end in [places[s.name]]
    ]
    planned.sort(key=lambda stage: (stage.start, stage.gpu))
    return planned, float(_end(places) * tick), float(bound * tick)


def _shortest(stages: Sequence[Stage], ticks: dict[str, int], gpus: int) -> tuple[Places, int]:
    """The schedule with the earliest end that is found, and a time before which none can end [ticks]."""
    tails = _longest_ways(stages, ticks)
    by_hand = (stages, sorted(stages, key=lambda stage: -tails[stage.name]))  # the preferred options first, if possible
    best = min((_place(order, ticks, gpus) for order in by_hand), key=_end)
    bound = max(*tails.values(), -(-sum(ticks.values()) // gpus))
    slot = max(1, -(-_end(best) // SLOTS))  # [ticks]
    slots = {name: -(-length // slot) for name, length in ticks.items()}
    first, last = -(-bound // slot), (_end(best) - 1) // slot  # ends that would be earlier [slots]
    while first <= last:
        end = (first + last) // 2
        starts, proven = _start_before(stages, slots, gpus, end)
        if starts is None:
            first = end + 1
            bound = max(bound, first) if proven and slot == 1 else bound
        else:
            best = _place(sorted(stages, key=lambda stage: starts[stage.name]), ticks, gpus)
            last = (_end(best) - 1) // slot
    return best, bound


def _end(places: Places) -> int:
    return max(end for _, _, end in places.values())


def _longest_ways(stages: Sequence[Stage], lengths: dict[str, int]) -> dict[str, int]:
    """For each stage, the time from its start to the end of the longest chain of stages that it begins."""
    ways = dict(lengths)
    for stage in reversed(stages):
        for name in stage.after:
            ways[name] = max(ways[name], lengths[name] + ways[stage.name])
    return ways


def _place(order: Iterable[Stage], ticks: dict[str, int], gpus: int) -> Places:
    """Place each stage in turn as early as possible, on the first free GPU, also in gaps between placed stages."""
    places: Places = {}
    for stage in order:
        ready = max((places[name][2] for name in stage.after), default=0)
        moments = sorted({ready, *(end for _, _, end in places.values() if end > ready)})
        starts = ((gpu, start, start + ticks[stage.name]) for start in moments for gpu in range(gpus))
        places[stage.name] = next(place for place in starts if _is_free(*place, places.values()))
    return places


def _is_free(gpu: int, start: int, end: int, taken: Iterable[tuple[int, int, int]]) -> bool:
    return all(gpu != other or end <= begin or stop <= start for other, begin, stop in taken)


def _start_before(
    stages: Sequence[Stage], slots: dict[str, int], gpus: int, end: int
) -> tuple[dict[str, int] | None, bool]:
    """Starts with which all stages end by `end`, or None; and whether it is proven that there are none [slots].

    Each stage starts in exactly one of the slots it can start in. The GPUs are alike, so it is enough that no slot has
    more running stages than there are GPUs: `_place` finds a GPU for each.
    """
    ways, heads = _longest_ways(stages, slots), dict.fromkeys(slots, 0)
    for stage in stages:
        heads[stage.name] = max((heads[name] + slots[name] for name in stage.after), default=0)
    windows = {stage.name: range(heads[stage.name], end - ways[stage.name] + 1) for stage in stages}
    if not all(windows.values()):
        return None, True
    problem = pulp.LpProblem("schedule", pulp.LpMinimize)
    starts = {
        name: {t: problem.add_variable(f"start_{i}_{t}", cat="Binary") for t in window}
        for i, (name, window) in enumerate(windows.items())
    }
    for at in starts.values():
        problem += pulp.lpSum(at.values()) == 1
    for t in range(end):
        running = [x for name, at in starts.items() for u, x in at.items() if u <= t < u + slots[name]]
        problem += pulp.lpSum(running) <= gpus
    for stage in stages:
        for name in stage.after:
            for t in windows[stage.name]:  # if it has started by t, the one before it has ended by t
                late = [x for u, x in starts[name].items() if u + slots[name] > t]
                problem += pulp.lpSum(late) + pulp.lpSum(x for u, x in starts[stage.name].items() if u <= t) <= 1
    problem.setObjective(pulp.lpSum(t * x for at in starts.values() for t, x in at.items()))
    status = _solve(problem, NODES)
    if status == pulp.LpStatusOptimal:
        return {name: next(t for t, x in at.items() if x.value() > 0.5) for name, at in starts.items()}, False
    return None, status == pulp.LpStatusInfeasible


def check_solver() -> None:
    """Check that HiGHS can be loaded.

    It is a library in this process. The CBC that comes with PuLP is a program, which may be missing, be for another
    machine or be killed, and PuLP does not say which.

    Raises:
        InputError: it cannot.
    """
    try:
        import highspy  # noqa: F401  PuLP does not say why it cannot load it
    except Exception as error:  # it may be for another machine
        reason = " ".join(str(error).split())
        raise InputError(
            f"HiGHS, which makes the plan, cannot be loaded ({reason}); `make setup` installs highspy"
        ) from None


def _solve(problem: pulp.LpProblem, nodes: int | None = None) -> int:
    """Solve exactly with HiGHS, limited by nodes and never by a clock; returns PuLP's status."""
    check_solver()
    limits = {"mip_max_nodes": nodes} if nodes else {}
    try:
        return problem.solve(pulp.HiGHS(msg=False, threads=1, gapRel=0, **limits))
    except KeyError:  # PuLP does not know the status that HiGHS returns at its node limit
        return pulp.LpStatusNotSolved
