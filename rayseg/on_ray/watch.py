"""What Ray knows of processes that died, and a watch over Ray while a job waits for it.

Ray itself waits a minute for a head that is gone, ends the process that waits without a word, and
starts again without end what its memory monitor kills. The watch ends such a wait in one line.
"""

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import ray
from ray._private import worker as ray_worker
from ray._private.state import state
from ray.core.generated.common_pb2 import WorkerExitType  # type: ignore[attr-defined]
from ray.core.generated.gcs_pb2 import WorkerTableData  # type: ignore[attr-defined]
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.train.v2.api.exceptions import TrainingFailedError

from rayseg.ending import GOES_ON, end_at_once, first_cause
from rayseg.stages import Cause

POLL_SECONDS = 1.0
STRIKES = 12
"""Looks at which the memory monitor has killed again, without any progress between them."""
RETURN_SECONDS = 20.0
"""In which a cluster's head may come back; Ray ends this process after 60 without it."""
END_SECONDS = 15.0
"""For what waits to end after it was asked to; then the process ends at once."""
RECORD_SECONDS = 5.0
"""For the record of a death to reach the head."""
_MEMORY, _INTENDED = "NODE_OUT_OF_MEMORY", ("INTENDED_SYSTEM_EXIT", "INTENDED_USER_EXIT")


class RayWitness:
    """Asks Ray's head what ended a worker."""

    def name(self) -> str:
        """Node and worker, as Ray numbers them."""
        here = ray.get_runtime_context()
        return f"{here.get_node_id()} {here.get_worker_id()}"

    def cause(self, name: str) -> Cause:
        """What the head has on record; a machine that is lost has lost its workers."""
        node, _, worker = name.partition(" ")
        deadline = time.monotonic() + RECORD_SECONDS
        while True:
            if node not in {one["NodeID"] for one in ray.nodes() if one["Alive"]}:
                return Cause.OUTSIDE
            found = state._connect_and_get_accessor().get_worker_info(ray.WorkerID.from_hex(worker))
            record = WorkerTableData.FromString(found) if found else None
            if record and not record.is_alive:
                return _cause(record)
            if time.monotonic() > deadline:
                return Cause.UNKNOWN
            time.sleep(0.1)


def _cause(record: Any) -> Cause:
    kind = WorkerExitType.Name(record.exit_type)
    if kind == _MEMORY:
        return Cause.MEMORY
    if kind in _INTENDED or "SIGTERM" in record.exit_detail:
        return Cause.OUTSIDE
    return Cause.UNKNOWN


class _Interrupted(BaseException):
    """The watch ends what the main thread waits for."""


class Watch:
    """Looks at Ray every second from a thread; ends the main thread's wait where it is in vain.

    Attributes:
        what: is waited for.
        reason: why it was ended; empty before.
    """

    def __init__(self) -> None:
        self.what, self.reason = "the job", ""
        self._stopped = threading.Event()
        self._strikes = 0
        self._seen = {worker for worker, _ in _killed_for_memory()}
        signal.signal(signal.SIGUSR1, self._interrupt)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def note(self, what: str) -> None:
        """What is waited for goes on, or is something else now."""
        self.what, self._strikes = what or self.what, 0

    def stop(self) -> None:
        """Ends the watch."""
        self._stopped.set()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._stopped.is_set():  # it stays the handler, as the thread may be late
            raise _Interrupted

    def _run(self) -> None:
        gone_since = 0.0
        while not self._stopped.wait(POLL_SECONDS):
            lost = _what_is_gone()
            gone_since = (gone_since or time.monotonic()) if lost else 0.0
            patience = 0 if _is_own() else RETURN_SECONDS
            if lost and time.monotonic() - gone_since >= patience:
                self._end(f"{self.what} ended, since {lost}; {GOES_ON}")
            elif not lost:
                with suppress(RuntimeError, RayError):  # the head may go just now
                    self._look_at_memory()

    def _look_at_memory(self) -> None:
        """Ends the wait once the monitor has killed often enough."""
        killed = [
            (worker, text) for worker, text in _killed_for_memory() if worker not in self._seen
        ]
        self._seen |= {worker for worker, _ in killed}
        self._strikes += bool(killed)
        if self._strikes >= STRIKES:
            self._end(
                f"{self.what} failed: Ray's memory monitor kills its processes again and again"
                f"{_memory_in_words(killed[-1][1])}; try fewer --compute.actors, smaller scales or "
                f"crops, or more memory; {GOES_ON}"
            )

    def _end(self, reason: str) -> None:
        self.reason = reason
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGUSR1)
        if not self._stopped.wait(END_SECONDS):
            end_at_once(reason)


def _is_own() -> bool:
    """Whether this process has started the Ray that it uses, which nothing else restarts."""
    node: Any = ray_worker._global_node
    return bool(node and node.head)


def _what_is_gone() -> str:
    """Which part of Ray does not answer; empty where all do."""
    if (node := ray_worker._global_node) is None:
        return ""
    dead = [str(kind) for kind, _ in node.dead_processes()] if _is_own() else []
    for kind in ("gcs_server", "raylet"):
        if kind in dead:
            return f"Ray's {kind} on this machine was killed"
    host, _, port = node.gcs_address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return f"the head of the Ray cluster at {node.gcs_address} does not answer ({error})"
    return ""


def _killed_for_memory() -> list[tuple[bytes, str]]:
    """Workers that the memory monitor has killed in this session, and what it has to say."""
    table = [
        WorkerTableData.FromString(one)
        for one in state._connect_and_get_accessor().get_worker_table()
    ]
    return [
        (one.worker_address.worker_id, one.exit_detail)
        for one in table
        if not one.is_alive and WorkerExitType.Name(one.exit_type) == _MEMORY
    ]


def _memory_in_words(text: str) -> str:
    found = re.search(r"was ([\d.]+)GB used / ([\d.]+)GB", text)
    return f" ({found[1]} of {found[2]} GB are used)" if found else ""


_watches: list[Watch] = []
"""The one of this process, while a session lasts."""


@contextmanager
def watched() -> Iterator[None]:
    """Ends in one line what waits for Ray within, where it waits in vain.

    Raises:
        ChildProcessError: Ray is gone, or its memory monitor lets nothing be done.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals
        yield
        return
    watch = Watch()
    _watches.append(watch)
    try:
        yield
    except BaseException as error:  # whatever became of ours on its way
        if watch.reason:
            raise ChildProcessError(watch.reason) from error
        raise
    finally:
        watch.stop()
        _watches.remove(watch)


def note_progress(what: str = "") -> None:
    """Tells the watch that the job goes on, and with what where that is something new."""
    for watch in _watches:
        watch.note(what)


@contextmanager
def one_line_errors(what: str, *more: type[Exception]) -> Iterator[None]:
    """Says an error that crossed processes in one line: its cause, without the way that it took.

    Args:
        what: failed.
        more: kinds of errors beside Ray's own.

    Raises:
        ChildProcessError: in place of Ray's error, which stays its cause.
    """
    note_progress(what)
    try:
        yield
    except ExecutionTimeoutError as error:
        raise ChildProcessError(
            f"{what} made no progress for --compute.stall-seconds; {GOES_ON}"
        ) from error
    except (RayError, TrainingFailedError, *more) as error:
        raise ChildProcessError(f"{what} failed: {first_cause(error)}") from error
