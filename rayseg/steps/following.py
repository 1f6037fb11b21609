"""How far a training is, read from the file that its first worker writes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from rayseg.learn import Training
from rayseg.learn.training import COMPARED_AS
from rayseg.progress import Activity, activity, announce
from rayseg.store import Folder, forget_progress, noted, read_progress_file, seconds_between


@contextmanager
def followed(folder: Folder, label: str, steps: int) -> Iterator[None]:
    """Shows the training within, in a folder in which none is under way."""
    forget_progress(folder)
    with activity(label, steps, "step", _Follower(folder)):
        yield


def tell_fitted(label: str, training: Training, asked: Training, images: int) -> str:
    """Says in which settings a training differs from what was asked for, and what else to know.

    Returns:
        These settings, in which it fits its images; empty for none.
    """
    changed = ", ".join(_changes(training, asked))
    if changed:
        announce(f"{label}: {images} images, so {changed}")
    if training.remark:
        announce(f"{label}: note: {training.remark}")
    return changed


def _changes(training: Training, asked: Training) -> Iterator[str]:
    for part in fields(training):
        was, now = getattr(asked, part.name), getattr(training, part.name)
        was = part.metadata.get(COMPARED_AS, was) if was == part.default else was
        if was != now:
            yield f"{part.name} {now} in place of {was}"


@dataclass
class _Follower:
    """Reads the file as often as it is written.

    Attributes:
        folder: of the network.
        read: when it was read, in seconds of a clock.
    """

    folder: Folder
    read: float = 0.0

    def __call__(self, shown: Activity) -> None:
        """Puts it into what is shown."""
        if time.monotonic() - self.read < seconds_between(self.folder):
            return
        self.read = time.monotonic()
        if said := read_progress_file(self.folder):
            shown.done, shown.rate = said["step"], said["steps_per_second"]
            shown.note = noted(said)
