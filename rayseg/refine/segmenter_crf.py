"""The CRF on the softmax output of a trained segmenter, with deeplab-pytorch's constants.

Source: Chen et al., "DeepLab", TPAMI 2018, section 3.3, as kazuto1011/deeplab-pytorch has it
(config/voc12.yaml, libs/utils/crf.py and ``crf`` in main.py); the segmenters of AdvCAM and RIB
were tested with that code. The field itself is in `lattice`.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from rayseg.refine.lattice import Kernels, check_image

MEAN_RGB = (122.675, 116.669, 104.008)
"""Levels that deeplab-pytorch subtracts from images; its files list them as B, G, R."""
MAX_LABELS = 255
"""Positions 0 to 254 are labels of a mask; 255 is for pixels to ignore."""


@dataclass(frozen=True)
class SegmenterCRF(Kernels):
    """One CRF over a segmenter's probabilities; every pixel gets a label, no 255.

    The energies are -log of the probabilities, clipped at 1e-5 from below (pydensecrf's
    unary_from_softmax).

    Attributes:
        wrapped_image: The appearance kernel sees what it sees in the authors' code (see
            `wrap_image`) instead of the image. Their published gains include it; it is off as it
            tears colours apart that are alike.
    """

    wrapped_image: bool = False

    def __call__(
        self, image: UInt8[ndarray, "h w 3"], probabilities: Float32[ndarray, "l h w"]
    ) -> UInt8[ndarray, "h w"]:
        """The label of greatest probability after the CRF, as its position 0 to l - 1.

        Args:
            probabilities: of each of the l labels at the image's size, summing to 1 at each pixel.
        """
        return self.probabilities(image, probabilities).argmax(0).astype(np.uint8)

    def probabilities(
        self, image: UInt8[ndarray, "h w 3"], probabilities: Float32[ndarray, "l h w"]
    ) -> Float32[ndarray, "l h w"]:
        """The labels' probabilities after the CRF, summing to 1 at each pixel; see `__call__`."""
        _check(image, probabilities)
        seen = wrap_image(image) if self.wrapped_image else image
        return self.refine(seen, [probabilities])[0]


def wrap_image(image: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w 3"]:
    """The image as deeplab-pytorch gives it to its CRF: without its mean, and cast to uint8.

    The cast cuts decimals off and takes what is negative modulo 256, so that a red of 122 becomes
    0 but one of 121 becomes 255. C leaves the cast of a negative float open; this is what x86
    processors give, made explicit. Their image is BGR, which the kernel cannot tell from RGB.
    """
    without_mean = np.trunc(image - np.array(MEAN_RGB))
    return (without_mean.astype(np.int64) % 256).astype(np.uint8)


def _check(image: ndarray, probabilities: ndarray) -> None:
    check_image(image)
    if (
        probabilities.dtype != np.float32
        or probabilities.ndim != 3
        or probabilities.shape[1:] != image.shape[:2]
        or not 1 <= len(probabilities) <= MAX_LABELS
    ):
        height, width = image.shape[:2]
        raise ValueError(
            f"probabilities must be float32 (l, {height}, {width}) (l = 1 to {MAX_LABELS} labels "
            f"at the image's size), got {probabilities.dtype.name} {probabilities.shape}"
        )
    low, high = probabilities.min(), probabilities.max()
    if not (low >= 0 and high <= 1 + 1e-4):
        raise ValueError(f"probabilities must lie in [0, 1], got {low} to {high}")
    sums = probabilities.sum(0)
    if np.abs(sums - 1).max() > 0.01:
        raise ValueError(
            "probabilities must sum to 1 over the labels at each pixel, "
            f"got sums from {sums.min():.3f} to {sums.max():.3f}"
        )
