"""The processes that a process has begotten, of whatever depth; and those alone."""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
AGENTS = ("DashboardAgent", "RuntimeEnvAgent")
PATIENCE_SECONDS = 180.0
"""What Ray leaves ends by itself once it has looked for a head that is gone for a minute."""
LOOKS = 5
"""At what is left that must find nothing, since one alone overlooks whose parent dies meanwhile."""


def adopt_orphans() -> None:
    """What loses its parent becomes a child of this process, and so is found and ended by it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """This process is killed when its parent ends, however that is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(root: int | None = None) -> list[int]:
    """Numbers of the living processes below one, of this process where none is named."""
    parents: dict[int, list[int]] = {}
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(OSError):
            state, parent, threads = _stat(pid)
            if state != "Z" or threads != "1":  # one that has ended may have threads that have not
                parents.setdefault(int(parent), []).append(pid)
    found, waiting = [], [root or os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def titled(kind: str, root: int) -> list[int]:
    """Descendants of a kind: ``raylet``, ``gcs_server``, or ``ray::`` for actors and tasks."""
    return [pid for pid in descendants(root) if _is_of(kind, pid)]


def _title(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return ""
    scripts = [word for word in words[1:3] if word.endswith(".py")]
    return (scripts or words)[0]


def _stat(pid: int) -> tuple[str, str, str]:
    """State of a process, number of its parent, number of its threads."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return words[0], words[1], words[17]


def _state(pid: int) -> str:
    try:
        state, parent, threads = _stat(pid)
    except OSError:
        return "(gone)"
    return f"({pid} of {parent}, {state}, {threads} threads)"


def _is_of(kind: str, pid: int) -> bool:
    title = _title(pid)
    if kind == "ray::":
        return title.startswith(kind) and not any(agent in title for agent in AGENTS)
    return title.rpartition("/")[2] == kind


def end_all(patience: float = PATIENCE_SECONDS) -> list[str]:
    """Waits for this process's descendants to end, and ends what is left, which it describes."""
    until = time.monotonic() + patience
    looks = 0
    while looks < LOOKS and time.monotonic() < until:
        _reap()
        looks = 0 if descendants() else looks + 1
        time.sleep(0.1)
    left = {pid: f"{_title(pid)} {_state(pid)}" for pid in descendants()}
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while descendants():
        _reap()
        time.sleep(0.05)
    _reap()
    return sorted(left.values())


def _reap() -> None:
    for _ in _ended():
        pass


def _ended() -> Iterator[int]:
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid
