"""Figures for people, each a pure function of an artifact: the same input gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from world_modality.decision import Rate, Verdict
from world_modality.errors import InputError
from world_modality.files import atomic_path
from world_modality.sections import Figures


def save(figure: Figure, path: Path) -> None:
    """Write a figure without dates or random ids.

    Raises:
        InputError: the path does not end in .svg.
    """
    if path.suffix != ".svg":
        raise InputError(f"{path}: figures are written as .svg")
    with matplotlib.rc_context({"svg.hashsalt": "world_modality"}), atomic_path(path) as temporary:
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
    axes.set_title(f"{verdict.scale} scale, {100 * verdict.settings.confidence:g}% Wilson intervals", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def _draw_rates(axes, rates: list[Rate], offset: float, **style) -> None:
    centers = [100 * rate.rate for rate in rates]
    below = [max(0.0, center - 100 * rate.interval[0]) for center, rate in zip(centers, rates, strict=True)]
    above = [max(0.0, 100 * rate.interval[1] - center) for center, rate in zip(centers, rates, strict=True)]
    heights = [row + offset for row in range(len(rates))]
    axes.errorbar(centers, heights, xerr=(below, above), markersize=4, capsize=2, linewidth=1.2, **style)
