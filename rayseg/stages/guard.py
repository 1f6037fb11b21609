"""The crash guard: an image that kills its process is given up.

Ray gives the work of a dead actor or task to another one, endlessly. So whoever works on a block
writes down which of its images are in flight, and what is still written there when the block comes
again was in flight when its predecessor died. Images that died together are tried alone. Only a
death alone counts against an image, and how many it may have depends on who is to blame: a fatal
signal from within is the image's doing; what has no sign may be a `kill -9` by someone; lack of
memory is the image's and the machine's; a lost machine or SIGTERM says nothing of it.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from rayseg.stages.deaths import Cause, NoWitness, Trace, Witness, note_end, signals_noted
from rayseg.stages.rows import Row, Rows, carry_digest
from rayseg.store import Folder, hash_ids

BEARABLE: Mapping[Cause, int] = {Cause.OWN: 2, Cause.MEMORY: 3, Cause.UNKNOWN: 5}
"""Deaths alone at which an image is given up, by their cause."""
REASONS: Mapping[Cause, tuple[str, str]] = {
    Cause.OWN: ("poison", "killed its process {} times and was given up"),
    Cause.UNKNOWN: (
        "poison",
        "its process ended {} times without a sign of why, as after exit() or kill -9, and was "
        "given up",
    ),
    Cause.MEMORY: (
        "error",
        "its process was killed for lack of memory {} times, alone; try --compute.retry-failed "
        "with fewer --compute.actors, or with smaller scales or crops",
    ),
}
"""Status and error of an image that is given up, by the cause."""


class CrashGuard:
    """How often each image of one block was in flight, alone, when a process died.

    Attributes:
        folder: shared by all blocks of a job.
        ids: the block's images.
        deaths: of each image so far, by cause.
        suspects: images that were in flight when a process died.
    """

    def __init__(self, folder: Folder, ids: Sequence[str], witness: Witness):
        self.folder = folder
        self.ids = ids
        self._witness = witness
        self._name = f"block-{hash_ids(ids)[:16]}.json"
        known = self._noted()
        if "suspects" not in known:  # an earlier version's note blames without a cause
            known = {"suspects": [*known.get("deaths", []), *known.get("inflight", [])]}
        self.deaths: dict[str, dict[str, int]] = known.get("deaths", {})
        self.suspects: list[str] = known.get("suspects", [])
        if known.get("inflight"):
            self._blame(known["inflight"], Trace(**known["trace"]).cause(witness))
            self._write([])

    def _noted(self) -> dict[str, Any]:
        """What an earlier process wrote down; nothing where that is damaged."""
        if not self.folder.exists(self._name):
            return {}
        try:
            known = json.loads(self.folder.read(self._name))
            if "suspects" in known and known.get("inflight"):
                Trace(**known["trace"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}
        return known

    def given_up(self) -> dict[str, Cause]:
        """The images that must not be tried again, and why."""
        causes = {id_: self._unbearable(id_) for id_ in self.ids}
        return {id_: cause for id_, cause in causes.items() if cause}

    def groups(self) -> list[list[str]]:
        """The images to try, in groups: suspects alone, those that died most first; then the rest.

        So a process that dies again has not made other images in vain.
        """
        over = self.given_up()
        suspects = [id_ for id_ in self.ids if id_ in self.suspects and id_ not in over]
        alone = [[id_] for id_ in sorted(suspects, key=self._number, reverse=True)]
        others = [id_ for id_ in self.ids if id_ not in self.suspects]
        return [*alone, others] if others else alone

    @contextmanager
    def inflight(self, ids: Sequence[str]) -> Iterator[Trace]:
        """Writes down what is being tried, and takes it back whether it worked or raised."""
        trace = Trace.of(self._witness, self.folder)
        self._write(ids, trace)
        try:
            with signals_noted(trace.signals):
                yield trace
        finally:
            self._write([])

    def forget(self) -> None:
        """Removes what was written: the block is done."""
        if self.folder.exists(self._name):
            self.folder.delete(self._name)

    def number(self, id_: str, cause: Cause) -> int:
        """Deaths of an image alone by that cause."""
        return self.deaths.get(id_, {}).get(cause, 0)

    def _number(self, id_: str) -> int:
        return sum(self.deaths.get(id_, {}).values())

    def _unbearable(self, id_: str) -> Cause | None:
        reached = (cause for cause, most in BEARABLE.items() if self.number(id_, cause) >= most)
        return next(reached, None)

    def _blame(self, ids: Sequence[str], cause: Cause) -> None:
        if cause == Cause.OUTSIDE:
            return
        self.suspects = sorted({*self.suspects, *ids})
        if len(ids) == 1:
            counts = self.deaths.setdefault(ids[0], {})
            counts[cause] = counts.get(cause, 0) + 1

    def _write(self, inflight: Sequence[str], trace: Trace | None = None) -> None:
        known = {"deaths": self.deaths, "suspects": self.suspects, "inflight": list(inflight)}
        known |= {"trace": asdict(trace)} if trace else {}
        self.folder.write(self._name, json.dumps(known).encode())


def guarded_rows(
    stage: Callable[[Rows], Rows], rows: Rows, folder: Folder, witness: Witness | None = None
) -> Rows:
    """The stage's rows of a block; an image that kills the process is given up in its own row.

    Args:
        folder: of what is in flight, shared by all blocks of a job.
        witness: knows of processes that died; None knows nothing.
    """
    waiting = {row["id"]: row for row in rows}
    guard = CrashGuard(folder, list(waiting), witness or NoWitness())
    done = {
        id_: _given_up(waiting[id_], cause, guard.number(id_, cause))
        for id_, cause in guard.given_up().items()
    }
    for group in guard.groups():
        with guard.inflight(group) as trace:
            try:
                made = stage([waiting[id_] for id_ in group])
            except torch.AcceleratorError as error:
                # the device is lost to this process: better a death that is counted
                note_end(trace.signals, str(error))
                os._exit(1)
        done.update((row["id"], row) for row in made)
    guard.forget()
    return [carry_digest(row, done[id_]) for id_, row in waiting.items()]


def _given_up(row: Row, cause: Cause, times: int) -> Row:
    kept = {name: row.get(name, "") for name in ("id", "height", "width", "note")}
    status, reason = REASONS[cause]
    return kept | {"status": status, "error": reason.format(times)}
