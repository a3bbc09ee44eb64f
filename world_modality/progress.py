"""Progress lines that people follow in a terminal and find again in a rule's log."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

RESUMED = re.compile(r": goes on after step \d+, up to which it took (\d+) s$", re.MULTILINE)


def report_resumed(stage: str, step: int, seconds: float) -> None:
    """Say that a stage goes on from a saved state, and how long the work up to that state took."""
    print(f"{stage}: goes on after step {step}, up to which it took {seconds:.0f} s", file=sys.stderr, flush=True)


def seconds_before(log: str) -> int:
    """How long the work took that a stage went on from, as its log says; 0 if it began at its beginning."""
    return int((RESUMED.findall(log) or [0])[-1])


class Progress:
    """Print `stage  done/total  note  time left`, at most once every `every` seconds and always at the end."""

    def __init__(self, stage: str, total: int, done: int = 0, every: float = 10.0):
        self.stage, self.total, self.every = stage, total, every
        self.started_at, self.started_from, self.printed_at = time.monotonic(), done, 0.0

    def update(self, done: int, note: str | Callable[[], str] = "") -> None:
        """Say how far it is. A note that takes long to make is given as a function, called only for a printed line."""
        now = time.monotonic()
        if done < self.total and now - self.printed_at < self.every:
            return
        self.printed_at = now
        note = note if isinstance(note, str) else note()
        print(f"{self.stage:<28} {done:>5}/{self.total}  {note:<38} {self._left(done, now)}".rstrip(), file=sys.stderr)
        sys.stderr.flush()

    def _left(self, done: int, now: float) -> str:
        if done >= self.total:
            return f"done in {_minutes(now - self.started_at)}"
        if done <= self.started_from:
            return ""
        return f"{_minutes((now - self.started_at) / (done - self.started_from) * (self.total - done))} left"


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
