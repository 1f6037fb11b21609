"""From maps of objects in boxes to their masks: what is surely the object, and what may be.

`BoxCRF` is the authors' public code (Lee et al., "BBAM: Bounding Box Attribution Map for Weakly
Supervised Semantic and Instance Segmentation", CVPR 2021; tools/BBAM/make_annotation). For a
threshold th, a box of b pixels and its share a of the image,

    v = the int(b (1 - th))-th largest value in the box, the largest being number 0
    m = blur(min(map / v, 1)),    k = int(16 + 48 sqrt(a)) its deviation and its radius in pixels
    T = CRF(m / max m) > .9

so that th is a share of the box and not a value of the map. `BoxThreshold` is the text's way
(Lee's dissertation, 5.3.3): the map after a CRF is compared with th itself. The field is in
`lattice`; it sees the image as B, G, R, as there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray
from scipy.ndimage import correlate1d

from rayseg.records.boxes import box_problem
from rayseg.refine.lattice import Kernels, Lattice, check_image

NO_MAP = "an object's map says nothing, mask from its box"
NOT_FINITE = "an object's map is not finite, mask from its box"

Place: TypeAlias = tuple[slice, slice]


@dataclass(frozen=True)
class BoxMask:
    """The mask of one object, with its doubts.

    Attributes:
        foreground: bool (h, w), surely the object.
        possible: bool (h, w), the object or doubtful; holds the foreground. What is possible but
            not foreground is to be ignored.
        note: what is to be known of it, empty if nothing.
    """

    foreground: Bool[ndarray, "h w"]
    possible: Bool[ndarray, "h w"]
    note: str = ""

    def __post_init__(self) -> None:
        for name, mask in (("foreground", self.foreground), ("possible", self.possible)):
            if mask.dtype != np.bool_ or mask.ndim != 2:
                raise ValueError(f"{name} must be bool (h, w), got {mask.dtype.name} {mask.shape}")
        if self.foreground.shape != self.possible.shape:
            raise ValueError(
                f"possible must have the size of foreground, {self.foreground.shape}, "
                f"got {self.possible.shape}"
            )
        lost = np.count_nonzero(self.foreground & ~self.possible)
        if lost:
            raise ValueError(f"possible must hold the foreground, got {lost} pixels outside it")


MaskMaker: TypeAlias = Callable[[Float32[ndarray, "h w"], Float[ndarray, " 4"]], BoxMask]
"""A map at its image's size, and a box in pixels, to the object's mask."""


@dataclass(frozen=True, kw_only=True)
class BoxCRF(Kernels):
    """Thresholds by share of the box, a blur, a binary CRF, and another try where little is left.

    Differences from the authors' code: their boxes end one pixel earlier (VOC's last pixel taken as
    the one after it); maps are not stored as JPEG in between; a map that is constant, or zero in
    its box, is treated as an empty one (theirs becomes NaN); and for an empty map from which no
    prior grows to `prior_share` the last try is taken (theirs drops it, and gives the masks of all
    later objects of the image to the wrong ones).

    Source: tools/BBAM/make_annotation/anno_utils.py, get_top_CRF and get_final_mask_with_topCRF.

    Attributes:
        foreground: Threshold of what is surely the object; 1 - foreground is the share of the box
            that is fully weighted. The authors' file says .85, the text .8.
        background: Threshold below which a pixel is surely background.
        blur: Radius of the blur in pixels for a box without area.
        blur_gain: Pixels added to that radius for a box as large as the image.
        sure: Probability after the CRF above which a pixel is of the mask.
        small_share: A mask of at most this share of its box is tried again, see `large_box`.
        large_box: A box of more than this share of the image is not tried again.
        reseeds: Probabilities in the box, outside the mask, that are tried in turn.
        reseed_share: The tries of `reseeds` end at a mask of more than this share of its box.
        priors: Probabilities in the box of an empty map that are tried in turn.
        prior_share: The tries of an empty map end at a mask of more than this share of its box.
    """

    foreground: float = 0.85
    background: float = 0.2
    blur: float = 16
    blur_gain: float = 48
    sure: float = 0.9
    small_share: float = 1 / 5
    large_box: float = 1 / 10
    reseeds: tuple[float, ...] = (0.7, 0.8, 0.9, 0.95, 0.96)
    reseed_share: float = 1 / 3
    priors: tuple[float, ...] = (0.7, 0.8, 0.9, 0.95)
    prior_share: float = 1 / 5
    bilateral_sxy: float = 80

    def __post_init__(self) -> None:
        _check_thresholds(self.foreground, self.background)
        if min(self.blur, self.blur_gain) < 0:
            raise ValueError(
                f"blur and blur_gain must not be negative, got {self.blur} and {self.blur_gain}"
            )
        for name in ("reseeds", "priors"):
            tries = getattr(self, name)
            if not tries or not all(0 < probability < 1 for probability in tries):
                raise ValueError(f"{name} must be probabilities between 0 and 1, got {tries}")
        super().__post_init__()

    @classmethod
    def official(cls) -> Self:
        """The values of the authors' public code."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """The text's thresholds, .8 and .2; it has no other value, `BoxThreshold` is its way."""
        return cls(foreground=0.8)

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "o h w"],
        boxes_xyxy: Float[ndarray, "o 4"],
    ) -> list[BoxMask]:
        """The mask of each object, no pixel outside its box.

        Args:
            image: RGB.
            maps: one an object at the image's size, not negative. One that is not finite, or says
                nothing, leaves the box alone to tell.
            boxes_xyxy: in pixels; what lies outside the image is cut off.

        Raises:
            ValueError: shapes, types or values do not fit, or a box names no pixel of the image.
        """
        return _one_by_one(self.on(image), maps, boxes_xyxy)

    def on(self, image: UInt8[ndarray, "h w 3"]) -> MaskMaker:
        """The same for one object of an image after the other, map and box to mask."""
        return partial(self._mask, _ObjectField(self, image))

    def _mask(
        self, field: _ObjectField, map_: Float32[ndarray, "h w"], box_xyxy: Float[ndarray, " 4"]
    ) -> BoxMask:
        box = _checked_place(map_, box_xyxy, field.shape)
        why = _why_empty(map_, box)
        if why:
            mask = self._from_prior(field, box)
            return BoxMask(mask, mask, why)
        levels = (self.foreground, self.background)
        foreground, lax = (self._top(field, map_, box, level) for level in levels)
        return BoxMask(foreground, lax | foreground)

    def _top(
        self, field: _ObjectField, map_: Float32[ndarray, "h w"], box: Place, threshold: float
    ) -> Bool[ndarray, "h w"]:
        clipped = saturate_top(map_.astype(np.float64), box, threshold)
        part = clipped[box].size / clipped.size
        wide = _only(blur_box(clipped, box, int(self.blur + self.blur_gain * part**0.5)), box)
        # the smallest value is above 0 only where the box fills the image, and is, as there, taken
        # off without dividing by what is left
        mask = field((wide - wide.min()) / wide.max(), box) > self.sure
        if mask.sum() > self.small_share * mask[box].size or part > self.large_box:
            return mask
        return self._grown(field, mask, box, self.reseeds, self.reseed_share)

    def _from_prior(self, field: _ObjectField, box: Place) -> Bool[ndarray, "h w"]:
        return self._grown(field, np.zeros(field.shape, bool), box, self.priors, self.prior_share)

    def _grown(
        self,
        field: _ObjectField,
        mask: Bool[ndarray, "h w"],
        box: Place,
        probabilities: tuple[float, ...],
        share: float,
    ) -> Bool[ndarray, "h w"]:
        """The first mask of more than that share of the box, else the last."""
        found = mask
        for probability in probabilities:
            seed = _only(np.full(mask.shape, probability), box)
            found = field(np.where(mask, 1.0, seed), box) > self.sure
            if found.sum() > share * found[box].size:
                break
        return found


@dataclass(frozen=True, kw_only=True)
class BoxThreshold(Kernels):
    """Two thresholds on the map itself: "pixels whose attribution values are higher than" one.

    "Therefore we refine the BBAM using CRFs": the map and its rest to 1 are the probabilities of
    the CRF, and what it gives is compared. The text names no constant of it; those of `BoxCRF`.
    What lies outside the box is background, which the text does not say. Where a map says nothing,
    the whole box is doubtful, since it is known to hold an object.

    Source: Lee's dissertation, 5.3.3 and 5.4.1.

    Attributes:
        foreground: Value above which a pixel is surely the object.
        background: Value below which a pixel is surely background.
        crf: The map is refined by a CRF first.
    """

    foreground: float = 0.8
    background: float = 0.2
    crf: bool = True
    bilateral_sxy: float = 80

    def __post_init__(self) -> None:
        _check_thresholds(self.foreground, self.background)
        super().__post_init__()

    @classmethod
    def official(cls) -> Self:
        """The text's values: the authors' code has no thresholds of values."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """The text's values."""
        return cls()

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "o h w"],
        boxes_xyxy: Float[ndarray, "o 4"],
    ) -> list[BoxMask]:
        """The mask of each object (see `BoxCRF.__call__`); maps must lie in [0, 1] where finite."""
        return _one_by_one(self.on(image), maps, boxes_xyxy)

    def on(self, image: UInt8[ndarray, "h w 3"]) -> MaskMaker:
        """The same for one object of an image after the other, map and box to mask."""
        return partial(self._mask, _ObjectField(self, image))

    def _mask(
        self, field: _ObjectField, map_: Float32[ndarray, "h w"], box_xyxy: Float[ndarray, " 4"]
    ) -> BoxMask:
        box = _checked_place(map_, box_xyxy, field.shape)
        highest = np.max(map_, initial=0, where=np.isfinite(map_))
        if highest > 1:
            raise ValueError(f"maps must lie in [0, 1], got {highest}")
        why = _why_empty(map_, box)
        if why:
            inside = _only(np.ones(map_.shape, bool), box)
            return BoxMask(np.zeros_like(inside), inside, why)
        values = _only(map_, box)
        values = field(values, box) if self.crf else values
        possible = _only(values >= self.background, box)
        return BoxMask(possible & (values > self.foreground), possible)


class _ObjectField:
    """The binary CRF of one image, built with the first object and shared by all.

    It sees the whole image: a window of 80 pixels around the box changes masks (mean IoU .984 over
    12 objects of VOC) and, with a lattice of its own an object, takes nine tenths of the time.
    """

    def __init__(self, crf: BoxCRF | BoxThreshold, image: UInt8[ndarray, "h w 3"]) -> None:
        check_image(image)
        self._crf = crf
        self._image = image[..., ::-1]  # B, G, R
        self._lattice: Lattice | None = None
        self.shape = (image.shape[0], image.shape[1])

    def __call__(self, prob_fg: Float[ndarray, "h w"], box: Place) -> Float32[ndarray, "h w"]:
        """The object's refined probability, 0 outside its box."""
        self._lattice = self._lattice or Lattice(self._crf, self._image, 2)
        planes = np.stack([prob_fg, 1 - prob_fg])  # (2, h, w)
        refined = self._lattice.refine(planes, self._crf.iterations)
        # with the official weights, together less than -log 1e-5, no pixel outside the box is won
        return _only(refined[0], box)


def saturate_top(
    map_: Float[ndarray, "h w"], box: Place, threshold: float
) -> Float[ndarray, "h w"]:
    """The map over the value that 1 - threshold of the box reach, at most 1, 0 outside the box."""
    inside = _only((map_ - map_.min()) / map_.max(), box)
    values = np.sort(inside[box], axis=None)[::-1]
    value = values[min(int(len(values) * (1 - threshold)), len(values) - 1)]
    return np.clip(inside / (value + 1e-8), 0, 1)


def blur_box(values: Float[ndarray, "h w"], box: Place, radius: int) -> Float[ndarray, "h w"]:
    """A Gaussian blur of that radius and deviation in pixels, as OpenCV's; right in the box only.

    Args:
        values: 0 outside the box.
        box: where to look.
        radius: 0 changes nothing.
    """
    if radius == 0:
        return values
    steps = np.arange(-radius, radius + 1)
    kernel = np.exp(-(steps**2) / (2 * radius**2))
    reach = tuple(slice(max(side.start - radius, 0), side.stop + radius) for side in box)
    blurred = values.copy()
    for axis in (0, 1):
        blurred[reach] = correlate1d(blurred[reach], kernel / kernel.sum(), axis, mode="mirror")
    return blurred


def box_slices(box_xyxy: Float[ndarray, " 4"], size_hw: tuple[int, int]) -> Place:
    """Rows and columns of an image whose centres lie in a box; of a thin one, those it touches."""
    x1, y1, x2, y2 = box_xyxy.tolist()
    height, width = size_hw
    return _span(y1, y2, height), _span(x1, x2, width)


def _span(low: float, high: float, size: int) -> slice:
    start = int(np.clip(np.ceil(low - 0.5), 0, size - 1))
    stop = int(np.clip(np.ceil(high - 0.5), 0, size))
    if stop > start:
        return slice(start, stop)
    start = int(np.clip(np.floor((low + high) / 2), 0, size - 1))
    return slice(start, start + 1)


def _only(values: ndarray, box: Place) -> ndarray:
    kept = np.zeros_like(values)
    kept[box] = values[box]
    return kept


def _why_empty(map_: Float32[ndarray, "h w"], box: Place) -> str:
    if not np.isfinite(map_).all():
        return NOT_FINITE
    # a constant map has no values left when its smallest is taken off
    return NO_MAP if map_[box].max() <= map_.min() else ""


def _one_by_one(make: MaskMaker, maps: ndarray, boxes_xyxy: ndarray) -> list[BoxMask]:
    if boxes_xyxy.ndim != 2 or boxes_xyxy.shape[1:] != (4,):
        raise ValueError(f"boxes_xyxy must be (o, 4), one row an object, got {boxes_xyxy.shape}")
    if maps.ndim != 3 or len(maps) != len(boxes_xyxy):
        raise ValueError(f"maps must be (o, h, w) with o = {len(boxes_xyxy)}, got {maps.shape}")
    return [make(*pair) for pair in zip(maps, boxes_xyxy, strict=True)]


def _checked_place(map_: ndarray, box_xyxy: ndarray, size_hw: tuple[int, int]) -> Place:
    if map_.dtype != np.float32 or map_.shape != size_hw:
        raise ValueError(
            f"maps must be float32 and each {size_hw} as the image, "
            f"got {map_.dtype.name} {map_.shape}"
        )
    lowest = np.min(map_, initial=0, where=np.isfinite(map_))
    if lowest < 0:
        raise ValueError(f"maps must not be negative, got {lowest}")
    problem = box_problem(box_xyxy, size_hw)
    if problem:
        raise ValueError(problem)
    return box_slices(box_xyxy, size_hw)


def _check_thresholds(foreground: float, background: float) -> None:
    if not 0 < background <= foreground <= 1:
        raise ValueError(
            "foreground and background must have 0 < background <= foreground <= 1, "
            f"got {foreground} and {background}"
        )
