"""The crash guard: an image that kills its process is given up after two deaths.

Ray gives the work of a dead actor or task to another one, endlessly. So whoever works on a block
writes down which of its images are in flight, and what is still written there when the block comes
again has killed its predecessor. Images that died together are tried alone; an image that kills
alone as well is poison.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from rayseg.stages.rows import Row, Rows, carry_digest
from rayseg.store import Folder, hash_ids

DEADLY = 2
"""Deaths after which an image is given up: one in company, one alone."""


class CrashGuard:
    """How often each image of one block has killed a process.

    Attributes:
        folder: shared by all blocks of a job, removed before and after it: what an earlier job left
            there says nothing of this one.
        ids: the block's images.
        deaths: of each image so far.
    """

    def __init__(self, folder: Folder, ids: Sequence[str]):
        self.folder = folder
        self.ids = ids
        self._name = f"block-{hash_ids(ids)[:16]}.json"
        known = json.loads(folder.read(self._name)) if folder.exists(self._name) else {}
        self.deaths: dict[str, int] = known.get("deaths", {})
        for id_ in known.get("inflight", []):
            self.deaths[id_] = self.deaths.get(id_, 0) + 1
        if self.deaths:
            self._write([])

    def poisonous(self) -> list[str]:
        """The images that must not be tried again."""
        return [id_ for id_ in self.ids if self.deaths.get(id_, 0) >= DEADLY]

    def groups(self) -> list[list[str]]:
        """The images to try, in groups: those under suspicion alone, the others together."""
        suspects = [id_ for id_ in self.ids if 0 < self.deaths.get(id_, 0) < DEADLY]
        innocent = [id_ for id_ in self.ids if id_ not in self.deaths]
        return [group for group in [innocent, *([id_] for id_ in suspects)] if group]

    @contextmanager
    def inflight(self, ids: Sequence[str]) -> Iterator[None]:
        """Writes down what is being tried, and takes it back whether it worked or raised."""
        self._write(ids)
        try:
            yield
        finally:
            self._write([])

    def forget(self) -> None:
        """Removes what was written: the block is done."""
        if self.folder.exists(self._name):
            self.folder.delete(self._name)

    def _write(self, inflight: Sequence[str]) -> None:
        known = {"deaths": self.deaths, "inflight": list(inflight)}
        self.folder.write(self._name, json.dumps(known).encode())


def guarded_rows(stage: Callable[[Rows], Rows], rows: Rows, folder: Folder) -> Rows:
    """The stage's rows of a block; an image that kills the process is given up in its own row."""
    waiting = {row["id"]: row for row in rows}
    guard = CrashGuard(folder, list(waiting))
    done = {id_: _poison(waiting[id_]) for id_ in guard.poisonous()}
    for group in guard.groups():
        with guard.inflight(group):
            try:
                made = stage([waiting[id_] for id_ in group])
            except torch.AcceleratorError:
                os._exit(1)  # the device is lost to this process: better a death that is counted
        done.update((row["id"], row) for row in made)
    guard.forget()
    return [carry_digest(row, done[id_]) for id_, row in waiting.items()]


def _poison(row: Row) -> Row:
    kept = {name: row.get(name, "") for name in ("id", "height", "width", "note")}
    return kept | {"status": "poison", "error": "killed its process twice and was given up"}
