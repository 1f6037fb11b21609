"""Binary masks as COCO's run-length codes: bytes of counts, column by column."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from pycocotools import mask as codec


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
