"""One annotation of COCO's JSON, checked, and the mask that those of an image draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.datasets.coco_ids import Key, id_key
from rayseg.datasets.coco_outlines import Box, BrokenError, Outline, read_outline
from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.boxes import clip_boxes
from rayseg.records.rle import mask_area, paint

_FARTHEST = 2**24  # whole numbers up to there are exact in float32
_FLAGS = {0: False, 1: True, "0": False, "1": True, "false": False, "true": True, "": False}


@dataclass(frozen=True)
class Annotation:
    """What one annotation says of its image.

    Attributes:
        class_index: its category as a class index.
        box_xyxy: as the JSON has it, else that of the outline; None where there is neither.
        crowd: it is a region of many objects.
        outline: what was read of its segmentation.
        notes: what was taken otherwise than COCO writes it.
    """

    class_index: int
    box_xyxy: Box | None
    crowd: bool
    outline: Outline
    notes: tuple[str, ...] = ()


def read_annotation(
    entry: Mapping[str, Any],
    index: Mapping[Key, int],
    size_hw: tuple[int, int] | None,
    outlines: bool = True,
) -> Annotation:
    """Checks one annotation; everything else of the file may be broken.

    Args:
        index: class index by the key of a category's id.
        size_hw: of the image; None where outlines cannot be read.
        outlines: read them; else only where they say what the box is.

    Raises:
        BrokenError: it cannot be used.
    """
    class_index = _class_index(entry, index)
    box, crowd = _box(entry.get("bbox")), _flag(entry.get("iscrowd"))
    outline = Outline()
    if size_hw is not None and (outlines or box is None):
        outline = read_outline(entry.get("segmentation"), size_hw)
    notes = outline.notes
    if not isinstance(entry.get("iscrowd") or 0, int):
        notes = *notes, "iscrowd is no number"
    if box is None and outline.box_xyxy is not None:
        box = outline.box_xyxy
        notes = *notes, "box is that of the outline"
    if box is None and size_hw is not None:
        notes = *notes, "neither bbox nor outline, so it is a tag alone"
    return Annotation(class_index, box, crowd, outline if outlines else Outline(), notes)


def _class_index(entry: Mapping[str, Any], index: Mapping[Key, int]) -> int:
    given = entry.get("category_id")
    if given is None:
        raise BrokenError("category_id is lacking")
    key = id_key(given)
    if key is None or key not in index:
        raise BrokenError("category is not in the file's list", given)
    return index[key]


def _box(given: object) -> Box | None:
    if given is None or given == []:
        return None
    usable = isinstance(given, list) and len(given) == 4
    if not usable or not all(_is_near(side) for side in given):  # type: ignore[attr-defined]
        raise BrokenError("bbox must be the four numbers x, y, width and height", given)
    x, y, width, height = (float(side) for side in given)  # type: ignore[attr-defined]
    # what tools write that do not know the box
    return (x, y, x + width, y + height) if any((x, y, width, height)) else None


def _is_near(side: object) -> bool:
    """Of a number that float32 can say; NaN is near to nothing."""
    number = isinstance(side, int | float) and not isinstance(side, bool)
    return number and -_FARTHEST <= side <= _FARTHEST  # type: ignore[operator]


def _flag(given: object) -> bool:
    value = given[0] if isinstance(given, list) and len(given) == 1 else given
    value = value.strip().lower() if isinstance(value, str) else value
    if value is None:
        return False
    if not isinstance(value, str | int | float) or value not in _FLAGS:
        raise BrokenError("iscrowd must be 0 or 1", given)
    return _FLAGS[value]


# ---------------------------------------------------------------------------- masks of an image


def rasterise(
    objects: Sequence[Annotation],
    size_hw: tuple[int, int],
    crowd: Literal["ignore", "class"] = "ignore",
) -> UInt8[ndarray, "h w"]:
    """Draws annotations into one semantic mask: larger ones first, so small ones stay on top.

    Pixels to ignore lie beneath all objects: crowds (with ``crowd="ignore"``), and the box of an
    annotation without a usable outline, where the truth is not known. No second plane of pixels is
    held, however many objects there are.

    Args:
        crowd: label of crowd regions: 255, or their class.
    """
    labels = np.full(size_hw, BACKGROUND, np.uint8, order="F")
    for one in objects:
        if not one.outline.counts and one.box_xyxy is not None:
            _ignore_box(labels, one.box_xyxy)
    drawn = []
    for one in objects:
        counts = one.outline.counts
        known = not (one.crowd and crowd == "ignore")
        if counts:
            label = one.class_index + 1 if known else IGNORE
            drawn.append((known, -mask_area(counts, size_hw), counts, label))
    for _, _, counts, label in sorted(drawn, key=lambda layer: layer[:2]):
        paint(labels, counts, label)
    return np.ascontiguousarray(labels)


def _ignore_box(labels: UInt8[ndarray, "h w"], box_xyxy: Box) -> None:
    x1, y1, x2, y2 = box_xyxy
    corners = np.array([[floor(x1), floor(y1), ceil(x2), ceil(y2)]])
    left, top, right, bottom = clip_boxes(corners, labels.shape).astype(int)[0]
    labels[top:bottom, left:right] = IGNORE
