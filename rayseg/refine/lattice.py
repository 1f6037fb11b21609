"""Mean-field inference of one image's dense conditional random field, for every CRF of this part.

The field: Kraehenbuehl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", NIPS 2011. With unary energies U and Potts compatibility, mean-field inference repeats

    Q(x = l) ~ exp( -U(l) + w_1 (k_smooth * Q)(l) + w_2 (k_appearance * Q)(l) )

where k_smooth looks at positions, exp(-|p_i - p_j|^2 / 2 sxy^2), and k_appearance at positions and
colours, exp(-|p_i - p_j|^2 / 2 sxy^2 - |I_i - I_j|^2 / 2 srgb^2). Filtering with k is done on a
permutohedral lattice that depends on the image only.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from pydensecrf.densecrf import DenseCRF2D


class _Field(Protocol):
    """The constants that every CRF has as its fields."""

    @property
    def iterations(self) -> int: ...
    @property
    def gaussian_sxy(self) -> float: ...
    @property
    def gaussian_compat(self) -> float: ...
    @property
    def bilateral_sxy(self) -> float: ...
    @property
    def bilateral_srgb(self) -> float: ...
    @property
    def bilateral_compat(self) -> float: ...


class Lattice:
    """The two kernels of one image, built once and used for any number of unaries.

    Building takes about a third of the time of one CRF (375x500 pixels, 2 or 3 labels; see
    tests/benchmarks/bench_crf.py), and nothing in it depends on the unaries.
    """

    def __init__(
        self,
        image: UInt8[ndarray, "h w 3"],
        num_labels: int,
        *,
        gaussian_sxy: float,
        gaussian_compat: float,
        bilateral_sxy: float,
        bilateral_srgb: float,
        bilateral_compat: float,
    ) -> None:
        check_image(image)
        self.shape = (num_labels, *image.shape[:2])
        self._field = DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self._field.addPairwiseGaussian(sxy=gaussian_sxy, compat=gaussian_compat)
        # pydensecrf takes a C-contiguous, *writable* buffer only; arrays from Ray are read-only
        self._field.addPairwiseBilateral(
            sxy=bilateral_sxy,
            srgb=bilateral_srgb,
            rgbim=np.require(image, requirements=["C", "W"]),
            compat=bilateral_compat,
        )

    @classmethod
    def of(cls, crf: _Field, image: UInt8[ndarray, "h w 3"], num_labels: int) -> Lattice:
        """The lattice with a CRF's own kernels."""
        return cls(
            image,
            num_labels,
            gaussian_sxy=crf.gaussian_sxy,
            gaussian_compat=crf.gaussian_compat,
            bilateral_sxy=crf.bilateral_sxy,
            bilateral_srgb=crf.bilateral_srgb,
            bilateral_compat=crf.bilateral_compat,
        )

    def infer(self, unary: Float32[ndarray, "l hw"], iterations: int) -> Float32[ndarray, "l h w"]:
        """Label probabilities after mean-field iterations, summing to 1 at each pixel.

        Args:
            unary: energies -log p of each of the l labels, pixels row by row.
            iterations: 0 gives the normalised unaries.
        """
        self._field.setUnaryEnergy(np.require(unary, np.float32, ["C", "W"]))
        return np.array(self._field.inference(iterations), np.float32).reshape(self.shape)


def check_kernels(crf: _Field) -> None:
    """Refuses constants without meaning.

    Raises:
        ValueError: a deviation is under 0.1, a weight or the number of iterations negative.
    """
    widths = (crf.gaussian_sxy, crf.bilateral_sxy, crf.bilateral_srgb)
    # lattice coordinates are 16-bit inside pydensecrf, and its issue 98 reports a segmentation
    # fault for tiny widths, which would take a whole worker down
    if min(widths) < 0.1:
        raise ValueError(f"kernel deviations must be at least 0.1, got {widths}")
    if min(crf.gaussian_compat, crf.bilateral_compat) < 0 or crf.iterations < 0:
        raise ValueError(
            "compat and iterations must not be negative, got "
            f"{(crf.gaussian_compat, crf.bilateral_compat, crf.iterations)}"
        )


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
