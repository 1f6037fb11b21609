"""One writer a folder: a lease, whose holder says every few seconds that it still lives.

``.lock.json`` in the folder says who writes it, since when, and until when that is to be believed.
What the lease promises:

- On one machine two writers never hold it at once: the file is created exclusively, and it is read
  and replaced under a lock of the operating system. A holder that was killed is replaced at once.
- On a file system that machines share, and on an object store, there is no such lock. Who finds
  the file missing or stale writes its own, waits for `SETTLE_SECONDS` and reads it back: the last
  writer has it, the others are refused. Two may hold it where a single write takes longer than
  that wait, until the next heartbeat of the one that lost it, which says so in the log.
- Clocks of machines must agree to within the lease. A holder that is stopped for longer than its
  lease loses it, and says so when it goes on. Nothing stops it from writing then: rows that two
  jobs store are alike, and `forget_repeats` leaves one of each.
"""

import fcntl
import getpass
import json
import logging
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Self
from uuid import uuid4

from rayseg.store.folder import Folder, draft_name
from rayseg.store.processes import process_space, runs

LOCK = ".lock.json"
SETTLE_SECONDS = 2.0
LOCK_BYTES = 1024

logger = logging.getLogger(__name__)


class FolderLockedError(OSError):
    """Somebody else writes the folder."""


@dataclass(frozen=True)
class _Holder:
    """Who writes a folder."""

    token: str
    job: str
    user: str
    host: str
    space: str  # in which its pid is a process: a boot of a machine, a container
    pid: int
    since: float
    beat: float  # its last heartbeat, like `since` in seconds of the epoch
    stale_seconds: float

    @classmethod
    def of(cls, job: str, stale_seconds: float) -> Self:
        """This process."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # a container may run under a number that has no name
            user = str(os.getuid())
        now, host = time.time(), platform.node()
        return cls(
            uuid4().hex, job, user, host, process_space(), os.getpid(), now, now, stale_seconds
        )

    @classmethod
    def unreadable(cls, beat: float) -> Self:
        """Whoever wrote a file at that time that is no lease of this version."""
        return cls("", "somebody unknown", "", "", "", 0, beat, beat, 60.0)

    @property
    def dead(self) -> str:
        """Why it does not write any more; empty where it may."""
        silent = time.time() - self.beat
        if silent > self.stale_seconds:
            return f"has given no sign of life for {silent:.0f} s"
        if (self.host, self.space) == (platform.node(), process_space()) and not runs(self.pid):
            return "runs no more"
        return ""

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).astimezone().isoformat(" ", "seconds")
        if not self.token:
            return f"{self.job} (its lease cannot be read; since {since})"
        return f"{self.job} of {self.user} (process {self.pid} on {self.host}, since {since})"


class _Lease:
    """A folder's lease, held until it is released."""

    def __init__(self, folder: Folder, own: _Holder, beat_seconds: float):
        self.folder, self.own, self.entered = folder, own, 0
        _acquire(folder, own)
        if folder.local_path:
            folder.sweep()
        self.released = threading.Event()
        self.thread = threading.Thread(target=self._beat, args=(beat_seconds,), daemon=True)
        self.thread.start()

    def _beat(self, seconds: float) -> None:
        while not self.released.wait(seconds):
            try:
                with _alone(self.folder):
                    if not self._is_mine():
                        logger.error("%s was taken over: %s", self.folder, _read(self.folder))
                        return
                    _write(self.folder, replace(self.own, beat=time.time()))
            except OSError as error:
                logger.warning("no heartbeat of %s: %s", self.folder, error)

    def _is_mine(self) -> bool:
        there = _read(self.folder)
        return there is not None and there.token == self.own.token

    def release(self) -> None:
        """Lets others have it; a file that cannot be deleted lapses."""
        self.released.set()
        self.thread.join()
        with suppress(OSError), _alone(self.folder):
            if self._is_mine():
                self.folder.delete(LOCK)


_HELD: dict[tuple[int, str], _Lease] = {}
"""By process, as one may be the fork of another, and by folder."""
_ENTERING = threading.Lock()


@contextmanager
def lease(
    folder: Folder, job: str, beat_seconds: float = 10.0, stale_seconds: float = 60.0
) -> Iterator[None]:
    """Keeps other processes from writing a folder; within one process it may be entered again.

    Args:
        job: what is run, for those who are refused.
        beat_seconds: between two heartbeats.
        stale_seconds: after which without a heartbeat others take over.

    Raises:
        FolderLockedError: another process writes the folder.
        OSError: the folder cannot be written to.
    """
    key = (os.getpid(), folder.location)
    with _ENTERING:
        held = _HELD.get(key) or _Lease(folder, _Holder.of(job, stale_seconds), beat_seconds)
        _HELD[key] = held
        held.entered += 1
    try:
        yield
    finally:
        with _ENTERING:
            held.entered -= 1
            if not held.entered:
                del _HELD[key]
                held.release()


def _acquire(folder: Folder, own: _Holder) -> None:
    """Makes the lease one's own.

    Raises:
        FolderLockedError: another process has it.
    """
    if folder.local_path:
        try:
            folder.local_path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"cannot write {folder}: {error}") from error
    while True:
        with _alone(folder):
            there = _read(folder)
            dead = there.dead if there else ""
            if there and not dead:
                raise FolderLockedError(
                    f"{folder} is being written by {there}; wait for its end or stop it (a lease "
                    f"ends {there.stale_seconds:.0f} s after the last heartbeat, which was "
                    f"{max(time.time() - there.beat, 0):.0f} s ago)"
                )
            if there is None and _create(folder, own):
                return
            if there:
                logger.warning("%s is taken over from %s, which %s", folder, there, dead)
                _write(folder, own)
        time.sleep(min(SETTLE_SECONDS, own.stale_seconds / 10))
        back = _read(folder)
        if back and back.token == own.token:
            return


def _create(folder: Folder, own: _Holder) -> bool:
    """Writes the file where there is none; whether nobody else can have written it as well."""
    path = folder.local_path
    if path is None:
        _write(folder, own)
        return False
    draft = path / draft_name(LOCK)  # linked when it is whole, to be seen so or not at all
    try:
        draft.write_bytes(_encoded(own))
        os.link(draft, path / LOCK)
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without links, or one that cannot be written to
        _write(folder, own)
        return False
    finally:
        with suppress(OSError):
            draft.unlink()


def _write(folder: Folder, own: _Holder) -> None:
    folder.write(LOCK, _encoded(own))


def _encoded(own: _Holder) -> bytes:
    # of one length: an object store may give a reader the new file cut at the old one's
    return json.dumps(asdict(own), indent=1).encode().ljust(LOCK_BYTES)


def _read(folder: Folder) -> _Holder | None:
    try:
        data = folder.read(LOCK)
        return _Holder(**json.loads(data))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # damaged, or another version's: it lapses as others do
        return _Holder.unreadable(folder.written(LOCK))


def dead_holder(folder: Folder) -> str:
    """Who holds a folder's lease though he writes no more, and why that is sure; empty for none."""
    holder = _read(folder)
    return f"{holder}, which {holder.dead}" if holder and holder.dead else ""


def live_holder(folder: Folder) -> str:
    """Who writes a folder now; empty where nobody does."""
    holder = _read(folder) if folder.exists() else None
    return str(holder) if holder and not holder.dead else ""


@contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """Keeps the other processes of this machine out of a local folder's lease."""
    if folder.local_path is None:
        yield
        return
    handle = os.open(folder.local_path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a network's file system may have no such locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
