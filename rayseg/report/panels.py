"""The pictures side by side in a row of the page, and the names of what is in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.palette import VOC_PALETTE
from rayseg.report.contrast import DARK_PAPER, LIGHT_PAPER, readable

UNDECIDED_MARK = "?"
_FINE = 64
"""Cells of the longer side of the grid on which letters are placed."""


@dataclass(frozen=True)
class Chip:
    """A label's name, its letters, and its colour on light and on dark paper."""

    name: str
    color: str
    dark: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Mark:
    """Letters on a picture, where their label is.

    Attributes:
        text: the label's letters.
        x: of the point in the label, as a share of the picture's width.
        y: the same of its height.
    """

    text: str
    x: float
    y: float


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        caption: what is shown.
        alt: the same for who cannot see it, with each label's share of the pixels.
        layer: data URI of what lies over the photograph; empty where there is nothing.
        missing: why there is nothing.
        labels: the labels in it.
        of_walk: whether it is what a random walk went by.
        marks: letters of the labels, where they are.
    """

    caption: str
    alt: str = ""
    layer: str = ""
    missing: str = ""
    labels: frozenset[int] = frozenset()
    of_walk: bool = False
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class LabelNames:
    """Names of labels for people."""

    classes: tuple[str, ...]

    def name(self, label: int) -> str:
        """The label's class, or its number where the manifest does not know it."""
        if label in (BACKGROUND, IGNORE):
            return "background" if label == BACKGROUND else "ignored"
        return self.classes[label - 1] if label <= len(self.classes) else f"label {label}"

    @cached_property
    def _marks(self) -> list[str]:
        return letters(self.classes)

    def mark(self, label: int) -> str:
        """The label's letters; none of background, a question mark of what is undecided."""
        if label in (BACKGROUND, IGNORE):
            return "" if label == BACKGROUND else UNDECIDED_MARK
        return self._marks[label - 1] if label <= len(self.classes) else str(label)

    def chip(self, label: int) -> Chip:
        """The label's name, its letters, and its colour in the overlays made readable."""
        light, dark = (readable(VOC_PALETTE[label], one) for one in (LIGHT_PAPER, DARK_PAPER))
        return Chip(self.name(label), light, dark, self.mark(label))

    def marks(self, labels: UInt8[ndarray, "h w"]) -> tuple[Mark, ...]:
        """Letters for each label of a mask but background, at a pixel of it near its middle."""
        step = max(1, -(-max(labels.shape) // _FINE))
        coarse = labels[step // 2 :: step, step // 2 :: step]
        found = (int(label) for label in np.unique(coarse) if label != BACKGROUND)
        return tuple(mark_at(self.mark(label), coarse == label) for label in found)

    def shares(self, labels: UInt8[ndarray, "h w"]) -> str:
        """Each label's share of the pixels, the largest first."""
        found, counts = np.unique(labels, return_counts=True)
        ranked = sorted(zip(counts, found, strict=True), reverse=True)
        return ", ".join(f"{self.name(int(x))} {n / labels.size:.0%}" for n, x in ranked)


def mark_at(text: str, mask: Bool[ndarray, "h w"]) -> Mark:
    """Letters at the pixel of a mask, which has one, that is nearest to the mean of them."""
    rows, columns = np.nonzero(mask)
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    height, width = mask.shape
    return Mark(text, (columns[nearest] + 0.5) / width, (rows[nearest] + 0.5) / height)


def letters(names: Sequence[str]) -> list[str]:
    """A short mark for each name, all different: as few of its first letters as no other one has.

    Names that begin alike to the end have a number behind.
    """
    taken: dict[str, None] = {}
    for name in names:
        plain = "".join(letter for letter in name if letter.isalnum()) or "x"
        starts = (plain[:length].capitalize() for length in range(1, min(len(plain), 3) + 1))
        numbered = (f"{plain[0].upper()}{number}" for number in count(2))
        taken[next(one for one in chain(starts, numbered) if one not in taken)] = None
    return list(taken)
