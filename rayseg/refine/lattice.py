"""Mean-field inference of one image's dense conditional random field, for every CRF of this part.

The field: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011. With unary energies U and Potts compatibility, mean-field inference repeats

    Q(x = l) ~ exp( -U(l) + w_1 (k_smooth * Q)(l) + w_2 (k_appearance * Q)(l) )

where k_smooth looks at positions, exp(-|p_i - p_j|^2 / 2 sxy^2), and k_appearance at positions and
colours, exp(-|p_i - p_j|^2 / 2 sxy^2 - |I_i - I_j|^2 / 2 srgb^2). Filtering with k is done on a
permutohedral lattice that depends on the image only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_softmax


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The constants of every CRF; the defaults are deeplab-pytorch's and BBAM's Mask R-CNN's.

    Attributes:
        iterations: Number of mean-field iterations.
        gaussian_sxy: Deviation of the smoothness kernel in pixels.
        gaussian_compat: Weight of the smoothness kernel.
        bilateral_sxy: Deviation of the appearance kernel in position, in pixels.
        bilateral_srgb: Deviation of the appearance kernel in colour, in levels of 0 to 255.
        bilateral_compat: Weight of the appearance kernel.
    """

    iterations: int = 10
    gaussian_sxy: float = 1
    gaussian_compat: float = 3
    bilateral_sxy: float = 67
    bilateral_srgb: float = 3
    bilateral_compat: float = 4

    def __post_init__(self) -> None:
        widths = (self.gaussian_sxy, self.bilateral_sxy, self.bilateral_srgb)
        # lattice coordinates are 16-bit inside pydensecrf, and its issue 98 reports a segmentation
        # fault for tiny widths, which would take a whole worker down
        if min(widths) < 0.1:
            raise ValueError(f"kernel deviations must be at least 0.1, got {widths}")
        if min(self.gaussian_compat, self.bilateral_compat) < 0 or self.iterations < 0:
            raise ValueError(
                "compat and iterations must not be negative, got "
                f"{(self.gaussian_compat, self.bilateral_compat, self.iterations)}"
            )

    def refine(
        self, image: UInt8[ndarray, "h w 3"], given: Sequence[Float32[ndarray, "l h w"]]
    ) -> list[Float32[ndarray, "l h w"]]:
        """What the CRF makes of each of these probabilities of an image's labels, on one lattice.

        They sum to 1 at each pixel, before and after.
        """
        lattice = Lattice(self, image, len(given[0]))
        return [lattice.refine(one, self.iterations) for one in given]


class Lattice:
    """The two kernels of one image, built once and used for any number of unaries.

    Building takes about a third of the time of one CRF (375x500 pixels, 2 or 3 labels; see
    tests/benchmarks/bench_crf.py), and nothing in it depends on the unaries.
    """

    def __init__(self, kernels: Kernels, image: UInt8[ndarray, "h w 3"], num_labels: int) -> None:
        check_image(image)
        self.shape = (num_labels, *image.shape[:2])
        self._field = DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self._field.addPairwiseGaussian(sxy=kernels.gaussian_sxy, compat=kernels.gaussian_compat)
        # pydensecrf takes a C-contiguous, *writable* buffer only; arrays from Ray are read-only
        self._field.addPairwiseBilateral(
            sxy=kernels.bilateral_sxy,
            srgb=kernels.bilateral_srgb,
            rgbim=np.require(image, requirements=["C", "W"]),
            compat=kernels.bilateral_compat,
        )

    def infer(self, unary: Float32[ndarray, "l hw"], iterations: int) -> Float32[ndarray, "l h w"]:
        """Label probabilities after mean-field iterations, summing to 1 at each pixel.

        Args:
            unary: energies -log p of each of the l labels, pixels row by row.
            iterations: 0 gives the normalised unaries.
        """
        self._field.setUnaryEnergy(np.require(unary, np.float32, ["C", "W"]))
        return np.array(self._field.inference(iterations), np.float32).reshape(self.shape)

    def refine(
        self, probabilities: Float32[ndarray, "l h w"], iterations: int
    ) -> Float32[ndarray, "l h w"]:
        """The same from probabilities, which pydensecrf clips at 1e-5 from below."""
        return self.infer(unary_from_softmax(probabilities), iterations)


def check_image(image: ndarray) -> None:
    """Refuses what is no RGB image of 8 bits.

    Raises:
        ValueError: its type or shape does not fit, or it has no pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            "image must be uint8 (h, w, 3) RGB with at least one pixel, "
            f"got {image.dtype.name} {image.shape}"
        )
