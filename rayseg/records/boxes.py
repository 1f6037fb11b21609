"""Boxes as arrays: areas, overlaps, and what can be wrong with one.

A box is (x, y) of its upper left corner and (x, y) of its lower right one, exclusive, in pixels.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


def box_areas(boxes_xyxy: Float[ndarray, "o 4"]) -> Float[ndarray, " o"]:
    """Areas in square pixels; 0 for a box that is upside down."""
    sides = np.clip(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0, None)
    return sides[:, 0] * sides[:, 1]


def box_ious(a: Float[ndarray, "m 4"], b: Float[ndarray, "o 4"]) -> Float[ndarray, "m o"]:
    """Intersection over union of every pair; 0 where both are empty."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    union = box_areas(a)[:, None] + box_areas(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def clip_boxes(
    boxes_xyxy: Float[ndarray, "o 4"], size_hw: tuple[int, int]
) -> Float[ndarray, "o 4"]:
    """The parts of boxes that lie in an image."""
    height, width = size_hw
    return np.clip(boxes_xyxy, 0, np.array([width, height, width, height], boxes_xyxy.dtype))


def mask_extent(mask: Bool[ndarray, "h w"]) -> Float[ndarray, " 4"]:
    """The smallest box, float32, around the pixels of a mask, which must have some."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def box_problem(box_xyxy: Float[ndarray, " 4"], size_hw: tuple[int, int]) -> str:
    """Why a box names no pixels of an image; empty where it does.

    A box that reaches over the edge is good: what lies in the image counts.
    """
    x1, y1, x2, y2 = (float(side) for side in box_xyxy)
    shown = f"({x1:g}, {y1:g}, {x2:g}, {y2:g})"
    if not np.isfinite([x1, y1, x2, y2]).all():
        return f"box must be four numbers, got {shown}"
    if x2 <= x1 or y2 <= y1:
        return f"box must have x1 < x2 and y1 < y2, got {shown}"
    height, width = size_hw
    if x1 > width - 1 or y1 > height - 1 or x2 < 1 or y2 < 1:
        return f"box must lie in the image of {width}x{height}, got {shown}"
    return ""
