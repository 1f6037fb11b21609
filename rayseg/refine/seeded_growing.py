"""Growing of seeds over the cells around them of which a network is sure.

Huang et al., *Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region Growing*,
CVPR 2018 (DSRG); dissertation 2.3.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.ndimage import label

from rayseg.records import BACKGROUND, IGNORE

_EIGHT = np.ones((3, 3), np.int8)


@dataclass(frozen=True)
class SeedGrowing:
    """Seeds become the connected regions around them whose class is sure.

    The constants are those of the authors' code (METHODS 8). In that code a sure prediction of
    another class hides a seed: the seed stays one, but does not join its own class's region. Here,
    as METHODS has it, a seed overrides what is predicted at its cell. A cell has one seed.

    Attributes:
        sure_foreground: Probability above which a cell is surely of its likeliest class.
        sure_background: Probability above which a cell is surely background.
    """

    sure_foreground: float = 0.85
    sure_background: float = 0.99

    def __post_init__(self) -> None:
        for name in ("sure_foreground", "sure_background"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    def __call__(
        self,
        probabilities: Float[ndarray, "l h w"],
        seeds: UInt8[ndarray, "h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """The grown seeds: 0 background, class index + 1, 255 no seed; the given ones stay.

        The likeliest label among background and the image's classes is sure of a cell where its
        probability, of all labels, is above the bound. A region of a label's sure cells and seeds,
        connected by edges or corners, becomes seed where it holds a seed of that label.

        Args:
            probabilities: of background, label 0, and of every class.
            seeds: as what is returned.
            classes: indices of the image's classes.
        """
        labels = self._sure(probabilities, classes)
        given = seeds != IGNORE
        labels[given] = seeds[given]
        grown = np.full_like(seeds, IGNORE)
        for one in np.unique(seeds[given]):
            grown[_regions_with(labels == one, seeds == one)] = one
        return grown

    def _sure(
        self, probabilities: Float[ndarray, "l h w"], classes: Sequence[int]
    ) -> UInt8[ndarray, "h w"]:
        """The sure label of each cell, 255 where none is."""
        known = np.array([BACKGROUND, *sorted(one + 1 for one in classes)], np.uint8)
        planes = probabilities[known]  # (k + 1, h, w)
        labels = known[planes.argmax(0)]
        bounds = np.where(labels == BACKGROUND, self.sure_background, self.sure_foreground)
        labels[planes.max(0) <= bounds] = IGNORE
        return labels


def _regions_with(cells: Bool[ndarray, "h w"], seeds: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """The cells of those 8-connected regions in which there is a seed."""
    regions, number = label(cells, _EIGHT)
    held = np.zeros(number + 1, bool)
    held[regions[seeds]] = True
    held[0] = False
    return held[regions]
