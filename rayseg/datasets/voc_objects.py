"""Which mask of VOC's SegmentationObject belongs to which object of the XML."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.boxes import box_ious, mask_extent
from rayseg.records.palette import decode_labels
from rayseg.records.rle import encode_mask

_MIN_IOU = 0.5  # of a box and the extent of its mask


def true_masks(
    objects: UInt8[ndarray, "h w"] | None,
    labels: UInt8[ndarray, "h w"] | None,
    boxes_xyxy: Float[ndarray, "o 4"],
    classes: Sequence[int],
    places: Sequence[int],
) -> tuple[bytes, ...]:
    """Counts of each object, empty for one without a mask; () where no object has one.

    Args:
        objects: one value an object; None where there is no such mask.
        labels: the semantic mask; None matches by place alone.
        boxes_xyxy: of the objects that are kept, in the order of the XML.
        classes: class index of each.
        places: which object of the XML each is, from 0.
    """
    if objects is None or not classes:
        return ()
    values = match_objects(boxes_xyxy, classes, objects, labels, places)
    if not values:
        return ()
    return tuple(
        encode_mask(objects == values[i]) if i in values else b"" for i in range(len(classes))
    )


def read_values(path: Path | None, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"] | None:
    """The values of an indexed PNG; None where it is missing, broken or of another size."""
    if path is None or not path.is_file():
        return None
    try:
        values = decode_labels(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values if values.shape == size_hw else None


def match_objects(
    boxes_xyxy: Float[ndarray, "o 4"],
    classes: Sequence[int],
    objects: UInt8[ndarray, "h w"],
    labels: UInt8[ndarray, "h w"] | None,
    places: Sequence[int] | None = None,
) -> dict[int, int]:
    """Which value of an object mask belongs to which box.

    An XML may list fewer objects than the mask has, and in another order: object k takes value
    k + 1 where it fits, and what is left is matched by overlap, the largest first. A pair fits
    where the class of most of the value's pixels is the box's, and box and extent have an IoU over
    0.5.

    Args:
        boxes_xyxy: of the objects, in the order of the XML.
        classes: class index of each.
        objects: one value an object; 0 background, 255 border.
        labels: the semantic mask; None matches by place alone.
        places: which object of the XML each box is of, from 0; None where all are there.
    """
    values = [int(value) for value in np.unique(objects) if value not in (BACKGROUND, IGNORE)]
    fit = np.zeros((len(boxes_xyxy), 256))
    for value in values:
        mask = objects == value
        overlap = box_ious(boxes_xyxy, mask_extent(mask)[None])[:, 0]
        same = labels is None or np.equal(classes, np.bincount(labels[mask]).argmax() - 1)
        fit[:, value] = np.where(same & (overlap > _MIN_IOU), overlap, 0)
    numbers = range(len(fit)) if places is None else places
    matched = {i: k + 1 for i, k in enumerate(numbers) if k + 1 < IGNORE and fit[i, k + 1]}
    for i, value in matched.items():
        fit[i, :], fit[:, value] = 0, 0
    while fit.any():
        i, value = (int(place) for place in np.unravel_index(fit.argmax(), fit.shape))
        matched[i] = value
        fit[i, :], fit[:, value] = 0, 0
    return matched
