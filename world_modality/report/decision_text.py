"""The text a person reads: `decision.txt`, a pure function of the `Verdict` in `decision.json`.

Line 1 is the token alone; line 2 says what the comparison behind the branch is worth. Nothing in the text depends on
when, where or how fast the run was made, and no line is wider than `WIDTH` columns.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from world_modality.decision.durations import Durations
from world_modality.decision.effort import Effort
from world_modality.decision.judgement import Comparison, Judgement
from world_modality.decision.statistics import Interval, interval_text
from world_modality.decision.tree import Counts, OptionResult, Rate, Verdict
from world_modality.examination.foresight import PREDICTORS
from world_modality.experiment.suites import CONTROL_FREQUENCY
from world_modality.simulation.pickup import STAGES

WIDTH = 100

MEANING = {
    "VOID_BASELINE_TOO_WEAK": "{E0} itself succeeds too rarely for a comparison with it to mean anything.",
    "WORLD_HELPS_OR_NEUTRAL": "{E2} does at least as well as {E0} on pickup: the world modality helps or is neutral.",
    "ADOPT_FUSION": "{C}, which sees both cameras, is the option to adopt.",
    "ADOPT_WRIST": "{E2} does worse than {E0} on pickup, and {A}, which predicts the wrist camera, does not.",
    "KEEP_BASELINE": "{E2} does worse than {E0} on pickup, and so does every retrained wrist option that was run.",
    "WRIST_EXPERIMENT_PENDING": "{E2} does worse than {E0} on pickup, and the wrist experiment was not run.",
}
NEXT = {
    "VOID_BASELINE_TOO_WEAK": "Train {E0} until it works (more demonstrations, more steps), then run everything again.",
    "WORLD_HELPS_OR_NEUTRAL": "Consider both cameras for further gains: decision.on_success with a fusion option.",
    "ADOPT_FUSION": "Use {C}; confirm it against {E0} with more initial states and more training seeds.",
    "ADOPT_WRIST": "Use {A}; confirm it against {E0} with more initial states and more training seeds.",
    "KEEP_BASELINE": "Keep {E0}.",
    "WRIST_EXPERIMENT_PENDING": "Run the wrist experiment ({A}) when the budget allows.",
}
ADVICE = {
    "keep_baseline": "keep {E0}",
    "follow_branch": "follow the branch",
    "extend": "evaluate more",
}
RULES = {
    "VOID_BASELINE_TOO_WEAK": "{E0} below decision.min_baseline_success",
    "WORLD_HELPS_OR_NEUTRAL": "{E2} ≥ {E0}, and {C} not run or not above {E2}",
    "ADOPT_FUSION": "{E2} ≥ {E0} and {C} > {E2}; or {E2} < {E0}, {C} ≥ {E0} and {C} > {A}",
    "ADOPT_WRIST": "{E2} < {E0}, {A} ≥ {E0}, and {C} not run, below {E0} or not above {A}",
    "KEEP_BASELINE": "{E2} < {E0}, and no retrained wrist option that was run ≥ {E0}",
    "WRIST_EXPERIMENT_PENDING": "{E2} < {E0}, and neither {A} nor {C} was run",
}
SCALES = {
    "embedded": "Embedded scale: this shows that the pipeline works. It says nothing about SmolVLA, V-JEPA 2 ViT-g or "
    "LIBERO at full scale.",
    "smoke": "Smoke scale: the smallest run that goes through every stage. Its numbers mean nothing.",
    "full": "Full scale.",
}


def render(verdict: Verdict) -> str:
    """The whole text of `decision.txt`."""
    parts = [
        [verdict.token, _headline(verdict)],
        _plain_words(verdict),
        ["THE TREE", *_tree(verdict)],
        *([["WHAT THE BUDGET ALLOWED", *verdict.plan.summary()]] if verdict.plan.left_out else []),
        ["SUCCESSES", *_successes(verdict)],
        ["PAIRED COMPARISONS on the pickup tasks", *_comparisons(verdict)],
        *([["HOW FAR THE PICKUP CAME on the pickup tasks", *_progress(verdict)]] if _has_progress(verdict) else []),
        ["TIME TO SUCCESS on the pickup tasks", *_durations(verdict)],
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


def _headline(verdict: Verdict) -> str:
    """What the comparison behind the branch is worth, in one line."""
    primary, worth, settings = verdict.primary, verdict.worth, verdict.settings
    judged = primary.success
    correlation = "none" if primary.correlation is None else f"{primary.correlation:.2f}"
    line = (
        f"{judged.conclusion}  {primary.option} : {primary.reference}  branch {verdict.branch}  bare rule errs "
        f"{100 * worth.bare_rule_error:.0f}% (N {worth.pairs:.0f}, r {correlation})"
    )
    advice = ADVICE[settings.when_inconclusive].format(**_roles(verdict))
    line += f"  {verdict.stopped(primary)}" if settings.stopping == "adaptive" else ""
    return f"{line}  default: {advice}" if judged.conclusion == "INCONCLUSIVE" else line


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
            f"{settings.min_world_effect:g}: what the path adds hardly reaches the actions, so the result says "
            "nothing about it."
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
        f"({_count(blind.pickup)} against {_count(baseline.pickup)}): these initial states cannot show which camera is "
        "better."
        for blind in verdict.options
        if blind.blind_as_good
    ]
    return lines


def _tree(verdict: Verdict) -> list[str]:
    """The tree with the path taken marked by arrows, and the score of each option in it."""
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
    lines.append(f"   {verdict.token}: {RULES[verdict.token].format(**_roles(verdict))}")
    if helps and a in verdict.scheduled:
        lines.append(f"   {a} was run although this branch does not ask for it (wrist_experiment: always)")
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
    header = ["", "successes", "rate", f"{_confidence(verdict)} interval (Wilson)", "(Clopper-Pearson)"]
    instructions = [f"Task {task}: {instruction}" for task, instruction in sorted(verdict.tasks.items())]
    return [*instructions, *_table(header, rows)]


def _rate_row(label: str, rate: Rate) -> list[str]:
    return [f"  {label}", _count(rate), f"{100 * rate.rate:.1f}%", _percents(rate.interval), _percents(rate.exact)]


def _comparisons(verdict: Verdict) -> list[str]:
    margin = verdict.settings.margin
    counts = [
        [
            _pair(c),
            *(str(n) for n in (c.both, c.only_option, c.only_reference, c.neither)),
            "-" if c.correlation is None else f"{c.correlation:+.2f}",
        ]
        for c in verdict.comparisons
    ]
    judged = [
        [_pair(c), f"{100 * c.success.difference:+.1f}", *_judged(c.success, margin), *_stopped(verdict, c)]
        for c in verdict.comparisons
    ]
    stopped = ["stopped"] if verdict.settings.stopping == "adaptive" else []
    return [
        *_table(["1st : 2nd", "both", "1st", "2nd", "none", "correlation"], counts),
        "Pairs of episodes with the same task, initial state, seeds of simulator and noise, and training seed, counted "
        "by who succeeded: both, only the 1st, only the 2nd, none. Correlation: phi of the two outcomes.",
        "",
        *_table(["1st : 2nd", "difference", "interval", "p worse", "p margin", "verdict", *stopped], judged),
        *_reading(verdict),
    ]


def _stopped(verdict: Verdict, comparison: Comparison) -> list[str]:
    return [verdict.stopped(comparison)] if verdict.settings.stopping == "adaptive" else []


def _judged(judgement: Judgement, margin: float) -> list[str]:
    """Cells of a judgement: interval, p-values, conclusion."""
    p_values = map(_p_value, (judgement.p_worse, judgement.p_non_inferior))
    return [interval_text(judgement.interval, margin), *p_values, judgement.conclusion]


def _reading(verdict: Verdict) -> list[str]:
    """How to read the table of comparisons."""
    settings, margin = verdict.settings, f"{100 * verdict.settings.margin:g}"
    how = {
        "methods": "Student's t over training seeds and initial states (decision.claim: methods)",
        "fixed": "an exact score test, valid for a number of episodes chosen beforehand (decision.stopping: fixed)",
        "anytime": "e-processes, valid however often one looks and extends (decision.stopping: anytime)",
        "adaptive": "e-processes, looked at after every round of episodes (decision.stopping: adaptive)",
    }
    test = how["methods" if settings.claim == "methods" else settings.stopping]
    stopped = (
        "Stopped: a comparison gets no more episodes once it is settled; at the cap (evaluation.max_episodes); or, if "
        "it is a control, when its reference is not evaluated any further."
    )
    return [
        "Difference: success rate of the 1st minus that of the 2nd in percentage points. p worse: the 1st is worse. "
        f"p margin: the 1st loses less than {margin} points. All by {test}. Interval "
        f"({_confidence(verdict)}, or more where corrected): the differences that this test does not reject.",
        f"So the verdict is read off the interval. NON_INFERIOR: it lies above -{margin}. INFERIOR: not that, and it "
        f"lies below 0. INCONCLUSIVE: neither. {_corrected(verdict)}",
        *([stopped] if settings.stopping == "adaptive" else []),
    ]


def _corrected(verdict: Verdict) -> str:
    families = {
        family: [_pair(c) for c in verdict.comparisons if c.family == family] for family in ("adoption", "controls")
    }
    several = [pairs for pairs in families.values() if len(pairs) > 1]
    if not several:
        return "Nothing needed a correction for the number of comparisons."
    named = "; ".join(_list(pairs) for pairs in several)
    return f"P-values and intervals are corrected for their number (Holm) among: {named}."


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
        [_pair(c), *map(str, (judged.wins, judged.losses, judged.ties)), *_judged(judged, verdict.settings.margin)]
        for c in verdict.comparisons
        if (judged := c.progress)
    ]
    return [
        *_table(["", *stages, "attempts", "slips"], rows),
        "Episodes by the furthest stage they reached (a bowl that was pushed onto the plate was not placed), and how "
        "many grasps they attempted and how often the object slipped, in all.",
        "",
        *_table(["1st : 2nd", "1st", "2nd", "equal", "interval", "p worse", "p margin", "verdict"], pairs),
        "The same pairs by who came further, judged by the same test. Interval and margin are of the share of pairs in "
        "which the 1st came further minus the share in which the 2nd did.",
    ]


def _durations(verdict: Verdict) -> list[str]:
    """How soon the options succeed, in control steps and in seconds."""
    rows = [
        [_pair(c), f"{found.option:.1f}", f"{found.reference:.1f}"]
        + [text for unit in (1, CONTROL_FREQUENCY) for text in _spans(found, unit)]
        for c in verdict.comparisons
        if (found := c.durations)
    ]
    valid = "for the number of pairs chosen beforehand" if verdict.settings.claim == "methods" else "whenever one stops"
    several = any(n > 1 for n in Counter(c.family for c in verdict.comparisons).values())
    together = (
        ", and together with those of the other comparisons that are corrected for their number" if several else ""
    )
    return [
        *_table(["1st : 2nd", "1st", "2nd", "difference", "interval", "seconds", "interval"], rows),
        f"The same pairs by mean control steps until success. A failure counts as the horizon, "
        f"{verdict.primary.durations.horizon} steps, so this also moves with how often an option succeeds. Difference: "
        f"the 1st minus the 2nd; below 0 the 1st is sooner. Interval ({_confidence(verdict)}): it holds {valid}"
        f"{together}.",
        "Only success decides. Progress and time change no verdict on success, no branch, and not when a run stops.",
    ]


def _spans(found: Durations, unit: int) -> list[str]:
    """A difference and its interval; `unit`: steps that make one."""
    digits = 1 if unit == 1 else 2
    low, high = (f"{end / unit:+.{digits}f}" for end in found.interval)
    return [f"{found.difference / unit:+.{digits}f}", f"[{low}, {high}]"]


def _worth(verdict: Verdict) -> list[str]:
    settings = verdict.settings
    lines = [*_power(verdict), _said(verdict.primary, settings.margin)]
    adopted = {"ADOPT_WRIST": settings.wrist, "ADOPT_FUSION": settings.fusion}.get(verdict.token)
    lines += [_said(verdict.comparison(adopted, settings.baseline), settings.margin)] if adopted else []
    lines += [_positive_control(verdict, option) for option in verdict.options if option.eyes_shut]
    lines += [_calibration(verdict, option) for option in verdict.options if option.other_noise]
    lines.append("Fairness audit of the trained artifacts: options differ only in what defines them (fairness.json).")
    lines += [_own_schedule(option) for option in verdict.options if option.learning_schedule]
    most = "up to " if settings.stopping == "adaptive" else ""
    states, seeds = f"{most}{verdict.initial_states} initial states a task", len(verdict.training_seeds)
    if settings.claim == "methods":
        return [
            *lines,
            f"{seeds} training seeds on the same {states}: this compares the methods. The verdicts hold for other "
            "training seeds too.",
        ]
    if seeds == 1:
        return [*lines, f"One training seed, {states}: this compares checkpoints, not methods."]
    return [
        *lines,
        f"{seeds} training seeds on the same {states}: episodes from one initial state are a cluster, and count as "
        f"such. {verdict.primary.success.design_effect:.2f} pairs are worth one independent pair. This compares these "
        f"{seeds} checkpoints of each option. To compare the methods, train more of them.",
    ]


def _power(verdict: Verdict) -> list[str]:
    """What this number of pairs can say at all."""
    settings, worth, main = verdict.settings, verdict.worth, verdict.primary
    option, reference, margin = main.option, main.reference, f"{100 * settings.margin:g}"
    enough = "more than 20000" if worth.pairs_to_settle is None else f"about {worth.pairs_to_settle}"
    power = f"{100 * settings.power:g}%"
    test = ", by a test of a number of pairs chosen beforehand" if settings.stopping == "anytime" else ""
    smallest = f"{100 * worth.smallest_loss:.0f} points" if worth.smallest_loss else "larger than any"
    could = f"The smallest loss that {power} of them call INFERIOR is {smallest}."
    counts = (
        f"The branch compares two counts. With {worth.pairs:.0f} pairs, {100 * worth.discordance:.0f}% of which only "
        f"one option solves, {option} comes out below {reference} in {100 * worth.bare_rule_error:.0f}% of all "
        f"experiments if both are equally good, and does not in {100 * worth.bare_rule_miss:.0f}% if it is {margin} "
        "points worse."
    )
    chances = (
        f"judge equally good options NON_INFERIOR, {100 * worth.inferior_if_margin:.0f}% judge a loss of {margin} "
        f"points INFERIOR, and {100 * worth.inferior_if_twice_margin:.0f}% judge a loss of twice that INFERIOR"
    )
    equals = f"{100 * worth.non_inferior_if_equal:.0f}%"
    if main.success.spread:
        return [
            counts,
            f"With these seeds and states, {equals} of all experiments {chances}. {could}",
            *_seeds(verdict),
        ]
    if settings.stopping == "adaptive":
        return [counts, *_adaptive_power(verdict, f"{equals} of all such runs {chances}. {could}", enough)]
    return [
        counts,
        f"With this many pairs, {equals} of all experiments {chances}{test}. {could} To settle it takes {enough} "
        f"{_unit(main)}: then {power} judge equals NON_INFERIOR, and as many judge a loss of twice the margin INFERIOR."
        f"{_priced(verdict)}",
    ]


def _adaptive_power(verdict: Verdict, chances: str, enough: str) -> list[str]:
    """What a run that looks after every round can say, and at the cap what would settle it."""
    settings, main = verdict.settings, verdict.primary
    pairs_a_state = len(settings.pickup_tasks) * len(verdict.training_seeds)
    first, most = (pairs_a_state * states for states in (verdict.rounds[0], verdict.rounds[-1]))
    lines = [f"The run looks after every {first} pairs and stops after {most} at the latest: {chances}"]
    if verdict.stopped(main) == "cap":
        lines.append(
            f"It stopped at the cap. If the true difference is the observed one, {100 * settings.power:g}% of all runs "
            f"that go on from here are settled at {enough} {_unit(main)}.{_priced(verdict)} "
            f"Raise evaluation.max_episodes ({verdict.rounds[-1]}) and run it again: only the new episodes are rolled "
            "out, and the verdicts hold."
        )
    return lines


def _unit(comparison: Comparison) -> str:
    return "pairs" if comparison.success.design_effect == 1 else "independent pairs"


def _priced(verdict: Verdict) -> str:
    """A sentence that says what so many pairs take; empty where their number is not known, or all are there."""
    effort, adaptive = verdict.effort.by_episodes, verdict.settings.stopping == "adaptive"
    if effort is None or not effort.episodes:
        return ""
    controls = "; controls that go on with them come on top" if adaptive else ""
    return f" That takes {_price(verdict, effort)}{controls}."


def _price(verdict: Verdict, effort: Effort) -> str:
    """Episodes, and minutes where the costs are known."""
    more, in_all = ("", " in all") if verdict.settings.stopping == "fixed" else (" more", "")
    jobs, names = verdict.plan.gpus, f"{verdict.primary.option} and {verdict.primary.reference}"
    count = f"{effort.episodes}{more} episodes of {names}{in_all}"
    if effort.minutes is None:
        return count
    at_a_time = f"{jobs} job{'s' if jobs > 1 else ''} at a time"
    return f"{count}, about {effort.minutes:.0f} minutes with {at_a_time} by experiments/costs.yaml"


def _seeds(verdict: Verdict) -> list[str]:
    """How much the training seeds matter, and whether more of them or more initial states would settle it."""
    spread, worth, power = verdict.primary.success.spread, verdict.worth, f"{100 * verdict.settings.power:g}%"
    effort = verdict.effort
    more = [
        f"about {worth.seeds_to_settle} seeds on these initial states ({_price(verdict, effort.by_seeds)})"
        if worth.seeds_to_settle
        else "",
        f"about {worth.states_to_settle} initial states with these seeds ({_price(verdict, effort.by_episodes)})"
        if worth.states_to_settle
        else "",
    ]
    way = " or ".join(filter(None, more)) or "more than 100 seeds, and more initial states do not replace them"
    return [
        f"From one training seed to another the difference varies by {100 * math.sqrt(spread.seed):.1f} points "
        f"(standard deviation, estimated from {spread.seeds} seeds). {100 * spread.share_of_seeds:.0f}% of the "
        "uncertainty comes from the seeds, the rest from episodes. To judge equals NON_INFERIOR in "
        f"{power} of all experiments takes {way}."
    ]


def _said(comparison: Comparison, margin: float) -> str:
    """What the verdict on a comparison means, in words."""
    option, reference = comparison.option, comparison.reference
    words = {
        "NON_INFERIOR": f"{option} loses less than {100 * margin:g} points to {reference}, if anything",
        "INFERIOR": f"{option} is worse than {reference}",
        "INCONCLUSIVE": f"the pairs show neither that {option} is worse than {reference} nor that it loses less than "
        f"{100 * margin:g} points",
    }
    judged, progress = comparison.success, comparison.progress
    interval = interval_text(judged.interval, margin)
    line = f"{option} minus {reference}: {100 * judged.difference:+.1f} points, interval {interval}: "
    line += f"{words[judged.conclusion]} ({judged.conclusion}"
    if judged.conclusion == "NON_INFERIOR" and judged.interval[1] < 0:
        line += ", though it does lose something"
    return f"{line}; by progress {progress.conclusion})." if progress else f"{line})."


def _positive_control(verdict: Verdict, blind: OptionResult) -> str:
    """Whether these episodes show an effect that certainly exists."""
    comparison = verdict.comparison(blind.name, verdict.settings.baseline)
    judged = comparison.success
    seen = judged.conclusion == "INFERIOR"
    said = "is judged worse" if seen else "is not judged worse: an effect as large as losing sight would go unseen"
    return (
        f"Positive control: {blind.name}, {comparison.reference} with its eyes shut, {said} "
        f"({100 * judged.difference:+.1f} points, p worse {_p_value(judged.p_worse)})."
    )


def _calibration(verdict: Verdict, again: OptionResult) -> str:
    """What chance alone does to a policy compared with itself."""
    comparison = next(c for c in verdict.comparisons if c.option == again.name)
    judged, reference = comparison.success, comparison.reference
    verdict_is = "which is false" if judged.conclusion == "INFERIOR" else "which is not false"
    return (
        f"Calibration: {again.name} is {reference} itself under other noise, and differs from it by "
        f"{100 * judged.difference:+.1f} points in {judged.wins + judged.losses} pairs; it is judged "
        f"{judged.conclusion}, {verdict_is}."
    )


def _own_schedule(option: OptionResult) -> str:
    values = ", ".join(f"{key} {value:g}" for key, value in sorted(option.learning_schedule.items()))
    return f"{option.name} was trained with its own learning schedule ({values}): a difference may come from that."


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
        "Measured on training frames. Losses are masked cosine distances between latents.",
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
        "Mean cosine with the true latents of held-out episodes: Prophet's, that of copying the last latent, and that "
        "of the last latent plus the mean change. Better in: episodes in which Prophet beats the last latent.",
    ]


def _next(verdict: Verdict) -> list[str]:
    settings = verdict.settings
    lines = [NEXT[verdict.token].format(**_roles(verdict))]
    if verdict.token == "WORLD_HELPS_OR_NEUTRAL" and verdict.option(verdict.settings.fusion):
        lines = ["Stay with {E2}: {C}, which sees both cameras, does not improve on it.".format(**_roles(verdict))]
    adopted = {"ADOPT_WRIST": settings.wrist, "ADOPT_FUSION": settings.fusion}.get(verdict.token, settings.world)
    judged = verdict.comparison(adopted, settings.baseline)
    if judged.success.conclusion == "INCONCLUSIVE":
        advice = ADVICE[settings.when_inconclusive].format(**_roles(verdict))
        lines.append(f"But {_pair(judged)} is INCONCLUSIVE, and decision.when_inconclusive says: {advice}.")
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
    """Rows of cells as lines: each column as wide as its widest cell, the first flush left and the others flush right.

    A row of a single cell may be wider than the columns.
    """
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows if len(row) == len(header)) for i in range(len(header))]
    return [_table_row(row, widths) if len(row) == len(header) else row[0] for row in rows]


def _table_row(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
    return "  ".join(cells).rstrip()


def _pair(comparison: Comparison) -> str:
    return f"{comparison.option} : {comparison.reference}"


def _score(verdict: Verdict, name: str) -> str:
    option = verdict.option(name)
    return f"{name} {_count(option.pickup)}" if option else f"{name} not run"


def _count(counts: Counts) -> str:
    return f"{counts.successes}/{counts.episodes}"


def _percents(interval: Interval) -> str:
    low, high = interval
    return f"[{100 * low:.1f}, {100 * high:.1f}]"


def _p_value(p: float) -> str:
    return f"{p:.4f}" if p >= 5e-5 else "<0.0001"


def _confidence(verdict: Verdict) -> str:
    return f"{100 * verdict.settings.confidence:g}%"


def _list(items: Iterable) -> str:
    return ", ".join(str(item) for item in items)
