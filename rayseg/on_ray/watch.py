"""What Ray knows of processes that died, and a watch over Ray while a job waits for it.

Ray itself waits a minute for a head that is gone, ends the process that waits without a word, and
starts again without end what its memory monitor kills. The watch ends such a wait in one line.
"""

import os
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
from ray.core.generated import common_pb2, gcs_pb2
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.train.v2.api.exceptions import TrainingFailedError

from rayseg.ending import GOES_ON, first_lines, say
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
_INTENDED = (common_pb2.INTENDED_SYSTEM_EXIT, common_pb2.INTENDED_USER_EXIT)


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
            record = gcs_pb2.WorkerTableData.FromString(found) if found else None
            if record and not record.is_alive:
                return _cause(record)
            if time.monotonic() > deadline:
                return Cause.UNKNOWN
            time.sleep(0.1)


def _cause(record: Any) -> Cause:
    if record.exit_type == common_pb2.NODE_OUT_OF_MEMORY:
        return Cause.MEMORY
    if record.exit_type in _INTENDED or "SIGTERM" in record.exit_detail:
        return Cause.OUTSIDE
    return Cause.UNKNOWN


class _Interrupted(BaseException):
    """The watch ends what the main thread waits for."""


class Watch:
    """Looks at Ray every second from a thread; ends the main thread's wait where it is in vain.

    Attributes:
        what: waits.
        reason: why it was ended; empty before.
    """

    def __init__(self, what: str):
        self.what, self.reason = what, ""
        self._stopped = threading.Event()
        self._strikes = 0
        self._seen = {worker for worker, _ in _killed_for_memory()}
        signal.signal(signal.SIGUSR1, self._interrupt)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def progress(self) -> None:
        """What is waited for goes on."""
        self._strikes = 0

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
            patience = 0 if ray_worker._global_node.head else RETURN_SECONDS  # type: ignore[union-attr]
            if lost and time.monotonic() - gone_since >= patience:
                self._end(f"{self.what} ended, since {lost}; {GOES_ON}")
            elif not lost:
                with suppress(RuntimeError, RayError):  # the head may go just now
                    self._look_at_memory()

    def _look_at_memory(self) -> None:
        """Ends the wait once the monitor has killed often enough."""
        killed = [(worker, text) for worker, text in _killed_for_memory() if worker not in self._seen]
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
            say(reason)
            os._exit(1)


def _what_is_gone() -> str:
    """Which part of Ray does not answer; empty where all do."""
    node = ray_worker._global_node
    if node is None:
        return ""
    dead = [str(kind) for kind, _ in node.dead_processes()] if node.head else []
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
        gcs_pb2.WorkerTableData.FromString(one)
        for one in state._connect_and_get_accessor().get_worker_table()
    ]
    return [
        (one.worker_address.worker_id, one.exit_detail)
        for one in table
        if one.exit_type == common_pb2.NODE_OUT_OF_MEMORY and not one.is_alive
    ]


def _memory_in_words(text: str) -> str:
    found = re.search(r"[\d.]+ ?[KMG]i?B? ?/ ?[\d.]+ ?[KMG]i?B?", text)
    return f" ({found[0]} used)" if found else ""


@contextmanager
def one_line_errors(what: str, *more: type[Exception]) -> Iterator[Watch | None]:
    """Says an error that crossed processes in one line, and ends a wait that is in vain.

    Args:
        what: failed.
        more: kinds of errors beside Ray's own.

    Returns:
        The watch, which wants to hear of progress; None in another thread than the main one.

    Raises:
        ChildProcessError: in place of Ray's error, which stays its cause.
    """
    main = threading.current_thread() is threading.main_thread()
    watch = Watch(what) if main and ray.is_initialized() else None
    try:
        yield watch
    except _Interrupted:
        raise ChildProcessError(watch.reason if watch else what) from None
    except ExecutionTimeoutError as error:
        raise ChildProcessError(
            f"{what} made no progress for --compute.stall-seconds; {GOES_ON}"
        ) from error
    except (RayError, TrainingFailedError, *more) as error:
        raise ChildProcessError(f"{what} failed: {root_cause(error)}") from error
    finally:
        if watch:
            watch.stop()


def root_cause(error: BaseException) -> str:
    """The message of the error that others followed from, in one line.

    Ray puts the texts of all of them, with their tracebacks, into one, the first cause first.
    """
    first = str(error).partition("\n\nThe above exception was the direct cause")[0]
    lines = first.strip().splitlines()
    frames = [n for n, line in enumerate(lines) if line.startswith("  File ")]
    after = lines[frames[-1] + 1 :] if frames else lines
    while frames and after and after[0].startswith("    "):  # the frame's code
        after = after[1:]
    return first_lines("\n".join(after)) or type(error).__name__
