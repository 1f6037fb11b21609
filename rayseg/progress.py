"""How far a job is, for whoever waits: a line a minute, or one that is rewritten on a terminal.

What works enters an `Activity`; a thread of the command line shows the innermost one on stderr.
Without that thread, as in a library or a test, nothing is shown.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

LINE_SECONDS = 50.0
"""Between two lines where the output is no terminal."""
LOOK_SECONDS = 1.0
"""Between two looks at what is done; on a terminal the line is rewritten so often."""
WORTH_A_LINE = 10.0
"""Seconds after which the end of something has a line."""


@dataclass
class Activity:
    """Something that takes a while.

    Attributes:
        label: names it.
        total: of what is to be done; 0 where that is not known.
        unit: of what is counted, in the singular.
        look: called now and then to learn how far it is; may set `done`, `note` and `rate`.
        done: of the total so far.
        note: what else is to be seen, such as a loss.
        rate: units a second; 0 takes what was done since the first of `done`.
    """

    label: str
    total: int = 0
    unit: str = ""
    look: Callable[[Activity], None] | None = None
    done: int = 0
    note: str = ""
    rate: float = 0.0
    began: float = field(default_factory=time.monotonic)
    _first: tuple[int, float] = (0, 0.0)

    def update(self, number: int) -> None:
        """So many more are done; the first ones are shown at once, with what is left."""
        self.done += number
        if not self._first[0]:
            self._first = (self.done, time.monotonic())
            _STAGE.show(self)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    @property
    def pace(self) -> float:
        """Units a second; 0 while that is not known."""
        more, since = self.done - self._first[0], time.monotonic() - self._first[1]
        if self.rate or (more and since > 0):
            return self.rate or more / since
        return self.done / max(self.seconds, 1e-9)

    @property
    def line(self) -> str:
        """How far it is, in words."""
        note = f", {self.note}" if self.note else ""
        if not self.total:
            return f"{self.label}: {in_words(self.seconds)} so far{note}"
        counted = f"{self.label}: {self.done} of {self.total} {self.unit}s"
        if not self.pace or self.done >= self.total:
            return f"{counted} after {in_words(self.seconds)}{note}"
        return f"{counted}, {pace_in_words(self.pace, self.unit)}, {self.left} left{note}"

    @property
    def left(self) -> str:
        """How long the rest will take, in words."""
        return in_words((self.total - self.done) / self.pace)


def in_words(seconds: float) -> str:
    """A duration, such as 90 s, 7 min or 2 h 5 min."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def pace_in_words(pace: float, unit: str) -> str:
    """Units a second, or seconds a unit where that is slow."""
    article = "an" if unit[0] in "aeiou" else "a"
    return f"{pace:.3g} {unit}s/s" if pace >= 0.1 else f"{1 / pace:.3g} s {article} {unit}"


class _Stage:
    """What is shown of the activities of this process."""

    def __init__(self) -> None:
        self.activities: list[Activity] = []
        self.speaks = self.prints = False
        self.lock = threading.RLock()
        self.last = time.monotonic()
        self.open_line = False

    def write(self, text: str, again: bool = False) -> None:
        """A line to stderr; `again` rewrites it the next time."""
        with self.lock, suppress(OSError):  # nobody reads it
            self.clear()
            print(text, end="" if again else "\n", file=sys.stderr, flush=True)
            self.open_line, self.last = again, time.monotonic()

    def clear(self) -> None:
        """Takes away a line that is to be rewritten."""
        with self.lock, suppress(OSError):
            if self.open_line:
                print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self.open_line = False

    def show(self, shown: Activity) -> None:
        """Says how far it is."""
        if not self.speaks:
            return
        if sys.stderr.isatty():
            self.write(shown.line[: shutil.get_terminal_size().columns - 1], again=True)
        else:
            self.write(shown.line)

    def look(self) -> None:
        """Looks at the innermost activity, and shows it when it is time."""
        with self.lock:
            inner = self.activities[-1] if self.activities else None
        if inner is None:
            return
        begun = inner.done > 0
        if inner.look:
            inner.look(inner)
        is_first = inner.done > 0 and not begun
        if is_first or sys.stderr.isatty() or time.monotonic() - self.last >= LINE_SECONDS:
            self.show(inner)


_STAGE = _Stage()


@contextmanager
def speaking(job: str, results: bool = True) -> Iterator[None]:
    """Shows on stderr what goes on within, at least once a minute.

    Args:
        job: names it.
        results: what jobs find is printed on stdout as they end.
    """
    stopped = threading.Event()

    def watch() -> None:
        while not stopped.wait(LOOK_SECONDS):
            _STAGE.look()

    thread = threading.Thread(target=watch, daemon=True)
    _STAGE.speaks, _STAGE.prints, _STAGE.last = True, results, time.monotonic()
    thread.start()
    try:
        with activity(job):
            yield
    finally:
        _STAGE.speaks = _STAGE.prints = False
        stopped.set()
        thread.join()
        _STAGE.clear()


@contextmanager
def activity(
    label: str, total: int = 0, unit: str = "", look: Callable[[Activity], None] | None = None
) -> Iterator[Activity]:
    """Is shown while it lasts; see `Activity`."""
    entered = Activity(label, total, unit, look)
    with _STAGE.lock:
        _STAGE.activities.append(entered)
    try:
        yield entered
        if total and entered.seconds > WORTH_A_LINE:
            announce(f"{label}: {total} {unit}s in {in_words(entered.seconds)}")
    finally:
        with _STAGE.lock:
            _STAGE.activities.remove(entered)


def announce(*lines: str) -> None:
    """Says what happens or is about to, on stderr."""
    for line in lines if _STAGE.speaks else ():
        _STAGE.write(line)


def tell_results(lines: list[str]) -> int:
    """Prints what a job found on stdout, where progress is shown at all; how many lines."""
    if not _STAGE.prints or not lines:
        return 0
    with _STAGE.lock:
        _STAGE.clear()
        with suppress(BrokenPipeError):
            print(*lines, sep="\n", flush=True)
        _STAGE.last = time.monotonic()
    return len(lines)
