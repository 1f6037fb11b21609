"""How a training went, as a folder's run.json says it, of whatever version."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Entries = list[dict[str, Any]]


@dataclass(frozen=True)
class Progress:
    """Losses and figures of a training.

    Attributes:
        curve: mean losses since the entry before, with the `unit` that each ends at.
        judged: figures of the network at some of its ends.
        unit: the key of both by which entries are counted: iteration, or epoch in classifiers of
            earlier versions.
        steps: iterations so far; 0 where that is not known.
        epochs: whole passes over the images that these are; 0 where that is not known.
        seconds: that the training took; None where that is not known.
    """

    curve: Entries
    judged: Entries
    unit: str
    steps: int = 0
    epochs: int = 0
    seconds: float | None = None


def read_progress(facts: Mapping[str, Any]) -> Progress:
    """The progress that a run.json tells of; any of it may be missing."""
    epochs: Entries = facts.get("epochs") or []
    if epochs:  # before classifiers were counted in iterations
        ends = [{"epoch": place + 1} | one for place, one in enumerate(epochs)]
        known = [one["seconds"] for one in epochs if isinstance(one.get("seconds"), int | float)]
        return Progress(ends, ends, "epoch", 0, len(epochs), sum(known) if known else None)
    curve: Entries = facts.get("curve") or []
    steps = int(curve[-1].get("iteration") or 0) if curve else 0
    whole = steps // (facts.get("steps_per_epoch") or steps + 1)
    return Progress(
        curve, facts.get("judged") or [], "iteration", steps, whole, facts.get("seconds")
    )
