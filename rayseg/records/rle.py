"""Binary masks as COCO's run-length codes: bytes of counts, column by column."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from numpy import ndarray
from pycocotools import mask as codec

_MOST_GROUPS = 7  # of five bits each in a number that fits pycocotools' 32 bits


def encode_mask(mask: Bool[ndarray, "h w"]) -> bytes:
    """Counts of a mask, as in the JSON of COCO once decoded as ascii."""
    return codec.encode(np.asfortranarray(mask, np.uint8))["counts"]


def decode_mask(counts: bytes, size_hw: tuple[int, int]) -> Bool[ndarray, "h w"]:
    """The mask of counts; all False for empty ones."""
    if not counts:
        return np.zeros(size_hw, bool)
    with warnings.catch_warnings():
        # Version 2.0.11 has an __array__ without the copy keyword of numpy 2; the result is right.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return codec.decode(as_rle(counts, size_hw)).astype(bool)


def run_lengths(counts: bytes) -> Int64[ndarray, " r"]:
    """Lengths of the runs that counts say: background first, then object, in turn.

    pycocotools reads on past the end of counts that are none; what comes through here it can read.

    Raises:
        ValueError: the bytes are no counts.
    """
    groups = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(groups) or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("not the characters of compressed counts")
    last = np.flatnonzero(groups < 32)  # of each number
    first = np.concatenate([[0], last[:-1] + 1])
    places = np.arange(len(groups)) - np.repeat(first, last - first + 1)
    if places.max() > _MOST_GROUPS - 1:
        raise ValueError("a number of compressed counts is too large")
    numbers = np.add.reduceat((groups & 31) << (5 * places), first)
    numbers -= np.where(groups[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)
    for start in (1, 2):  # each but the first three is the difference to the one before last
        numbers[start::2] = np.cumsum(numbers[start::2])
    if numbers.min() < 0:
        raise ValueError("a run of compressed counts is shorter than nothing")
    return numbers


def paint(labels: UInt8[ndarray, "h w"], counts: bytes, value: int) -> None:
    """Sets the pixels of a mask, in place and without a copy of it.

    Args:
        labels: in Fortran's order, as the codes go column by column.
    """
    flat = labels.T.reshape(-1)
    ends = np.cumsum(run_lengths(counts))
    for start, end in zip(ends[::2].tolist(), ends[1::2].tolist(), strict=False):
        flat[start:end] = value


def as_rle(counts: bytes, size_hw: tuple[int, int]) -> dict[str, Any]:
    """Counts as pycocotools takes them."""
    return {"size": list(size_hw), "counts": counts}


def mask_area(counts: bytes, size_hw: tuple[int, int]) -> int:
    """Number of pixels of a mask."""
    return int(codec.area(as_rle(counts, size_hw))) if counts else 0


def cut_mask(counts: bytes, kept: bytes, size_hw: tuple[int, int]) -> bytes:
    """Counts of the pixels that two masks share; empty where the first has none."""
    if not counts:
        return b""
    both = [as_rle(one, size_hw) for one in (counts, kept)]
    cut: bytes = codec.merge(both, intersect=True)["counts"]
    return cut


def mask_ious(
    a: Sequence[bytes], b: Sequence[bytes], size_hw: tuple[int, int]
) -> Float[ndarray, "m o"]:
    """Intersection over union of every pair of masks of one image."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    empty = encode_mask(np.zeros(size_hw, bool))
    first, second = ([as_rle(counts or empty, size_hw) for counts in part] for part in (a, b))
    return np.nan_to_num(codec.iou(first, second, [0] * len(b)))
