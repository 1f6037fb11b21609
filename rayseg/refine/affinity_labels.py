"""The labels from which PSA's AffinityNet learns: two soft CRFs, one with much background.

With background (1 - max of maps)^alpha, a low alpha makes much background and a high one little.
What is a class against much background is sure, and so is what is background against little:

    label = 0 where the high side says background, else the class where the low side says one,
            else 255

IRN's rule (cam_to_ir_label), with two thresholds in place of two exponents, is `crf.LabelCRF`.

Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity", CVPR 2018 (PSA; infer_cls.py,
voc12/data.py and tool/imutils.py of its code, METHODS 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray

from rayseg.records import BACKGROUND, IGNORE
from rayseg.refine.crf import (
    ON_SEAM,
    PSAKernels,
    check_arguments,
    label_values,
    with_power_background,
)


@dataclass(frozen=True, kw_only=True)
class AffinityLabels(PSAKernels):
    """PSA's labels: what either of two CRFs is sure of, 255 between.

    Attributes:
        low_alpha: Exponent of the background against which foreground must be sure.
        high_alpha: Exponent of the background that is sure; 24 on SEAM's maps.
    """

    low_alpha: float = 4.0
    high_alpha: float = 32.0

    def __post_init__(self) -> None:
        if not 0 < self.low_alpha <= self.high_alpha:
            raise ValueError(
                "low_alpha must be positive and not exceed high_alpha, "
                f"got {self.low_alpha} and {self.high_alpha}"
            )
        super().__post_init__()

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """PSA's values, or SEAM's on maps of SEAM and of AdvCAM on it (METHODS 2)."""
        return cls(high_alpha=24.0) if method in ON_SEAM else cls()

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0, class index + 1 or 255 (see `LabelCRF.__call__` for the arguments)."""
        low, high = self.probabilities(image, maps, classes)
        return joined_labels(low, high, classes)

    def probabilities(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> Float32[ndarray, "2 k+1 h w"]:
        """Those of background and classes by the low and by the high alpha, on one lattice."""
        check_arguments(image, maps, classes)
        alphas = (self.low_alpha, self.high_alpha)
        sides = [with_power_background(maps, alpha) for alpha in alphas]
        return np.stack(self.refine(image, sides) if len(classes) else sides)


def joined_labels(
    low: Float[ndarray, "k+1 y x"], high: Float[ndarray, "k+1 y x"], classes: Sequence[int]
) -> UInt8[ndarray, "y x"]:
    """The labels of two sides, 255 between them and where no plane has a score.

    PSA averages both over 8x8 pixels before, so that the grid is its network's; beyond the border
    of a crop all planes are 0 there.

    Args:
        low: scores of background and classes by the low alpha.
        high: ... by the high one.
        classes: class index of each plane but the first.
    """
    labels = label_values(classes)[low.argmax(0)]
    labels[labels == BACKGROUND] = IGNORE
    labels[high.argmax(0) == BACKGROUND] = BACKGROUND
    labels[np.maximum(low, high).max(0) < 1e-5] = IGNORE
    return labels
