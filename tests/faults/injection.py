"""Faults between any two file operations of a command, in the process that carries it out."""

import builtins
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rayseg.store import Folder

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {
    "os.rename": (0, 1), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,), "os.link": (1,),
    "os.symlink": (1,), "os.truncate": (0,),
}  # fmt: skip
"""What Python's own functions announce, and which of the arguments are paths."""
REMOTE = ("create_dir", "delete_dir", "delete_file", "move", "copy_file")
"""What pyarrow's file systems do to a path, and announce to nobody."""
FULL = (errno.ENOSPC, "No space left on device")
"""What the operating system says of a full disk."""
BROKEN = (errno.EIO, "Input/output error")
LOCKED = (errno.EROFS, "Read-only file system")


def nothing() -> None:
    """What half of an operation does that is no write."""


@dataclass
class Operations:
    """Counts a process's operations on the files of a folder, and does something at one of them.

    Attributes:
        place: the folder; others do not count.
        at: number of the operation, from 1; 0 counts only.
        act: is called instead of that operation, or amid it.
        amid: at a write, half of its bytes are there by then.
        on: whether `act` is called at every later operation as well.
        reads: files that are opened for reading count too.
        count: of operations so far.
        tell: a file that is to say how many they were, when the process ends.
    """

    place: str
    at: int = 0
    act: Callable[[], None] = lambda: None
    amid: bool = False
    on: bool = False
    reads: bool = False
    count: int = 0
    tell: Path | None = None
    synced: set[int] = field(default_factory=set)
    lock: Any = field(default_factory=threading.RLock)

    def install(self) -> None:
        """For the rest of this process."""
        _patch_pyarrow(self)
        _patch_writing(self)
        _patch_syncing(self)
        sys.addaudithook(self._hear)

    def meet(self, path: object, write: Callable[[], None] = nothing) -> None:
        """An operation on that path is about to happen.

        Args:
            write: does half of it.
        """
        if not self._is_mine(path):
            return
        with self.lock:
            self.count += 1
            if self.tell:
                self.tell.write_text(str(self.count))
            due = self.count == self.at or (self.on and 0 < self.at < self.count)
        if due:
            if self.amid:
                write()
            try:
                self.act()
            except OSError as error:
                if write is nothing:  # of a write alone, the operating system says no name
                    error.filename = os.fsdecode(path)  # type: ignore[arg-type]
                raise

    def _is_mine(self, path: object) -> bool:
        try:
            text = os.fsdecode(path)  # type: ignore[arg-type]
        except TypeError:
            return False
        return text.startswith(f"{self.place}/")

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = given
            if (flags or 0) & WRITING or (mode and set(mode) & set("wax+")) or self.reads:
                self.meet(path)
        elif event in EVENTS:
            for place in EVENTS[event][-1:]:
                self.meet(given[place])


@dataclass
class _Announcing:
    """A file system of pyarrow that says what it is about to do."""

    inner: Any
    operations: Operations

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in REMOTE:
            return found

        def announced(*given: Any, **more: Any) -> Any:
            self.operations.meet(given[-1])
            return found(*given, **more)

        return announced

    def open_input_file(self, path: str) -> Any:
        if self.operations.reads:
            self.operations.meet(path)
        return self.inner.open_input_file(path)

    def open_output_stream(self, path: str, **more: Any) -> Any:
        self.operations.meet(path)
        return _AnnouncingStream(self.inner.open_output_stream(path, **more), path, self.operations)


@dataclass
class _AnnouncingStream:
    inner: Any
    path: str
    operations: Operations

    def write(self, data: Any) -> Any:
        half = bytes(memoryview(data)[: len(data) // 2])
        self.operations.meet(self.path, lambda: self._write_now(half))
        return self.inner.write(data)

    def _write_now(self, data: bytes) -> None:
        self.inner.write(data)
        self.inner.flush()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *given: Any) -> None:
        self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _patch_pyarrow(operations: Operations) -> None:
    """Each folder's file system; those that are open already stay as they are."""
    plain = Folder.__dict__["_where"].func

    def where(self: Folder) -> tuple[Any, str]:
        filesystem, path = plain(self)
        return _Announcing(filesystem, operations), path

    Folder.__dict__["_where"].func = where


class _AnnouncingFile(io.FileIO):
    operations: Operations

    def write(self, data: Any) -> int:
        half = bytes(memoryview(data)[: len(data) // 2])
        self.operations.meet(self.name, lambda: super(_AnnouncingFile, self).write(half))
        return super().write(data)


def _patch_writing(operations: Operations) -> None:
    """Files that Python writes in binary, so that a fault may lie within a write."""
    plain = io.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *given: Any, **more: Any) -> Any:
        binary_write = "b" in mode and set(mode) & set("wxa")
        if isinstance(file, int) or not binary_write or not operations._is_mine(file):
            return plain(file, mode, buffering, *given, **more)
        raw = _AnnouncingFile(file, mode.replace("b", ""))
        raw.operations = operations
        if buffering == 0:
            return raw
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    io.open = builtins.open = opened  # type: ignore[assignment]


def _patch_syncing(operations: Operations) -> None:
    """A file of which os.fsync was called outlasts a loss of power."""
    plain = os.fsync

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")
        operations.meet(path)
        plain(number)
        if operations._is_mine(path):
            operations.synced.add(os.fstat(number).st_ino)

    os.fsync = fsync


def kill(number: int = signal.SIGKILL) -> Callable[[], None]:
    """This process gets a signal."""
    return lambda: os.kill(os.getpid(), number)


def refuse(reason: tuple[int, str]) -> Callable[[], None]:
    """The operating system refuses the operation."""

    def raising() -> None:
        raise OSError(*reason)

    return raising


def lose_power(operations: Operations) -> Callable[[], None]:
    """What this process wrote and did not have put onto the disk is gone, and so is the process.

    A file has its name then and no content, as ext4 and XFS leave it.
    """
    began = time_of_the_disk(operations.place)

    def losing() -> None:
        for path in Path(operations.place).rglob("*"):
            if path.is_file() and not path.is_symlink():
                facts = path.stat()
                if facts.st_mtime_ns >= began and facts.st_ino not in operations.synced:
                    os.truncate(path, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    return losing


def time_of_the_disk(place: str) -> int:
    """Nanoseconds, by the clock that files are stamped with."""
    probe = Path(place).parent / f".probe-{os.getpid()}"
    probe.write_bytes(b"")
    found = probe.stat().st_mtime_ns
    probe.unlink()
    return found
