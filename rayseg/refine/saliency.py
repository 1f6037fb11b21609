"""Saliency as extra supervision: the pixels on which mask and saliency map disagree are ignored.

"When a foreground pixel in a pseudo label is identified as background on this map, or a background
pixel is identified as foreground, we ignore such pixels in the training of the segmentation
network." The maps are class-agnostic and come from elsewhere; the dissertation takes those of Li
et al. and of Yao et al.

Source: Lee's dissertation, 3.4.3 and Table 3.7; Lee et al., "Reducing Information Bottleneck for
Weakly Supervised Semantic Segmentation", NeurIPS 2021.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.records import BACKGROUND, IGNORE


@dataclass(frozen=True)
class SaliencyAgreement:
    """Keeps the labels that a saliency map agrees with.

    Attributes:
        threshold: Share of full saliency (255) from which a pixel is salient. The source takes
            binary masks and names none; any value in (0, 1] reads those alike.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be in (0, 1], got {self.threshold}")

    def __call__(
        self, labels: UInt8[ndarray, "h w"], saliency: UInt8[ndarray, "h w"]
    ) -> UInt8[ndarray, "h w"]:
        """The labels, 255 where foreground is not salient or background is.

        Args:
            labels: 0 background, class index + 1, 255 to ignore; what is 255 stays so.
            saliency: 0 not salient to 255 fully.
        """
        _check(labels, saliency)
        foreground = labels != BACKGROUND
        salient = saliency / 255 >= self.threshold
        return np.where(foreground == salient, labels, np.uint8(IGNORE))


def _check(labels: ndarray, saliency: ndarray) -> None:
    for name, array in (("labels", labels), ("saliency", saliency)):
        if array.dtype != np.uint8 or array.ndim != 2:
            raise ValueError(f"{name} must be uint8 (h, w), got {array.dtype.name} {array.shape}")
    if labels.shape != saliency.shape:
        raise ValueError(
            f"saliency must have the size of the labels, {labels.shape} pixels (h, w), "
            f"got {saliency.shape}"
        )
