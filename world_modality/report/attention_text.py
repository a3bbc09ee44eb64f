"""The text about attention that people read: `attention.txt`, a pure function of the report in `attention.json`.

No line is wider than `WIDTH` columns.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from world_modality.examination.attention_patterns import (
    CONFIDENCE,
    PHASES,
    AttentionReport,
    Difference,
    PairedPatterns,
    Pattern,
    Spread,
)

WIDTH = 100
SHOWN = 8  # columns of a table; of more frames, heads or steps, this many are shown, evenly spaced
SHUT = 1e-3  # below this |tanh(gate)|, attention hardly reaches the actions


def render(report: AttentionReport) -> str:
    """The whole text of `attention.txt`, no line wider than `WIDTH`."""
    spec = report.patterns[0].table
    parts = [
        ["ATTENTION TO THE PREDICTED FUTURE", "", *_plain_words(report)],
        [
            "WHERE IT GOES",
            f"Share [%] of the attention that goes to the frame k frames ahead ({100 / spec.horizon:.1f} would be "
            f"even), over the first {spec.actions} actions of each chunk, all heads and denoising steps; every episode "
            "counts equally. Mean k: the frame attended to on average. Evenness: entropy of a head's attention "
            "relative to even attention (1: even, 0: all on one frame).",
            *_table(*_overall(report)),
        ],
        ["OVER THE COURSE OF AN EPISODE", *_table(*_phases(report))],
        ["BY DENOISING STEP (0 is the noisiest)", *_table(*_groups(report, "denoise_steps", "step"))],
        ["BY HEAD", *_table(*_groups(report, "heads", "head"))],
        [
            "WHAT IS ATTENDED TO, AND HOW MUCH OF IT REACHES THE ACTIONS",
            "Root mean square of the memory k frames ahead, in standard deviations of the latents; tanh(gate) scales "
            "what is attended to before it is added.",
            *_table(*_memory(report)),
        ],
    ]
    lines = [line for part in parts for line in (*part, "")]
    return "".join(f"{line}\n" for long in lines[:-1] for line in _wrap(long))


def _plain_words(report: AttentionReport) -> list[str]:
    lines = [_description(pattern) for pattern in report.leading]
    lines += [_shut(pattern) for pattern in report.leading if _is_shut(pattern)]
    if not report.differences:
        return [*lines, _open_question(report)]
    return [*lines, *(_comparison(report, difference) for difference in report.differences), _caution(report)]


def _description(pattern: Pattern) -> str:
    spread = pattern.overall
    how = "evenly" if spread.evenness > 0.99 else "a little unevenly" if spread.evenness > 0.9 else "selectively"
    ranked = sorted(range(len(spread.shares)), key=lambda k: -spread.shares[k])
    most, least = (f"k={k + 1} ({100 * spread.shares[k]:.1f}%)" for k in (ranked[0], ranked[-1]))
    who = f"{_place(pattern.table.where)} {pattern.name} attends {how} (evenness {spread.evenness:.3f})"
    return f"{who}, most to {most}, least to {least}."


def _place(where: str) -> str:
    return {"rollout": "At rollout", "training": "On training frames"}[where]


def _open_question(report: AttentionReport) -> str:
    names = {p.table.option: p.name for p in report.leading}
    run = [names[option] for option in (report.world, report.wrist) if option in names]
    said = f"Of {report.world} and {report.wrist}, {f'only {run[0]}' if len(run) == 1 else 'neither'} was measured"
    if len(run) == 2:
        said = f"{run[0]} and {run[1]} were not measured in the same place"
    return f"{said}: whether the wrist camera changes the attention is open."


def _is_shut(pattern: Pattern) -> bool:
    return max(map(abs, pattern.gates.values())) < SHUT


def _shut(pattern: Pattern) -> str:
    return f"The gate of {pattern.name} is shut (|tanh(gate)| below {SHUT:g}): hardly any of this reaches its actions."


def _comparison(report: AttentionReport, difference: PairedPatterns) -> str:
    where, k, even = difference.where, difference.mean_k, difference.evenness
    wrist, world = (report.pattern(option, where).name for option in (report.wrist, report.world))
    ways = [
        ("", "to later frames", "to earlier frames")[_sign(k)],
        ("", "more evenly", "more selectively")[_sign(even)],
    ]
    said = " and ".join(way for way in ways if way)
    conclusion = (
        f"{wrist} attends {said} than {world}"
        if said
        else f"mean k and evenness do not distinguish {wrist} from {world}"
    )
    return (
        f"{_place(where)}, {difference.pairs} paired episodes: {conclusion}. Mean k {_signed(k, 2)}, evenness "
        f"{_signed(even, 4)}; {100 * difference.moved:.1f}% of the attention goes elsewhere."
    )


def _sign(difference: Difference) -> int:
    """The sign of a difference if its interval excludes 0; otherwise 0."""
    low, high = difference.interval or (0.0, 0.0)
    return int(low > 0) - int(high < 0)


def _signed(difference: Difference, digits: int) -> str:
    if difference.interval is None:
        return f"{difference.mean:+.{digits}f}"
    low, high = difference.interval
    interval = f"[{low:+.{digits}f}, {high:+.{digits}f}]"
    return f"{difference.mean:+.{digits}f} ({100 * CONFIDENCE:g}% interval {interval})"


def _caution(report: AttentionReport) -> str:
    seeds = {len(p.gates) for p in report.patterns if p.table.option in (report.world, report.wrist)}
    if seeds == {1}:
        return "One training seed: this compares two checkpoints; two seeds of one option may differ as much."
    return "Episodes of one checkpoint are not independent, so the intervals look too certain."


# ---- its tables -----------------------------------------------------------------------------------------------------

Rows = tuple[list[str], list[list[str]]]  # header and rows; a row of one cell spans the table


def _overall(report: AttentionReport) -> Rows:
    rows = []
    for name in report.options:
        patterns = [p for p in report.patterns if p.table.option == name]
        rows.append([patterns[0].name])
        rows += [[f"  {p.table.where}", *_cells(p.overall), str(p.episodes)] for p in patterns]
    return [*_header(report), "episodes"], rows


def _phases(report: AttentionReport) -> Rows:
    rows = []
    for pattern in report.leading:
        rows.append([f"{pattern.name}, {pattern.table.where}"])
        named = zip(PHASES, pattern.phases, strict=True)
        rows += [[f"  {phase}", *_cells(spread)] for phase, spread in named if spread is not None]
    return _header(report), rows


def _header(report: AttentionReport) -> list[str]:
    return ["", *(f"k={k + 1}" for k in _shown(report.patterns[0].table.horizon)), "mean k", "evenness"]


def _cells(spread: Spread) -> list[str]:
    shares = (f"{100 * spread.shares[k]:.1f}" for k in _shown(len(spread.shares)))
    return [*shares, f"{spread.mean_k:.2f}", f"{spread.evenness:.3f}"]


def _groups(report: AttentionReport, field: str, word: str) -> Rows:
    """Mean k and evenness of each denoising step or head."""
    rows, patterns = [], report.leading
    shown = _shown(min(len(getattr(pattern, field)) for pattern in patterns))
    for pattern in patterns:
        spreads = [getattr(pattern, field)[number] for number in shown]
        rows.append([f"{pattern.name}, {pattern.table.where}"])
        rows.append(["  mean k", *(f"{spread.mean_k:.2f}" for spread in spreads)])
        rows.append(["  evenness", *(f"{spread.evenness:.3f}" for spread in spreads)])
    return ["", *(f"{word} {number}" for number in shown)], rows


def _memory(report: AttentionReport) -> Rows:
    shown = _shown(report.patterns[0].table.horizon)
    rows = []
    for pattern in report.patterns:
        gates = ", ".join(f"{gate:+.2e}" for gate in pattern.gates.values())
        if pattern.table.option not in {p.table.option for p in report.patterns[: report.patterns.index(pattern)]}:
            rows.append([f"{pattern.name}, tanh(gate) {gates}"])
        rows.append([f"  {pattern.table.where}", *(f"{pattern.memory_norm[k]:.2f}" for k in shown)])
    return ["", *(f"k={k + 1}" for k in shown)], rows


def _shown(count: int) -> list[int]:
    """Which of `count` things a table shows."""
    if count <= SHOWN:
        return list(range(count))
    return [round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, the first left-aligned, the rest right-aligned; a row of one cell spans."""
    rows = [header, *rows]
    widths = [max(len(row[i]) for row in rows if len(row) > 1) for i in range(len(header))]
    cells = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=False))] for row in rows
    ]
    return ["  ".join(row).rstrip() for row in cells]


def _wrap(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line.rstrip()]
    return textwrap.wrap(line.strip(), WIDTH, break_on_hyphens=False)
