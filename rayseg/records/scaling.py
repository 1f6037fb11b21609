"""The size at which a large photograph is seen, and labels and objects at another size."""

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray
from PIL import Image

_LEAST_SIDE = 16


def fit(size_hw: tuple[int, int], longest: int) -> tuple[int, int]:
    """The size of the same shape that has no longer side; a size that fits is kept.

    A very narrow picture stays 16 pixels wide, as networks need.
    """
    factor = longest / max(size_hw)
    if factor >= 1:
        return size_hw
    height, width = (max(round(side * factor), min(side, _LEAST_SIDE)) for side in size_hw)
    return height, width


def shrink_labels(labels: UInt8[ndarray, "h w"], size_hw: tuple[int, int]) -> UInt8[ndarray, "y x"]:
    """Labels at a smaller size: that of the pixel in which the centre of each new one lies."""
    rows, columns = (_nearest(old, new) for old, new in zip(labels.shape, size_hw, strict=True))
    return np.ascontiguousarray(labels[rows[:, None], columns])


def enlarge_labels(
    labels: UInt8[ndarray, "h w"], size_hw: tuple[int, int]
) -> UInt8[ndarray, "y x"]:
    """Labels at a larger size: of each pixel the one that weighs most in bilinear interpolation.

    So edges are smooth and no label is made up. It takes 3 bytes a pixel beside the result, however
    many labels there are.
    """
    best = np.zeros(size_hw, np.uint8)
    made = np.zeros(size_hw, np.uint8)
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
        weight = _enlarged(labels == label, size_hw)
        higher = weight > best
        made[higher] = label
        np.maximum(best, weight, out=best)
    return made


def enlarge_mask(mask: Bool[ndarray, "h w"], size_hw: tuple[int, int]) -> Bool[ndarray, "y x"]:
    """A mask at a larger size: the pixels that are at least half of it, interpolated bilinearly."""
    return _enlarged(mask, size_hw) >= 128


def scale_boxes(
    boxes_xyxy: Float[ndarray, "o 4"], size_hw: tuple[int, int], new_hw: tuple[int, int]
) -> Float[ndarray, "o 4"]:
    """Boxes of a picture of one size, in that picture at another size."""
    (height, width), (new_height, new_width) = size_hw, new_hw
    factors = [new_width / width, new_height / height] * 2
    return (boxes_xyxy * np.array(factors)).astype(np.float32)


def _enlarged(mask: Bool[ndarray, "h w"], size_hw: tuple[int, int]) -> UInt8[ndarray, "y x"]:
    grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(grey.resize(size_hw[::-1], Image.Resampling.BILINEAR))


def _nearest(old: int, new: int) -> Int[ndarray, " new"]:
    return (2 * np.arange(new) + 1) * old // (2 * new)
