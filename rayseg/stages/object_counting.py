"""Rows of instances against true objects: their overlaps, for adding up."""

from typing import Any

from rayseg.records.rle import decode_mask
from rayseg.scores import mask_iou
from rayseg.stages.rows import Row, Rows
from rayseg.stages.true_objects import TrueObjects, places_of


class CompareObjects:
    """Rows of INSTANCES_SCHEMA made from given boxes to the IoU of each object with its true mask.

    Pixels that the truth ignores, such as VOC's borders, are left out of both masks.
    """

    def __init__(self, truths: TrueObjects):
        self.truths = truths

    def __call__(self, rows: Rows) -> Rows:
        """One row: `ious` and true `areas` in pixels, an entry an object.

        `skipped` lists the id and the reason of each image whose truth cannot be used.
        """
        found: dict[str, list[Any]] = {"ious": [], "areas": []}
        skipped = []
        for row in rows:
            try:
                self._compare(row, found)
            except (ValueError, OSError) as error:
                skipped.append({"id": row["id"], "reason": str(error)})
        return [{**found, "skipped": skipped}]

    def _compare(self, row: Row, found: dict[str, list[Any]]) -> None:
        size_hw = (row["height"], row["width"])
        masks = self.truths.masks(row["id"], size_hw)
        if not masks:
            return
        counted = self.truths.counted(row["id"], size_hw)
        known = self.truths.rows[row["id"]]
        for place, counts in zip(places_of(row, known), row["foreground"], strict=True):
            if place not in masks:
                continue
            truth, made = masks[place], decode_mask(counts, size_hw)
            found["ious"].append(mask_iou(made, truth, counted))
            found["areas"].append(int((truth & counted).sum()))
