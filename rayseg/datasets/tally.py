"""What a reader took of a data set, and what it left out and why."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rayseg.records import Sample

TAKEN = ("images", "tags", "negatives", "boxes", "outlines", "crowds", "masks")
"""What is counted of a data set, in the order of the table."""


@dataclass(frozen=True)
class Reason:
    """Why something was left out.

    Attributes:
        what: of TAKEN, or another plural noun such as annotations.
        text: why, without the name of the one that it happened to, so that equal ones are counted.
    """

    what: str
    text: str


@dataclass
class Tally:
    """What a reader took and left out; readers add to it while they yield samples.

    Attributes:
        taken: number of each of TAKEN.
        left_out: how often something was left out for each reason.
        changed: how often something was taken otherwise than it is written, such as a size.
        examples: the first one of each reason: its file, image and number.
    """

    taken: Counter[str] = field(default_factory=Counter)
    left_out: Counter[Reason] = field(default_factory=Counter)
    changed: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, str] = field(default_factory=dict)

    def take(self, what: str, number: int = 1) -> None:
        """Counts what was taken."""
        self.taken[what] += number

    def take_sample(self, sample: Sample) -> Sample:
        """Counts what a sample holds, and returns it.

        An image whose size is not known cannot be read, and is no image that was taken. Crowds are
        counted apart from boxes.
        """
        self.take("images", int(sample.height > 0))
        self.take("tags", len(sample.tags))
        self.take("negatives", int(sample.negative))
        self.take("boxes", len(sample.box_classes) - len(sample.crowds))
        self.take("crowds", len(sample.crowds))
        self.take("outlines", sum(map(bool, sample.true_masks)))
        self.take("masks", int(bool(sample.mask_path)))
        return sample

    def leave_out(self, what: str, text: str, example: str, number: int = 1) -> None:
        """Counts what was left out; exit status 3 of `prepare`."""
        self._count(self.left_out, Reason(what, text), example, number)

    def note(self, what: str, text: str, example: str, number: int = 1) -> None:
        """Counts what was taken otherwise than it is written; no failure."""
        self._count(self.changed, Reason(what, text), example, number)

    def facts(self) -> dict[str, Any]:
        """All of it as plain values, for run.json."""
        return {
            "taken": {what: self.taken[what] for what in TAKEN if self.taken[what]},
            "left_out": self._listed(self.left_out),
            "changed": self._listed(self.changed),
        }

    def _count(self, where: Counter[Reason], reason: Reason, example: str, number: int) -> None:
        where[reason] += number
        # a file's name need not be text, and what is stored must be
        self.examples.setdefault(reason, example.encode("utf-8", "replace").decode())

    def _listed(self, counts: Mapping[Reason, int]) -> list[dict[str, Any]]:
        return [
            {"what": one.what, "reason": one.text, "count": n, "example": self.examples[one]}
            for one, n in counts.items()
        ]
