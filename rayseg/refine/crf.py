"""Masks from maps by a dense conditional random field, and by a plain threshold.

The field itself is in `lattice`.

`LabelCRF` is IRN's cam_to_ir_label (Ahn et al., CVPR 2019); `SoftCRF` takes PSA's energies and
constants (Ahn and Kwak, CVPR 2018); `Threshold` is the seed itself.

The dissertation applies "CRF [75]" to initial seeds and follows "the procedure of Ahn et al. [2]"
(IRN) for masks. It states no threshold and no constant of the CRF, so the presets `as_written` are
IRN's (PSA's for `SoftCRF`) for every attribution method; `official` are those of a method's code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from jaxtyping import Float32, Integer, UInt8
from numpy import ndarray
from pydensecrf.utils import unary_from_labels

from rayseg.records import IGNORE, MAX_CLASSES
from rayseg.refine.lattice import Kernels, Lattice, check_image

# (fg_threshold, bg_threshold) that each method's public code gives to cam_to_ir_label. Grad-CAM has
# no code for labels; it is CAM's map for these classifiers, and takes CAM's values.
OFFICIAL_THRESHOLDS = {
    "cam": (0.30, 0.05),
    "gradcam": (0.30, 0.05),
    "advcam": (0.35, 0.15),
    "rib": (0.35, 0.17),
    "wood": (0.30, 0.15),
}


@dataclass(frozen=True)
class Threshold:
    """``argmax([threshold, maps])``: the seed as IRN's eval_cam scores it, without CRF.

    Attributes:
        threshold: Value of the background; a tie goes to background. 0.15 is IRN's single value.
            The best one differs by method (sweeps: AdvCAM .15-.34, RIB .20-.49, W-OoD .08-.14).
    """

    threshold: float = 0.15

    from_thresholds: ClassVar[tuple[str, ...]] = ("threshold",)
    """Fields that take a method's thresholds, that of sure foreground first."""

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """IRN's value; the other codes sweep and name no single one."""
        return cls()

    @classmethod
    def as_written(cls, method: str = "cam") -> Self:
        """The dissertation reports the best of a sweep and names no value; IRN's."""
        return cls()

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0 and class index + 1 (see `LabelCRF.__call__` for the arguments)."""
        check_arguments(image, maps, classes)
        return label_values(classes)[_winners(maps, self.threshold)]


@dataclass(frozen=True, kw_only=True)
class LabelCRF(Kernels):
    """Two CRFs of one image, a strict and a lax one; where they disagree the label is "unsure".

    Source: IRN's step/cam_to_ir_label.py and misc/imutils.py, crf_inference_label.

    Attributes:
        fg_threshold: Background value that foreground must exceed to be sure; IRN has .30.
        bg_threshold: Background value below which background is sure; IRN has .05.
        gt_prob: Probability that the unary gives to the thresholded label, the rest in equal parts.
    """

    fg_threshold: float = 0.30
    bg_threshold: float = 0.05
    gt_prob: float = 0.7
    gaussian_sxy: float = 3
    bilateral_sxy: float = 50
    bilateral_srgb: float = 5
    bilateral_compat: float = 10

    from_thresholds: ClassVar[tuple[str, ...]] = ("fg_threshold", "bg_threshold")

    def __post_init__(self) -> None:
        if not 0 < self.gt_prob < 1:
            raise ValueError(f"gt_prob must lie between 0 and 1, got {self.gt_prob}")
        if self.bg_threshold > self.fg_threshold:
            raise ValueError(
                "bg_threshold must not exceed fg_threshold, "
                f"got {self.bg_threshold} and {self.fg_threshold}"
            )
        super().__post_init__()

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """The values of an attribution method's public code; see OFFICIAL_THRESHOLDS.

        Raises:
            ValueError: there are none (FickleNet labels by DSRG, BBAM by boxes).
        """
        if method not in OFFICIAL_THRESHOLDS:
            raise ValueError(
                f"no official CRF thresholds for {method!r}; there are some for "
                f"{', '.join(OFFICIAL_THRESHOLDS)}; otherwise give fg_threshold and bg_threshold"
            )
        fg_threshold, bg_threshold = OFFICIAL_THRESHOLDS[method]
        return cls(fg_threshold=fg_threshold, bg_threshold=bg_threshold)

    @classmethod
    def as_written(cls, method: str = "cam") -> Self:
        """IRN's values whatever the method: the dissertation states no others."""
        return cls()

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels of an image, 255 where the two CRFs disagree about background.

        A pixel gets class index + 1 where the strict CRF (fg_threshold) says so, 0 where both say
        background, else 255.

        Args:
            image: RGB.
            maps: localization maps of the present classes at the image's size, in [0, 1].
            classes: class index of each map. Without any, all is background and no CRF is run.
        """
        check_arguments(image, maps, classes)
        sides = [_winners(maps, threshold) for threshold in (self.fg_threshold, self.bg_threshold)]
        strict, lax = self.refine_labels(image, sides, len(classes) + 1)
        labels = label_values(classes)[strict]
        labels[(strict == 0) & (lax != 0)] = IGNORE
        return labels

    def refine_labels(
        self,
        image: UInt8[ndarray, "h w 3"],
        labelings: Sequence[Integer[ndarray, "h w"]],
        num_labels: int,
    ) -> list[Integer[ndarray, "h w"]]:
        """The CRF of each labeling of one image, on one lattice.

        Args:
            labelings: local labels 0 to num_labels - 1, no 255.
            num_labels: l, background included.

        Returns:
            For each labeling the local label of greatest probability.
        """
        # labelings of one label stay as they are: the kernels' weights are positive, so every
        # message favours the label that all pixels favour already
        if all((labels == labels.flat[0]).all() for labels in labelings):
            return [labels.copy() for labels in labelings]
        lattice = Lattice(self, image, num_labels)
        refined = []
        for labels in labelings:
            unary = unary_from_labels(labels, num_labels, self.gt_prob, zero_unsure=False)
            refined.append(lattice.infer(unary, self.iterations).argmax(0))
        return refined


ON_SEAM = ("seam", "advcam_seam")
"""Methods whose maps SEAM's constants of PSA are for; the second has no code, and takes them."""


@dataclass(frozen=True, kw_only=True)
class PSAKernels(Kernels):
    """The constants of the CRFs of PSA's code."""

    gaussian_sxy: float = 3
    bilateral_sxy: float = 80
    bilateral_srgb: float = 13
    bilateral_compat: float = 10

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """PSA's values, whatever made the maps: no other method's code has such a CRF."""
        return cls()

    @classmethod
    def as_written(cls, method: str = "cam") -> Self:
        """PSA's values: the dissertation states no others."""
        return cls()


@dataclass(frozen=True, kw_only=True)
class SoftCRF(PSAKernels):
    """One CRF over the probabilities of background and classes; every pixel gets a label, no 255.

    The energies are -log of [background, maps], divided by their sum at each pixel and clipped at
    1e-5 (pydensecrf's unary_from_softmax). PSA does not divide; a factor common to all labels of a
    pixel cancels in the CRF, so that only the clip can tell the two apart.

    Source: PSA's tool/imutils.py, crf_inference, and infer_cls.py, _crf_with_alpha.

    Attributes:
        background: Source of the background plane: ``power`` is PSA's (1 - max of maps) ** alpha,
            ``constant`` is ``threshold`` everywhere.
        alpha: Exponent of ``power``; PSA computes 4 (low: much background) and 32 (high), and makes
            its unsure label of the two. 4 is the default: background wins below a map of .28.
        threshold: Value of ``constant``; IRN has .15.
    """

    background: Literal["power", "constant"] = "power"
    alpha: float = 4.0
    threshold: float = 0.15

    def __post_init__(self) -> None:
        if self.background not in {"power", "constant"}:
            raise ValueError(f"background must be 'power' or 'constant', got {self.background!r}")
        if self.alpha <= 0 or not 0 < self.threshold <= 1:
            raise ValueError(
                "alpha must be positive and threshold in (0, 1], "
                f"got {self.alpha} and {self.threshold}"
            )
        super().__post_init__()

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0 and class index + 1 (see `LabelCRF.__call__` for the arguments)."""
        return label_values(classes)[self.probabilities(image, maps, classes).argmax(0)]

    def probabilities(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> Float32[ndarray, "k+1 h w"]:
        """Refined probabilities of background and of each class, summing to 1 at each pixel."""
        check_arguments(image, maps, classes)
        if self.background == "power":
            planes = with_power_background(maps, self.alpha)
        else:
            planes = _with_background(maps, np.full(maps.shape[1:], self.threshold, np.float32))
        return self.refine(image, [planes])[0] if len(classes) else planes


def with_power_background(
    maps: Float32[ndarray, "k h w"], alpha: float
) -> Float32[ndarray, "k+1 h w"]:
    """PSA's background (1 - max of maps) ** alpha before the maps, divided by their sum."""
    return _with_background(maps, (1 - maps.max(0, initial=0)) ** np.float32(alpha))


def _with_background(
    maps: Float32[ndarray, "k h w"], background: Float32[ndarray, "h w"]
) -> Float32[ndarray, "k+1 h w"]:
    planes = np.concatenate([background[None], maps])
    # where a map is 1 everything else may be 0, but never all planes are
    planes /= planes.sum(0)
    return planes


def _winners(maps: Float32[ndarray, "k h w"], threshold: float) -> Integer[ndarray, "h w"]:
    """``argmax([threshold, maps])``: 0 or 1 + the map's number."""
    plane = np.full((1, *maps.shape[1:]), threshold, np.float32)
    return np.concatenate([plane, maps]).argmax(0)


def label_values(classes: Sequence[int]) -> UInt8[ndarray, " k+1"]:
    """The label of background and of each map."""
    return np.array([0, *(number + 1 for number in classes)], np.uint8)


def check_arguments(image: ndarray, maps: ndarray, classes: Sequence[int]) -> None:
    """Refuses what no refiner takes; see `LabelCRF.__call__`.

    Raises:
        ValueError: shapes, types or classes do not fit.
    """
    check_image(image)
    expected = (len(classes), *image.shape[:2])
    if maps.dtype != np.float32 or maps.shape != expected:
        raise ValueError(
            f"maps must be float32 {expected} (k = {len(classes)} classes at the image's size), "
            f"got {maps.dtype.name} {maps.shape}"
        )
    if maps.size and not (maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(f"maps must lie in [0, 1], got {maps.min()} to {maps.max()}")
    if len(set(classes)) != len(classes) or any(not 0 <= c < MAX_CLASSES for c in classes):
        raise ValueError(
            f"classes must be different indices from 0 to {MAX_CLASSES - 1}, got {tuple(classes)}"
        )
