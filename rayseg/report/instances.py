"""Pictures of single objects: their maps, their masks and their boxes on an image."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from PIL import Image

from rayseg.records import IGNORE, Sample
from rayseg.records.rle import decode_mask
from rayseg.report import overlays
from rayseg.report.panels import LabelNames, Mark, Panel, mark_at
from rayseg.store import unpack_grid

MIN_SCORE = 0.3
"""Found objects below it are not shown: AP is taken over a hundred an image, most of them wrong."""


def box_maps_panel(
    caption: str, row: Mapping[str, Any], size_hw: tuple[int, int], names: LabelNames
) -> Panel:
    """A row of BOX_MAPS_SCHEMA: the highest map at each pixel in its class's colour, and boxes.

    A grid's corners are the image's. Objects without a map have their box all the same.
    """
    if not row["classes"]:
        return Panel(caption, missing=f"{row['status']}: no boxes")
    grids = [
        unpack_grid(data) if status == "ok" else np.zeros((1, 1), np.float32)
        for data, status in zip(row["maps"], row["object_status"], strict=True)
    ]
    maps = np.stack([overlays.enlarge_grid(grid, size_hw) for grid in grids])
    layer = overlays.heat_layer(maps, row["classes"], None)
    boxes = _boxes_on(row["boxes_xyxy"], (row["height"], row["width"]), size_hw)
    layer = overlays.draw_boxes(layer, boxes, row["classes"])
    alt = f"{caption}: maps of {_counted(row['classes'], names)}{_without(row['object_status'])}"
    return Panel(caption, alt, overlays.png_uri(layer), labels=_labels(row["classes"]))


def instances_panel(
    caption: str, row: Mapping[str, Any], size_hw: tuple[int, int], names: LabelNames
) -> Panel:
    """A row of INSTANCES_SCHEMA: sure pixels filled, doubtful ones hatched, and boxes.

    Of found objects those are shown whose score is MIN_SCORE or more; the likeliest lies on top.
    """
    image_hw = (row["height"], row["width"])
    ranked = sorted(range(len(row["classes"])), key=lambda i: -row["scores"][i])
    shown = [i for i in ranked if row["scores"][i] >= MIN_SCORE]
    if not shown:
        return Panel(caption, missing=f"no object with a score of {MIN_SCORE} or more")
    classes = [row["classes"][i] for i in shown]
    masks = _masks_on([row["foreground"][i] for i in shown], image_hw, size_hw)
    possible = _masks_on([row["possible"][i] for i in shown], image_hw, size_hw)
    doubtful = np.asarray(possible.any(0) & ~masks.any(0))
    boxes = _boxes_on([row["boxes_xyxy"][i] for i in shown], image_hw, size_hw)
    layer = overlays.object_layer(masks, doubtful, boxes, classes)
    status = [row["object_status"][i] for i in shown]
    alt = f"{caption}: {_counted(classes, names)}{_without(status)}"
    labels = _labels(classes) | (frozenset({IGNORE}) if doubtful.any() else frozenset())
    marks = _marks(masks, classes, names)
    return Panel(caption, alt, overlays.png_uri(layer), labels=labels, marks=marks)


def true_objects_panel(sample: Sample, size_hw: tuple[int, int], names: LabelNames) -> Panel:
    """The data set's own boxes, with the objects' masks where they are known."""
    classes = sample.box_classes.tolist()
    if not classes:
        return Panel("true objects", missing="no boxes")
    image_hw = (sample.height, sample.width)
    masks = _masks_on(sample.true_masks or (b"",) * len(classes), image_hw, size_hw)
    boxes = _boxes_on(sample.boxes_xyxy, image_hw, size_hw)
    layer = overlays.object_layer(masks, np.zeros(size_hw, bool), boxes, classes)
    alt = f"true objects: {_counted(classes, names)}"
    marks = _marks(masks, classes, names)
    return Panel("true objects", alt, overlays.png_uri(layer), labels=_labels(classes), marks=marks)


def _masks_on(
    counts: Sequence[bytes], image_hw: tuple[int, int], size_hw: tuple[int, int]
) -> Bool[ndarray, "o h w"]:
    """Masks at the size of their picture."""
    resized = [
        np.asarray(Image.fromarray(decode_mask(one, image_hw)).resize(size_hw[::-1]))
        for one in counts
    ]
    return np.stack(resized) if resized else np.zeros((0, *size_hw), bool)


def _boxes_on(
    boxes_xyxy: object, image_hw: tuple[int, int], size_hw: tuple[int, int]
) -> Float[ndarray, "o 4"]:
    """Boxes in the pixels of their picture."""
    y, x = (new / old for new, old in zip(size_hw, image_hw, strict=True))
    return np.array(boxes_xyxy, np.float64).reshape(-1, 4) * (x, y, x, y)


def _marks(
    masks: Bool[ndarray, "o h w"], classes: Sequence[int], names: LabelNames
) -> tuple[Mark, ...]:
    """Letters on each object that has a pixel."""
    pairs = zip(masks, classes, strict=True)
    return tuple(mark_at(names.mark(index + 1), mask) for mask, index in pairs if mask.any())


def _labels(classes: Sequence[int]) -> frozenset[int]:
    return frozenset(index + 1 for index in classes)


def _counted(classes: Sequence[int], names: LabelNames) -> str:
    """Number of objects of each class."""
    counts = Counter(names.name(index + 1) for index in classes)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def _without(statuses: Sequence[str]) -> str:
    missed = sum(status != "ok" for status in statuses)
    return f"; {missed} without a map" if missed else ""
