"""One semantic mask of an image from the masks of its objects.

"The pseudo labels [...] can easily be made suitable for semantic segmentation by converting them
from instance-level to class-level. Pixels assigned to two or more object classes are ignored."

Source: Lee's dissertation, 5.3.3; the authors' tools/BBAM/make_annotation/create_semantic_labels.py
for nested boxes.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rayseg.records import IGNORE, MAX_CLASSES
from rayseg.records.boxes import box_areas
from rayseg.refine.box_masks import box_slices


class _TwoMasks(Protocol):
    """What a semantic mask needs of an object's `BoxMask`; it may be decoded when asked for."""

    @property
    def foreground(self) -> Bool[ndarray, "h w"]: ...
    @property
    def possible(self) -> Bool[ndarray, "h w"]: ...


def semantic_labels(
    masks: Sequence[_TwoMasks],
    boxes_xyxy: Float[ndarray, "o 4"],
    classes: Sequence[int],
    size_hw: tuple[int, int],
    keep_nested: bool = True,
    unmasked_xyxy: Float[ndarray, "u 4"] | None = None,
) -> UInt8[ndarray, "h w"]:
    """Labels of all objects together: 0, class index + 1, or 255.

    255 is where objects of two classes meet, where any object is doubtful, whatever another one
    says there, and in the boxes of objects without a mask where else 0 would be.

    Args:
        keep_nested: whether an object whose box lies wholly in another, unequal one keeps its sure
            pixels against all larger objects, as in the authors' code; the text knows no exception.
        unmasked_xyxy: boxes of objects without a mask, crowds among them; each names pixels of the
            image. None for none.
    """
    _check(len(masks), boxes_xyxy, classes)
    labels = np.zeros(size_hw, np.uint8)
    for mask, index in zip(masks, classes, strict=True):
        sure = _of_size(mask.foreground, size_hw)
        taken = labels[sure]
        free = (taken == 0) | (taken == index + 1)
        labels[sure] = np.where(free, np.uint8(index + 1), np.uint8(IGNORE))
    if keep_nested:
        nested = np.flatnonzero(_nested(boxes_xyxy))
        areas = box_areas(boxes_xyxy[nested])
        for i in nested[np.argsort(-areas, kind="stable")]:
            labels[masks[i].foreground] = classes[i] + 1
    for mask in masks:
        labels[mask.possible & ~mask.foreground] = IGNORE
    for box in unmasked_xyxy if unmasked_xyxy is not None else ():
        inside = labels[box_slices(box, size_hw)]
        inside[inside == 0] = IGNORE
    return labels


def _nested(boxes_xyxy: Float[ndarray, "o 4"]) -> Bool[ndarray, " o"]:
    inner, outer = boxes_xyxy[:, None], boxes_xyxy[None]  # (o, 1, 4), (1, o, 4)
    within = (outer[..., :2] <= inner[..., :2]) & (inner[..., 2:] <= outer[..., 2:])
    return (within.all(2) & (inner != outer).any(2)).any(1)


def _of_size(mask: Bool[ndarray, "h w"], size_hw: tuple[int, int]) -> Bool[ndarray, "h w"]:
    if mask.shape != tuple(size_hw):
        raise ValueError(
            f"masks must have the size of the image, {tuple(size_hw)} pixels (h, w), "
            f"got {mask.shape}"
        )
    return mask


def _check(number: int, boxes_xyxy: ndarray, classes: Sequence[int]) -> None:
    if boxes_xyxy.shape != (number, 4) or len(classes) != number:
        raise ValueError(
            f"boxes_xyxy must be ({number}, 4) and classes {number}, one a mask, "
            f"got {boxes_xyxy.shape} and {len(classes)}"
        )
    wrong = [index for index in classes if not 0 <= index < MAX_CLASSES]
    if wrong:
        raise ValueError(f"classes must be indices from 0 to {MAX_CLASSES - 1}, got {wrong[0]}")
