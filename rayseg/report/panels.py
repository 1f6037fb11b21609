"""The pictures side by side in a row of the page, and the names of what is in them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.palette import VOC_PALETTE


@dataclass(frozen=True)
class Chip:
    """A label's name and colour."""

    name: str
    color: str


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
    """

    caption: str
    alt: str = ""
    layer: str = ""
    missing: str = ""
    labels: frozenset[int] = frozenset()
    of_walk: bool = False


@dataclass(frozen=True)
class LabelNames:
    """Names of labels for people."""

    classes: tuple[str, ...]

    def name(self, label: int) -> str:
        """The label's class, or its number where the manifest does not know it."""
        if label in (BACKGROUND, IGNORE):
            return "background" if label == BACKGROUND else "ignored"
        return self.classes[label - 1] if label <= len(self.classes) else f"label {label}"

    def chip(self, label: int) -> Chip:
        """The label's name and its colour in the overlays."""
        red, green, blue = (int(part) for part in VOC_PALETTE[label])
        return Chip(self.name(label), f"#{red:02x}{green:02x}{blue:02x}")

    def shares(self, labels: UInt8[ndarray, "h w"]) -> str:
        """Each label's share of the pixels, the largest first."""
        found, counts = np.unique(labels, return_counts=True)
        ranked = sorted(zip(counts, found, strict=True), reverse=True)
        return ", ".join(f"{self.name(int(x))} {n / labels.size:.0%}" for n, x in ranked)
