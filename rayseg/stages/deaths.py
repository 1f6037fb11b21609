"""Why a process died, as far as it, its machine or its engine left a sign.

A process that a fatal signal ends from within (SIGSEGV, SIGABRT, ...) still writes to a file before
it dies; one that is killed by SIGKILL cannot. The kernel counts whom it killed for lack of memory.
Engines may know more, such as that a machine was lost.
"""

import faulthandler
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from rayseg.store import Folder


class Cause(StrEnum):
    """What ended a process: itself, lack of memory, someone else, or nobody knows."""

    OWN = "own"
    MEMORY = "memory"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


class Witness(Protocol):
    """What an engine knows of its processes."""

    def name(self) -> str:
        """Of this process, to ask for later."""

    def cause(self, name: str) -> Cause:
        """What ended a process that is dead."""


class NoWitness:
    """An engine that knows nothing of processes that died."""

    def name(self) -> str:
        """None."""
        return ""

    def cause(self, name: str) -> Cause:
        """Unknown."""
        return Cause.UNKNOWN


@dataclass(frozen=True)
class Trace:
    """What a process writes down of itself before it takes a risk.

    Attributes:
        name: by which its engine knows it.
        host: machine that it runs on.
        oom_kills: that the machine's kernel had counted.
        signals: path of the file to which it writes a fatal signal.
    """

    name: str
    host: str
    oom_kills: int
    signals: str

    @classmethod
    def of(cls, witness: Witness, folder: Folder) -> "Trace":
        """This process's, whose file lies in a folder where that is a local one."""
        place = folder.local_path or Path(tempfile.gettempdir())
        path = place / f"rayseg-signals-{uuid4().hex[:16]}"
        return cls(witness.name(), platform.node(), count_oom_kills(), str(path))

    def cause(self, witness: Witness) -> Cause:
        """What ended the process, which is dead."""
        if _take_sign(self.signals):
            return Cause.OWN
        known = witness.cause(self.name)
        if known == Cause.UNKNOWN and self.host == platform.node():
            return Cause.MEMORY if count_oom_kills() > self.oom_kills else known
        return known


def count_oom_kills() -> int:
    """Processes that this machine's kernel has killed for lack of memory; 0 where it is silent."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0


def _take_sign(path: str) -> bool:
    """Whether a file holds what `signals_noted` or `note_end` leaves; it is gone then."""
    with suppress(OSError):
        left = Path(path).stat().st_size > 0
        Path(path).unlink()
        return left
    return False


def note_end(path: str, reason: str) -> None:
    """Leaves a sign that this process ends by itself."""
    with suppress(OSError):
        Path(path).write_text(reason)


@contextmanager
def signals_noted(path: str) -> Iterator[None]:
    """A fatal signal that this process causes within leaves a sign in the file."""
    enabled = faulthandler.is_enabled()
    try:
        with open(path, "wb") as file:
            faulthandler.enable(file, all_threads=False)
            try:
                yield
            finally:
                _restore(enabled)
    finally:
        with suppress(OSError):
            Path(path).unlink()


def _restore(enabled: bool) -> None:
    faulthandler.disable()
    if enabled:
        with suppress(OSError, ValueError, AttributeError):  # stderr may be no file
            faulthandler.enable(sys.__stderr__, all_threads=False)  # type: ignore[arg-type]
