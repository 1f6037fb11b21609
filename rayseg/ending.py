"""How a command ends: one line and a status, also where its process cannot say so itself.

A native library, Ray's core among them, may end the process that called it without a word. So a job
runs in a child of the command's process, which says what ended it. Signals that ask for an end
raise, so that leases are released and Ray's processes ended on the way out.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

GOES_ON = "what is written stays, and the same command goes on"
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""Signals that ask for an end."""
PATIENCE_SECONDS = 30.0
"""From the first such signal to the process's end, whatever it waits for."""
LONGEST = 600
"""Characters of a message; texts of libraries can be pages long."""
_OF_ITS_OWN = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_PR_SET_PDEATHSIG = 1


class Terminated(KeyboardInterrupt):
    """A signal asks this process to end, as Ctrl-C does.

    Attributes:
        status: to end with.
    """

    def __init__(self, number: int):
        super().__init__(f"ended by {signal.Signals(number).name}; {GOES_ON}")
        self.status = 128 + number


EXPECTED = (ValueError, OSError, FloatingPointError, ImportError)
"""Errors whose own words are meant for the user."""


def explained(error: Exception) -> str:
    """One line for an error; one that nobody foresaw says its kind and where to look further."""
    if isinstance(error, MemoryError):
        return (
            f"this machine has no memory left ({headline(error)}); smaller crops or scales, or "
            f"fewer --compute.actors take less; {GOES_ON}"
        )
    if isinstance(error, EXPECTED):
        return headline(error)
    kind = type(error).__name__
    said = f"{kind}: {first_lines(str(error))}" if str(error).strip() else kind
    return f"{said} (unforeseen; RAYSEG_TRACEBACK=1 shows where)"


def headline(error: BaseException) -> str:
    """What an error says, in one line: its first, and what follows where that ends in a colon."""
    return first_lines(str(error)) or type(error).__name__


def first_lines(text: str) -> str:
    """A text's first line, and the next ones as long as a line announces them by a colon."""
    kept: list[str] = []
    for line in text.strip().splitlines():
        if line.strip():
            kept.append(" ".join(line.split()))
        if kept and not kept[-1].endswith(":"):
            break
    said = " ".join(kept)
    return said if len(said) <= LONGEST else said[: LONGEST - 4].rstrip() + " ..."


def first_cause(error: BaseException) -> str:
    """The message of the error that others followed from, in one line.

    Texts that crossed processes hold all of them with their tracebacks, the first cause first.
    """
    text = str(error).partition("\n\nThe above exception was the direct cause")[0]
    lines = text.strip().splitlines()
    frames = [n for n, line in enumerate(lines) if line.startswith("  File ")]
    after = lines[frames[-1] + 1 :] if frames else lines
    while frames and after and after[0].startswith("    "):  # the frame's code
        after = after[1:]
    return first_lines("\n".join(after)) or type(error).__name__


_asked: list[tuple[int, float]] = []
"""The first signal that asked for an end, and when."""


def was_asked() -> Terminated | None:
    """What ends this process, also where a library made another error of it on its way."""
    return Terminated(_asked[0][0]) if _asked else None


def raise_at_signals() -> None:
    """Makes the signals of `ENDS` raise; what hangs then is ended for good."""
    if threading.current_thread() is not threading.main_thread():
        return

    def end(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not _asked:
            _asked.append((number, now))
            timer = threading.Timer(PATIENCE_SECONDS, os._exit, (128 + number,))
            timer.daemon = True
            timer.start()
            raise Terminated(number)
        if now - _asked[0][1] > 1:  # a terminal and a parent may both send the first one
            os._exit(128 + number)

    for one in ENDS:
        if signal.getsignal(one) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(one, end)


def supervised(work: Callable[[], int]) -> int:
    """Does the work in a child of this process; its status, or 1 and a line on what ended it.

    Args:
        work: returns an exit status, or raises SystemExit.
    """
    if not sys.platform.startswith("linux"):  # elsewhere a child can outlive its parent
        return work()
    sys.stdout.flush()
    reader, writer = os.pipe()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)  # until both know what to do at one
    child = os.fork()
    if child:
        os.close(writer)
        _pass_on_signals(child)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _await(child, reader)
    os.close(reader)
    _die_with(parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return _noted(work, writer)


def _noted(work: Callable[[], int], writer: int) -> int:
    """Does the work and leaves the status in a pipe, by which the parent knows an orderly end."""
    status = 1
    _noted_in.append(writer)
    try:
        status = work()
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
        raise
    finally:
        _note(status)
    return status


_noted_in: list[int] = []
"""The pipe of this process, where it is a child."""


def _note(status: int) -> None:
    for pipe in _noted_in:
        os.write(pipe, bytes([status]))


def end_at_once(message: str) -> NoReturn:
    """Ends this process with a line and status 1, whatever it waits for."""
    say(message)
    _note(1)
    os._exit(1)


def _pass_on_signals(child: int) -> None:
    for one in ENDS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, lambda number, frame: _send(child, number))


def _await(child: int, reader: int) -> int:
    _, how = os.waitpid(child, 0)
    os.set_blocking(reader, False)  # a grandchild may still hold the other end
    with suppress(BlockingIOError):
        if noted := os.read(reader, 1):
            return noted[0]
    if sys.stderr.isatty():
        print(file=sys.stderr)  # after a progress bar that nobody ended
    code = os.waitstatus_to_exitcode(how)
    if -code in ENDS or code - 128 in ENDS:
        status = abs(code) + 128 * (code < 0)
        say(f"ended by {signal.Signals(status - 128).name}; {GOES_ON}")
        return status
    say(f"{_explained(code)}; {GOES_ON}")
    return 1


def _send(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child, number)


def _explained(code: int) -> str:
    if -code == signal.SIGKILL:
        return "the job's process was killed by SIGKILL, by someone or for lack of memory"
    if -code in _OF_ITS_OWN:
        name = signal.Signals(-code).name
        return f"the job's process died of {name}, as an image or a library can make it"
    if code < 0:
        return f"the job's process was killed by {signal.Signals(-code).name}"
    return (
        f"the job's process ended at once with status {code}, as a lost GPU or a Ray whose "
        "gcs_server or raylet is gone makes it"
    )


def say(message: str) -> None:
    """Writes a line of this program to stderr."""
    with suppress(OSError):  # nobody reads it
        print(f"rayseg: {message}", file=sys.stderr, flush=True)


def _die_with(parent: int) -> None:
    """Ends this process when its parent does, however that is."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
