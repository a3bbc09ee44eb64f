"""Figures for people, each a pure function of an artifact: the same input gives the same bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from world_modality.artifacts.files import atomic_path
from world_modality.decision.tree import Rate, Verdict
from world_modality.errors import InputError
from world_modality.examination.attention_patterns import AttentionReport, Pattern, read_report
from world_modality.examination.foresight import PREDICTORS, Foresight, View, read_foresight
from world_modality.experiment.plan import Plan, PlannedStage
from world_modality.experiment.sections import Figures

KINDS = {"latents": "latents", "train": "training", "evaluate": "evaluation"}  # names of stages in the plan's figure


# All figures share this style.
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.hashsalt": "world_modality",
}


def draw(name: str, data: Sequence[Path], look: Figures) -> Figure:
    """Draw one of `FIGURES` from the artifacts it shows."""
    with matplotlib.rc_context(STYLE):
        return FIGURES[name](data, look)


def save(figure: Figure, path: Path) -> None:
    """Write a figure without dates or random ids.

    Raises:
        InputError: the path does not end in .svg.
    """
    if path.suffix != ".svg":
        raise InputError(f"{path}: figures are written as .svg")
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Date": None})


def plot_success(verdict: Verdict, look: Figures) -> Figure:
    """Success rate of each option on each task and on the pickup tasks together, with Wilson intervals."""
    tasks = sorted(verdict.tasks)
    series = [(f"task {task}", [option.tasks[task] for option in verdict.options]) for task in tasks]
    series.append(("pickup tasks", [option.pickup for option in verdict.options]))
    count = len(verdict.options)
    figure = Figure(figsize=(7, 1.5 + count * (0.25 + 0.12 * len(series))), layout="constrained")
    axes = figure.subplots()
    for number, (label, rates) in enumerate(series):
        offset = 0.7 * ((number + 0.5) / len(series) - 0.5)
        pooled = number == len(tasks)
        color = look.pickup_color if pooled else look.task_colors[number % len(look.task_colors)]
        _draw_rates(axes, rates, offset, label=label, color=color, fmt="D" if pooled else "o")
    axes.set_yticks(range(count), [option.name for option in verdict.options])
    axes.set(xlim=(-2, 102), ylim=(count - 0.5, -0.5), xlabel="success rate [%]")
    axes.set_title(f"{verdict.scale} scale, {100 * verdict.settings.confidence:g}% Wilson intervals")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside right upper")
    return figure


def _draw_rates(axes, rates: list[Rate], offset: float, **style) -> None:
    centers = [100 * rate.rate for rate in rates]
    below = [max(0.0, center - 100 * rate.interval[0]) for center, rate in zip(centers, rates, strict=True)]
    above = [max(0.0, 100 * rate.interval[1] - center) for center, rate in zip(centers, rates, strict=True)]
    heights = [row + offset for row in range(len(rates))]
    axes.errorbar(centers, heights, xerr=(below, above), markersize=4, capsize=2, linewidth=1.2, **style)


def plot_prophet(foresights: Sequence[Foresight], look: Figures) -> Figure:
    """Cosine of predicted and true latents by frames ahead, a panel per option and view; each seed as a thin line."""
    panels = [(foresight, view) for foresight in foresights for view in foresight.views]
    figure = Figure(figsize=(1.2 + 2.6 * len(panels), 3.2), layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (foresight, name) in zip(row, panels, strict=True):
        view = foresight.overall[name]
        _draw_cosines(axes, view, look, labels=axes is row[0], markersize=4, linewidth=1.5)
        for seed in foresight.seeds.values() if len(foresight.seeds) > 1 else ():
            _draw_cosines(axes, seed[name], look, markersize=0, linewidth=0.6, alpha=0.5)
        better = f"better than copy-last in {view.episodes_better} of {view.episodes} episodes"
        axes.set_title(f"{foresight.option} {name}\n{better}")
        axes.set(xlabel="frames ahead", xticks=[step.k for step in view.steps])
    row[0].set_ylabel("cosine with the true latent")
    figure.legend(loc="outside upper center", ncols=len(PREDICTORS))
    return figure


def _draw_cosines(axes, view: View, look: Figures, labels: bool = False, **style) -> None:
    for number, (predictor, marker) in enumerate(zip(PREDICTORS, "os^", strict=True)):
        color = look.task_colors[number % len(look.task_colors)]
        label = predictor.replace("_", " ") if labels else None
        cosines = [getattr(step, predictor) for step in view.steps]
        axes.plot([step.k for step in view.steps], cosines, marker=marker, color=color, label=label, **style)


def plot_plan(plan: Plan, look: Figures) -> Figure:
    """Gantt chart: a row for each GPU that runs something, a bar for each stage; below, the plan in words.

    If the costs of the stages are not known, there are only the words. Laid out by hand, so that each bar's name is
    written in it as large as fits.
    """
    gpus = sorted({stage.gpu for stage in plan.stages})
    notes = [line for text in plan.summary() for line in textwrap.wrap(text, 110)]
    below, rows = 0.6 + 0.2 * len(notes), max(1, len(gpus))
    height = below + 0.5 * rows + 0.35  # [inch]
    figure = Figure(figsize=(9, height))
    axes = figure.add_axes((0.08, below / height, 0.89, 0.5 * rows / height))
    axes.set(xlim=(0, plan.makespan or 1), ylim=(rows - 0.5, -0.5))
    axes.set_yticks(range(len(gpus)), [f"GPU {gpu}" for gpu in gpus])
    for number, (kind, label) in enumerate(KINDS.items()):
        color = look.task_colors[number % len(look.task_colors)]
        _draw_stages(axes, [s for s in plan.stages if s.kind == kind], gpus, color=color, label=label)
    if plan.stages:
        axes.set_xlabel("after the judgement [h]")
        figure.legend(loc="upper right", bbox_to_anchor=(0.98, 1), ncols=len(KINDS))
    else:
        axes.set_xticks([])
        axes.text(0.5, 0, "no schedule" if plan.chosen else "nothing was planned", ha="center", va="center")
    figure.text(0.08, 0.08 / height, "\n".join(notes), va="bottom")
    return figure


def _draw_stages(axes, stages: list[PlannedStage], gpus: list[int], **style) -> None:
    lengths = [stage.end - stage.start for stage in stages]
    rows = [gpus.index(stage.gpu) for stage in stages]
    lefts = [stage.start for stage in stages]
    axes.barh(rows, lengths, left=lefts, height=0.7, alpha=0.5, edgecolor="0.2", linewidth=0.6, **style)
    for stage, row, length in zip(stages, rows, lengths, strict=True):
        size = min(8.0, 900 * length / axes.get_xlim()[1] / len(stage.name))  # [pt], in axes of 8 inches
        if size >= 3:
            axes.text(stage.start + length / 2, row, stage.name, ha="center", va="center", fontsize=size)


def plot_attention(report: AttentionReport, look: Figures) -> Figure:
    """Attention over the predicted frames, in training and at rollout; below, each option by phase, step and head.

    Laid out by hand, because the constrained layout of so many axes is not the same to the last bit every time.
    """
    leading, limits = report.leading, _limits(report)
    height = 2.9 + 2.1 * len(leading)  # [inch]
    figure = Figure(figsize=(9, height))
    sides = {"left": 0.07, "right": 0.83}
    rows = figure.add_gridspec(1, 2, top=1 - 0.3 / height, bottom=1 - 2.3 / height, wspace=0.1, **sides)
    axes = rows.subplots(sharey=True)
    for place, where in zip(axes, ("training", "rollout"), strict=True):
        _draw_attention(place, report, where, look)
    axes[0].set(ylabel="attention [%]", ylim=limits)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="upper left", bbox_to_anchor=(0.84, 0.99))
    for number, pattern in enumerate(leading):
        top = height - 3.2 - 2.1 * number  # [inch]
        figure.text(sides["left"], (top + 0.1) / height, f"{pattern.name}, {pattern.table.where}")
        grid = figure.add_gridspec(1, 3, top=top / height, bottom=(top - 1.2) / height, wspace=0.25, **sides)
        mesh = _draw_spreads(grid.subplots(), pattern, limits)
        bar = figure.add_axes((0.85, (top - 1.2) / height, 0.015, 1.2 / height))
        figure.colorbar(mesh, cax=bar, label="attention [%]")
    return figure


def _limits(report: AttentionReport) -> tuple[float, float]:
    """Range of everything that is drawn [%], but never so narrow that even attention looks like a pattern."""
    even = 100 / report.patterns[0].table.horizon
    spreads = [s for p in report.patterns for s in (p.overall, *p.phases, *p.denoise_steps, *p.heads) if s is not None]
    shares = [100 * share for spread in spreads for share in spread.shares]
    return min(0.95 * even, *shares), max(1.05 * even, *shares)


def _draw_attention(axes, report: AttentionReport, where: str, look: Figures) -> None:
    """A line for each option; an option that was not measured there appears only in the legend."""
    horizon = report.patterns[0].table.horizon
    axes.axhline(100 / horizon, color="0.6", linewidth=0.8, linestyle=":")
    for number, option in enumerate(report.leading):
        pattern = report.pattern(option.table.option, where)
        shares = [100 * share for share in pattern.overall.shares] if pattern else []
        color = look.task_colors[number % len(look.task_colors)]
        axes.plot(range(1, len(shares) + 1), shares, marker="o", markersize=4, color=color, label=option.name)
    axes.set(xlabel="frames ahead (k)", xlim=(0.5, horizon + 0.5))
    axes.set_title({"training": "on training frames", "rollout": "at rollout"}[where])


def _draw_spreads(axes, pattern: Pattern, limits: tuple[float, float]):
    """Attention to each k by quarter of the episode, denoising step and head; one colour scale for all options."""
    horizon = pattern.table.horizon
    groups = {"quarter of episode": pattern.phases, "denoising step": pattern.denoise_steps, "head": pattern.heads}
    for place, (label, spreads) in zip(axes, groups.items(), strict=True):
        shares = [[100 * share for share in spread.shares] if spread else [math.nan] * horizon for spread in spreads]
        first = int(label.startswith("quarter"))  # people count quarters from 1
        edges = [number - 0.5 for number in range(first, first + len(spreads) + 1)]
        mesh = place.pcolormesh([k + 0.5 for k in range(horizon + 1)], edges, shares, vmin=limits[0], vmax=limits[1])
        place.set(xlabel="frames ahead (k)", ylabel=label)
        for axis in (place.xaxis, place.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        place.invert_yaxis()
    return mesh


# What each figure is drawn from, and how.
FIGURES: dict[str, Callable[[Sequence[Path], Figures], Figure]] = {
    "success": lambda data, look: plot_success(Verdict.read(*data), look),
    "attention": lambda data, look: plot_attention(read_report(*data), look),
    "plan": lambda data, look: plot_plan(Plan.read(*data), look),
    "prophet": lambda data, look: plot_prophet([read_foresight(path) for path in data], look),
}
