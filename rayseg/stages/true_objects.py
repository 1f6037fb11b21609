"""True masks of single objects, from a manifest or out of semantic masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rayseg.labels import Truths
from rayseg.records.boxes import box_ious, box_problem, mask_extent
from rayseg.records.rle import decode_mask
from rayseg.store import Folder, manifest_rows_by_id, read_manifest


@dataclass(frozen=True)
class AloneInBox:
    """When a semantic mask tells one object from the others: it is alone of its class there.

    Attributes:
        min_iou: of the box with the extent of its class's pixels in and just around it.
        margin: what around means, as a share of the box's sides.
        max_overlap: IoU with any other box of the class.
        min_pixels: of the object.
    """

    min_iou: float = 0.85
    margin: float = 0.1
    max_overlap: float = 0.0
    min_pixels: int = 100

    def __call__(
        self,
        boxes_xyxy: Float[ndarray, "o 4"],
        classes: Sequence[int],
        labels: UInt8[ndarray, "h w"],
    ) -> dict[int, Bool[ndarray, "h w"]]:
        """The mask of each object that can be separated, by its place."""
        overlaps = box_ious(boxes_xyxy, boxes_xyxy)
        same = np.equal.outer(classes, classes) & ~np.eye(len(boxes_xyxy), dtype=bool)
        found = {}
        for i, box in enumerate(boxes_xyxy):
            if box_problem(box, labels.shape) or (overlaps[i][same[i]] > self.max_overlap).any():
                continue
            mask = self._around(box, labels == classes[i] + 1)
            if mask.sum() < self.min_pixels:
                continue
            if box_ious(box[None], mask_extent(mask)[None])[0, 0] >= self.min_iou:
                found[i] = mask
        return found

    def _around(
        self, box: Float[ndarray, " 4"], mask: Bool[ndarray, "h w"]
    ) -> Bool[ndarray, "h w"]:
        sides = (box[2:] - box[:2]) * self.margin
        x1, y1 = np.floor(box[:2] - sides).clip(0).astype(int)
        x2, y2 = np.ceil(box[2:] + sides).astype(int)
        kept = np.zeros_like(mask)
        kept[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
        return kept


class TrueObjects:
    """True masks of objects in the manifest's boxes, by id; a crowd is no object.

    No mask travels to workers: each reads those rows of the manifest that it is asked about.

    Args:
        manifest: with true masks of objects, or else with semantic ones.
        alone: which objects a semantic mask tells apart.
    """

    def __init__(self, manifest: Folder, split: str = "", alone: AloneInBox | None = None):
        table = read_manifest(manifest).select(split).table
        ids, classes = (table.column(name).to_pylist() for name in ("id", "box_classes"))
        boxed = [id_ for id_, own in zip(ids, classes, strict=True) if own]
        columns = ["boxes_xyxy", "box_classes", "crowds", "true_masks"]
        self.rows = manifest_rows_by_id(manifest, boxed, columns)
        self.truths = Truths(manifest, split)
        self.alone = alone or AloneInBox()

    def masks(self, id_: str, size_hw: tuple[int, int]) -> dict[int, Bool[ndarray, "h w"]]:
        """The true masks of an image's objects that are known, by their place in the manifest."""
        row = self.rows.get(id_)
        if row is None:
            return {}
        if any(row["true_masks"]):
            known = {i: counts for i, counts in enumerate(row["true_masks"]) if counts}
            found = {i: decode_mask(counts, size_hw) for i, counts in known.items()}
        else:
            found = self._told_apart(row, size_hw)
        return {i: mask for i, mask in found.items() if i not in row["crowds"]}

    def counted(self, id_: str, size_hw: tuple[int, int]) -> Bool[ndarray, "h w"]:
        """The pixels of an image by which its objects' masks are judged.

        A labelled truth leaves pixels out of both masks (255: VOC's borders), as `Truths.counted`
        says; without one, or with crowds, all count.

        Raises:
            ValueError: the semantic mask is missing, no mask or of another size.
        """
        row = self.rows.get(id_)
        return self.truths.counted(id_, size_hw, row["crowds"] if row else ())

    def _told_apart(
        self, row: Mapping[str, Any], size_hw: tuple[int, int]
    ) -> dict[int, Bool[ndarray, "h w"]]:
        if row["id"] not in self.truths.ids:
            return {}
        boxes = np.array(row["boxes_xyxy"], np.float32)
        return self.alone(boxes, row["box_classes"], self.truths.read(row["id"], size_hw))


def places_of(row: Mapping[str, Any], known: Mapping[str, Any]) -> list[int]:
    """The places in the manifest of the objects of a row of maps or masks; -1 of a strange one.

    Rows stored before they had `places` are compared by box and class.

    Args:
        row: of BOX_MAPS_SCHEMA or INSTANCES_SCHEMA.
        known: the image's row of the manifest, with `boxes_xyxy` and `box_classes`.
    """
    places = list(row.get("places") or ())
    if len(places) == len(row["classes"]):
        return places
    left = dict(enumerate(zip(known["boxes_xyxy"], known["box_classes"], strict=True)))
    for box_xyxy, index in zip(row["boxes_xyxy"], row["classes"], strict=True):
        alike = (
            place
            for place, (box, own) in left.items()
            if own == index and np.allclose(box, box_xyxy, atol=1e-3)
        )
        places.append(next(alike, -1))
        left.pop(places[-1], None)
    return places
