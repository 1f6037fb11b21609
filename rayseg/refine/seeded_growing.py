"""Seeded region growing: seeds spread over the sure pixels that hang together with them.

A pixel is sure of the class of greatest probability, of those present and background, where that
probability exceeds the threshold. A seed is sure of its own class, whatever the network says. Of
the sure pixels of a class those become seeds that are connected, by eight neighbours each, with a
seed of that class.

Source: Huang et al., "Weakly-Supervised Semantic Segmentation Network with Deep Seeded Region
Growing", CVPR 2018 (DSRG), section 3.3; generate_seed_step of its code (METHODS 8); dissertation
2.3.2. A Mask R-CNN grows otherwise (`nets.losses.grown_seeds`): its pixels need a neighbour on
their side and no seed.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import label as connected_parts

from rayseg.records import BACKGROUND

_EIGHT_NEIGHBOURS = np.ones((3, 3), bool)


@dataclass(frozen=True, kw_only=True)
class SeededGrowing:
    """One growing of an image's seeds; in training, of the seeds that were given each time.

    Attributes:
        sure_foreground: Probability that a pixel of a class must exceed to join it.
        sure_background: Probability that a pixel of background must exceed.
    """

    sure_foreground: float = 0.85
    sure_background: float = 0.99

    def __post_init__(self) -> None:
        for name in ("sure_foreground", "sure_background"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")

    @classmethod
    def official(cls) -> Self:
        """The values of the authors' code."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """The dissertation says "sufficiently high" and names no value; those of the code."""
        return cls()

    def __call__(
        self,
        probabilities: Float[ndarray, "l h w"],
        seeds: Bool[ndarray, "l h w"],
        present: Bool[ndarray, " l"],
    ) -> Bool[ndarray, "l h w"]:
        """The seeds with what they grow to; a class without a seed grows nowhere.

        Args:
            probabilities: of background and all classes, by label; refined by a CRF in the source.
            seeds: the cues of each label. A pixel may be a seed of several; it stays one of each.
            present: labels that the image has. Background always counts as present.

        Raises:
            ValueError: shapes or types do not fit.
        """
        _check(probabilities, seeds, present)
        labels = np.flatnonzero(present | (np.arange(len(present)) == BACKGROUND))
        winner = labels[probabilities[labels].argmax(0)]  # (h, w)
        thresholds = np.where(winner == BACKGROUND, self.sure_background, self.sure_foreground)
        sure = probabilities[labels].max(0) > thresholds
        unseeded = ~seeds.any(0)
        grown = seeds.copy()
        for index in labels:
            grown[index] |= _reached((winner == index) & sure & unseeded, seeds[index])
        return grown


def _reached(free: Bool[ndarray, "h w"], seed: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels, free or seeds, from which a path of such leads to a seed."""
    parts, number = connected_parts(free | seed, _EIGHT_NEIGHBOURS)
    holding = np.zeros(number + 1, bool)
    holding[parts[seed]] = True
    return holding[parts]


def _check(probabilities: ndarray, seeds: ndarray, present: ndarray) -> None:
    shape = probabilities.shape
    if probabilities.ndim != 3 or probabilities.dtype.kind != "f" or 0 in shape:
        raise ValueError(
            "probabilities must be floating (l, h, w) with at least one label and pixel, "
            f"got {probabilities.dtype.name} {shape}"
        )
    if seeds.shape != shape or seeds.dtype != np.bool_:
        raise ValueError(f"seeds must be bool {shape}, got {seeds.dtype.name} {seeds.shape}")
    if present.shape != shape[:1] or present.dtype != np.bool_:
        raise ValueError(
            f"present must be bool {shape[:1]}, got {present.dtype.name} {present.shape}"
        )
