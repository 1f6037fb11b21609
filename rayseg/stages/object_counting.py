"""Rows of instances against true objects: their overlaps, for adding up."""

from __future__ import annotations

from typing import Any

from rayseg.rle import decode_mask
from rayseg.stages.rows import Row, Rows
from rayseg.stages.true_objects import TrueObjects, place_of


class CompareObjects:
    """Rows of INSTANCES_SCHEMA made from given boxes to the IoU of each object with its true mask.

    Args:
        truths: the true masks.
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
        known = self.truths.rows.get(row["id"])
        taken: set[int] = set()
        objects = zip(row["boxes_xyxy"], row["classes"], row["foreground"], strict=True)
        for box, own, counts in objects:
            place = place_of(box, own, known, taken) if known else None
            if place is None or place not in masks:
                continue
            taken.add(place)
            truth, made = masks[place], decode_mask(counts, size_hw)
            union = int((truth | made).sum())
            found["ious"].append(int((truth & made).sum()) / union if union else 0.0)
            found["areas"].append(int(truth.sum()))
