"""Why a training cannot go on, where another start would not help."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rayseg.learn.state import STATE, load_state
from rayseg.learn.worker import Worker
from rayseg.store import Folder

FAILURE = "failure.json"
_HOPELESS = (ValueError, TypeError, LookupError, AttributeError, torch.OutOfMemoryError)
"""What another start does not change; network and files may be back by then."""


class NotFinite(FloatingPointError):
    """The loss is not a finite number.

    Attributes:
        step: at which it is not, counted from 0.
        value: of the loss.
        ids: this worker's images of the batch.
    """

    def __init__(self, step: int, value: float, ids: list[str]):
        super().__init__(f"loss must be finite, got {value} at iteration {step + 1} on {ids}")
        self.step, self.value, self.ids = step, value, ids


def has_failed(folder: Folder) -> bool:
    """Whether a worker gave up at what must fail again, and is not to be tried again."""
    return folder.exists(FAILURE)


def forget_failure(folder: Folder) -> None:
    """Takes away what an earlier job left."""
    if folder.exists(FAILURE):
        folder.delete(FAILURE)


def raise_failure(folder: Folder) -> None:
    """Raises what the workers gave up for, where they did.

    Raises:
        FloatingPointError: the loss is not finite.
        ChildProcessError: a worker failed for a reason that a new start does not change.
    """
    if folder.exists(FAILURE):
        failure = json.loads(folder.read(FAILURE))
        folder.delete(FAILURE)
        kind = FloatingPointError if failure["not_finite"] else ChildProcessError
        raise kind(failure["reason"]) from None


@contextmanager
def failures_recorded(folder: Folder, rate: str, worker: Worker) -> Iterator[None]:
    """Leaves a file that says why a worker fails within, where another start would not help.

    Args:
        rate: the setting to lower where the loss is not finite, such as segmenter.schedule.lr.
    """
    try:
        yield
    except NotFinite as error:  # on all workers at once
        ids = [id_ for share in worker.gather(error.ids) for id_ in share]
        if worker.rank == 0:
            _record(folder, _explained(error, ids, folder, rate), not_finite=True)
    except _HOPELESS as error:
        # on this worker alone, so that it must raise for the others not to wait
        _record(folder, f"training failed: {type(error).__name__}: {error}")
        raise


def _record(folder: Folder, reason: str, not_finite: bool = False) -> None:
    failure = {"reason": reason, "not_finite": not_finite}
    folder.write(FAILURE, json.dumps(failure).encode())


def _explained(error: NotFinite, ids: list[str], folder: Folder, rate: str) -> str:
    saved = load_state(folder).facts.get("iteration", 0)
    state = folder.path(STATE)
    kept = f"iteration {saved} in {state}" if saved else "none yet"
    named = f" on images {', '.join(ids)}" if ids else ""
    return (
        f"loss must be finite, got {error.value} at iteration {error.step + 1}{named}; the last "
        f"good checkpoint is {kept}; try a lower {rate}, without that folder"
    )
