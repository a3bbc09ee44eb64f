"""The text a person reads: `decision.txt`, a pure function of the `Verdict` in `decision.json`.

Line 1 is the token alone. Nothing in the text depends on when, where or how fast it was made, and no line is wider
than `WIDTH` columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from world_modality.decision import Comparison, Counts, OptionResult, Rate, Verdict
from world_modality.evaluation import STAGES
from world_modality.foresight import PREDICTORS
from world_modality.statistics import Interval

WIDTH = 100

MEANING = {
    "VOID_BASELINE_TOO_WEAK": "{E0} itself succeeds too rarely for any comparison with it to mean something.",
    "WORLD_HELPS_OR_NEUTRAL": "{E2} does at least as well as {E0} on pickup: the world modality helps or is neutral.",
    "ADOPT_FUSION": "{C}, which sees both cameras, is the option to adopt.",
    "ADOPT_WRIST": "{E2} does worse than {E0} on pickup, and {A}, which predicts the wrist camera, does not.",
    "KEEP_BASELINE": "{E2} does worse than {E0} on pickup, and so does every retrained wrist option that was run.",
    "WRIST_EXPERIMENT_PENDING": "{E2} does worse than {E0} on pickup, and the wrist experiment was not run.",
}
NEXT = {
    "VOID_BASELINE_TOO_WEAK": "Train {E0} until it works (more demonstrations, more steps), then run the whole again.",
    "WORLD_HELPS_OR_NEUTRAL": "Consider both cameras for further gains: decision.on_success with a fusion option.",
    "ADOPT_FUSION": "Use {C}; confirm it against {E0} with more initial states and more training seeds.",
    "ADOPT_WRIST": "Use {A}; confirm it against {E0} with more initial states and more training seeds.",
    "KEEP_BASELINE": "Keep {E0}.",
    "WRIST_EXPERIMENT_PENDING": "Run the wrist experiment ({A}) when the budget allows.",
}
SCALES = {
    "embedded": "Embedded scale: shows that the machinery works; says nothing about SmolVLA, V-JEPA 2 ViT-g or LIBERO "
    "at full scale.",
    "smoke": "Smoke scale: the smallest run that crosses every stage; its numbers mean nothing.",
    "full": "Full scale.",
}


def render(verdict: Verdict) -> str:
    """The whole text of `decision.txt`."""
    parts = [
        [verdict.token],
        _plain_words(verdict),
        ["THE TREE", *_tree(verdict)],
        ["SUCCESSES", *_successes(verdict)],
        ["PAIRED COMPARISONS on the pickup tasks", *_comparisons(verdict)],
        *([["HOW FAR THE PICKUP CAME on the pickup tasks", *_progress(verdict)]] if _has_progress(verdict) else []),
        ["WHAT THIS IS WORTH", *_worth(verdict)],
        ["WORLD PATH", *_world_paths(verdict)],
        ["NEXT", *_next(verdict)],
    ]
    lines = [line for part in parts for line in (*part, "")]
    return "".join(f"{line}\n" for long in lines[:-1] for line in _wrap(long))


def _wrap(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line.rstrip()]
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(line.strip(), WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _roles(verdict: Verdict) -> dict[str, str]:
    settings = verdict.settings
    return {"E0": settings.baseline, "E2": settings.world, "A": settings.wrist, "C": settings.fusion or "fusion"}


# ---- what it says ---------------------------------------------------------------------------------------------------


def _plain_words(verdict: Verdict) -> list[str]:
    settings = verdict.settings
    lines = [
        MEANING[verdict.token].format(**_roles(verdict)),
        SCALES[verdict.scale],
        f"{len(verdict.tasks)} of the suite's {verdict.suite_tasks} tasks were run: {_list(sorted(verdict.tasks))}. "
        f"Pickup tasks, which decide: {_list(settings.pickup_tasks)}.",
    ]
    inactive = [option.name for option in verdict.options if option.world_inactive]
    if inactive:
        lines.append(
            f"world path inactive: {_list(inactive)}. |tanh(gate)| or the change of the actions is below "
            f"{settings.min_world_effect:g}, so the result says nothing about predicted futures."
        )
    lines += [
        f"{option.name}'s Prophet does not beat repeating the last latent on held-out episodes (cosine "
        f"{option.foresight.mean.prophet:.3f} against {option.foresight.mean.copy_last:.3f}): it predicts no future."
        for option in verdict.options
        if option.foresight and not option.foresight.beats_copy_last
    ]
    baseline = verdict.option(settings.baseline)
    lines += [
        f"{blind.name} ({blind.label}) sees no picture and does as well as {baseline.name} "
        f"({_count(blind.pickup)} against {_count(baseline.pickup)}): these initial states cannot tell cameras apart."
        for blind in verdict.options
        if blind.blind_as_good
    ]
    return lines


def _tree(verdict: Verdict) -> list[str]:
    """The tree, the way taken marked by arrows, and the score of each option in it."""
    settings, (e0, e2, a, c) = verdict.settings, _roles(verdict).values()
    helps, hurts = verdict.branch == "success", verdict.branch == "wrist"
    floor = f"{100 * settings.min_baseline_success:g}%"
    rows = [
        (True, f"{e0} and {e2} on the pickup tasks: {_score(verdict, e0)}, {_score(verdict, e2)}", None),
        (True, f"├─ {e0} below {floor}", "VOID_BASELINE_TOO_WEAK"),
        (helps, f"├─ {e2} ≥ {e0}: world helps or is neutral", None),
        (helps, f"│  ├─ {c} > {e2}", "ADOPT_FUSION"),
        (helps, f"│  └─ {c} not above {e2}, or not run", "WORLD_HELPS_OR_NEUTRAL"),
        (hurts, f"└─ {e2} < {e0}: the wrist experiment", None),
        (hurts, f"   ├─ {c} ≥ {e0} and {c} > {a}", "ADOPT_FUSION"),
        (hurts, f"   ├─ {a} ≥ {e0}", "ADOPT_WRIST"),
        (hurts, f"   ├─ no retrained wrist option ≥ {e0}", "KEEP_BASELINE"),
        (hurts, f"   └─ neither {a} nor {c} was run", "WRIST_EXPERIMENT_PENDING"),
    ]
    lines = []
    for reached, text, token in rows:
        taken = reached and token in (None, verdict.token)
        lines.append(f"{'=>' if taken else '  '} {text:<52}{token or ''}".rstrip())
    lines.append(f"   {_score(verdict, a)}; {_score(verdict, c)}")
    if helps and a in verdict.scheduled:
        lines.append(f"   {a} was run beside the tree (wrist_experiment: {settings.wrist_experiment})")
    return lines


def _successes(verdict: Verdict) -> list[str]:
    rows = []
    for option in verdict.options:
        borrowed = f" (checkpoint of {option.checkpoint_of})" if option.checkpoint_of else ""
        rows.append([f"{option.name}: {option.label}{borrowed}"])
        rows += [_rate_row(f"task {task}", rate) for task, rate in sorted(option.tasks.items())]
        rows.append(_rate_row("pickup tasks", option.pickup))
        if set(verdict.tasks) != set(verdict.settings.pickup_tasks):
            rows.append(_rate_row("all tasks", option.all_tasks))
    header = ["", "successes", "rate", f"{_confidence(verdict)} interval (Wilson)"]
    instructions = [f"Task {task}: {instruction}" for task, instruction in sorted(verdict.tasks.items())]
    return [*instructions, *_table(header, rows)]


def _rate_row(label: str, rate: Rate) -> list[str]:
    return [f"  {label}", _count(rate), f"{100 * rate.rate:.1f}%", _percents(rate.interval)]


def _comparisons(verdict: Verdict) -> list[str]:
    header = ["1st : 2nd", "both", "1st", "2nd", "none", "difference", "interval", "p", "p worse"]
    rows = [
        [
            f"{c.option} : {c.reference}",
            *(str(n) for n in (c.both, c.only_option, c.only_reference, c.neither)),
            f"{100 * c.difference:+.1f}",
            _percents(c.interval, sign="+"),
            _p_value(c.p_two_sided),
            _p_value(c.p_worse),
        ]
        for c in verdict.comparisons
    ]
    return [
        *_table(header, rows),
        "Pairs of episodes with the same task, initial state, environment seed and training seed, by who succeeded: "
        "both, only the 1st, only the 2nd, none. Difference: success rate of the 1st minus that of the 2nd in "
        f"percentage points, with Newcombe's paired {_confidence(verdict)} interval. p: McNemar's exact test, "
        "two-sided; p worse: one-sided, the 1st is worse. Not corrected for the number of comparisons.",
    ]


def _has_progress(verdict: Verdict) -> bool:
    return all(option.progress for option in verdict.options)


def _progress(verdict: Verdict) -> list[str]:
    """Where each option's episodes ended, and who came further on the same episode."""
    stages = ("none", *STAGES)
    rows = [
        [option.name, *(str(progress.furthest[stage]) for stage in stages)]
        + [str(progress.grasp_attempts), str(progress.slips)]
        for option in verdict.options
        if (progress := option.progress)
    ]
    pairs = [
        [f"{c.option} : {c.reference}", *(str(count) for count in c.further), _p_value(c.p_further)]
        for c in verdict.comparisons
    ]
    return [
        *_table(["", *stages, "attempts", "slips"], rows),
        "Episodes by the furthest stage they reached (a bowl pushed onto the plate was not placed), and "
        "the attempts at grasping and the slips in all of them.",
        "",
        *_table(["1st : 2nd", "1st further", "2nd further", "equally far", "p"], pairs),
        "Pairs as above, by who came further. p: exact sign test, two-sided, not corrected for their number.",
    ]


def _worth(verdict: Verdict) -> list[str]:
    settings = verdict.settings
    main = _comparison(verdict, settings.world)
    adopted = {"ADOPT_WRIST": settings.wrist, "ADOPT_FUSION": settings.fusion}.get(verdict.token)
    discordant = main.only_option + main.only_reference
    lines = [
        f"The branch compares two counts. If {main.option} and {main.reference} were equally good, {discordant} pairs "
        f"on which they differ would still put {main.option} below {main.reference} "
        f"{100 * main.chance_of_worse_if_equal:.0f}% of the time.",
        _told_apart(main),
    ]
    lines += [_told_apart(_comparison(verdict, adopted))] if adopted else []
    lines.append(_against_margin(main, settings.margin))
    lines += [_positive_control(verdict, option) for option in verdict.options if option.eyes_shut]
    lines.append("By the trained artifacts themselves, the options differ only in what defines them (fairness.json).")
    lines += [_own_schedule(option) for option in verdict.options if option.learning_schedule]
    states = f"{verdict.initial_states} initial states a task"
    if len(verdict.training_seeds) == 1:
        return [*lines, f"One training seed, {states}: this compares checkpoints, not methods."]
    return [
        *lines,
        f"{len(verdict.training_seeds)} training seeds on the same {states}: episodes that share an initial state are "
        "not independent, but the tests and intervals count them as if they were and so look too certain.",
    ]


def _comparison(verdict: Verdict, option: str) -> Comparison:
    pair = (option, verdict.settings.baseline)
    return next(c for c in verdict.comparisons if (c.option, c.reference) == pair)


def _told_apart(comparison: Comparison) -> str:
    low, high = comparison.interval
    verb = "tell" if low > 0 or high < 0 else "do not tell"
    return (
        f"{comparison.option} minus {comparison.reference}: {100 * comparison.difference:+.1f} points, interval "
        f"{_percents(comparison.interval, sign='+')}: these episodes {verb} the two apart."
    )


def _positive_control(verdict: Verdict, blind: OptionResult) -> str:
    """Whether these episodes show an effect that is there for certain."""
    comparison = _comparison(verdict, blind.name)
    seen = comparison.p_worse < 1 - verdict.settings.confidence
    said = "is judged worse" if seen else "is not judged worse: an effect as large as losing sight would go unseen"
    return (
        f"Positive control: {blind.name}, {comparison.reference} with its eyes shut, {said} "
        f"({100 * comparison.difference:+.1f} points, one-sided p {_p_value(comparison.p_worse)})."
    )


def _own_schedule(option: OptionResult) -> str:
    values = ", ".join(f"{key} {value:g}" for key, value in sorted(option.learning_schedule.items()))
    return f"{option.name} was trained with a learning schedule of its own ({values}): a difference may come from that."


def _against_margin(comparison: Comparison, margin: float) -> str:
    """What the interval says about the declared margin; the branch does not depend on it."""
    low, high = comparison.interval
    if low > -margin:
        said = f"{comparison.option} loses less than that"
    elif high < -margin:
        said = f"{comparison.option} loses more than that"
    else:
        said = f"whether {comparison.option} loses more or less than that is open"
    return f"Margin of non-inferiority {100 * margin:g} points: by the interval, {said}."


def _world_paths(verdict: Verdict) -> list[str]:
    rows = [
        [
            f"{option.name} {seed}",
            f"{path.gate:.2e}",
            f"{path.action_change_rms:.2e}",
            f"{path.world_loss:.4f}",
            f"{path.copy_last:.4f}",
            "world path inactive" if option.world_inactive else "",
        ]
        for option in verdict.options
        for seed, path in sorted((option.world or {}).items())
        if not option.checkpoint_of
    ]
    header = ["", "|tanh(gate)|", "action change (RMS)", "world loss", "copy-last loss", ""]
    if not rows:
        return ["No evaluated option has one."]
    return [
        *_table(header, rows),
        "Measured on training frames; losses are masked cosine distances of latents.",
        "",
        *_foresights(verdict),
    ]


def _foresights(verdict: Verdict) -> list[str]:
    """How well each Prophet predicts what it was not trained on."""
    rows = [
        [
            f"{option.name}'s Prophet",
            *(f"{getattr(view.mean, name):.4f}" for name in PREDICTORS),
            f"{view.episodes_better} of {view.episodes}",
            "" if view.beats_copy_last else "does not beat copy-last",
        ]
        for option in verdict.options
        if (view := option.foresight)
    ]
    if not rows:
        return ["No episode was held out (demonstrations.held_out_per_task): how well Prophet predicts is not known."]
    header = ["", "cosine", "copy-last's", "mean change's", "better in", ""]
    return [
        *_table(header, rows),
        "Mean cosine with the true latents of held-out episodes, beside that of the last latent and of the last latent "
        "plus the mean change; and in how many of these episodes Prophet is better than the last latent.",
    ]


def _next(verdict: Verdict) -> list[str]:
    lines = [NEXT[verdict.token].format(**_roles(verdict))]
    if verdict.token == "WORLD_HELPS_OR_NEUTRAL" and verdict.option(verdict.settings.fusion):
        lines = ["Stay with {E2}: {C}, which sees both cameras, does not improve on it.".format(**_roles(verdict))]
    lines += [
        f"Find out why the world path of {option.name} is inactive."
        for option in verdict.options
        if option.world_inactive
    ]
    if any(option.blind_as_good for option in verdict.options):
        lines.append("Evaluate on initial states that vary more: on these a policy needs no eyes.")
    if verdict.scale != "full":
        lines.append("Run the experiment at full scale before believing any of this.")
    return lines


# ---- how it says it -------------------------------------------------------------------------------------------------


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, the first to the left, the others to the right; a row of one cell spans."""
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows if len(row) == len(header)) for i in range(len(header))]
    return [_table_row(row, widths) if len(row) == len(header) else row[0] for row in rows]


def _table_row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    return "  ".join(cells).rstrip()


def _score(verdict: Verdict, name: str) -> str:
    option = verdict.option(name)
    return f"{name} {_count(option.pickup)}" if option else f"{name} not run"


def _count(counts: Counts) -> str:
    return f"{counts.successes}/{counts.episodes}"


def _percents(interval: Interval, sign: str = "") -> str:
    low, high = interval
    return f"[{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 5e-5 else "<0.0001"


def _confidence(verdict: Verdict) -> str:
    return f"{100 * verdict.settings.confidence:g}%"


def _list(items: Iterable) -> str:
    return ", ".join(str(item) for item in items)
