"""The crash guard: an image that kills its process is given up after two tries.

Ray restarts a dead actor and gives it the same work again, for ever. So an actor writes down what
it works on, and what is still written there when it starts has killed its predecessor. Images that
died together are tried alone; an image that kills an actor alone is poison.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rayseg.store import Folder

DEADLY = 2
"""Deaths after which an image is given up: one in company, one alone."""


class CrashGuard:
    """What one actor works on, and how often each image killed an actor.

    Attributes:
        folder: shared by all actors of a pool, emptied before a job.
        actor: a name that stays the same when the actor is restarted.
    """

    def __init__(self, folder: Folder, actor: str):
        self.folder = folder
        self.actor = actor
        if folder.exists(self._inflight):
            for id_ in json.loads(folder.read(self._inflight)):
                folder.write(_deaths_file(id_), str(self.deaths(id_) + 1).encode())
            folder.delete(self._inflight)

    @property
    def _inflight(self) -> str:
        return f"inflight-{self.actor}.json"

    def deaths(self, id_: str) -> int:
        """How many actors died with that image in flight."""
        name = _deaths_file(id_)
        return int(self.folder.read(name)) if self.folder.exists(name) else 0

    def poisonous(self, id_: str) -> bool:
        """Whether the image must not be tried again."""
        return self.deaths(id_) >= DEADLY

    def groups(self, ids: Sequence[str]) -> list[list[str]]:
        """The images to try, in groups: those under suspicion alone, the others together."""
        suspects = [id_ for id_ in ids if 0 < self.deaths(id_) < DEADLY]
        innocent = [id_ for id_ in ids if not self.deaths(id_)]
        return [group for group in [innocent, *([id_] for id_ in suspects)] if group]

    @contextmanager
    def inflight(self, ids: Sequence[str]) -> Iterator[None]:
        """Writes down what is being tried, and takes it back whether it worked or raised."""
        self.folder.write(self._inflight, json.dumps(list(ids)).encode())
        try:
            yield
        finally:
            self.folder.delete(self._inflight)


def _deaths_file(id_: str) -> str:
    return f"deaths-{hashlib.sha256(id_.encode()).hexdigest()[:16]}"


def clear(folder: Folder) -> None:
    """Empties the guard's folder: what an earlier job left there says nothing of this one."""
    for name in folder.names():
        folder.delete(name)
