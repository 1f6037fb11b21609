"""Counts of seeds and masks against true masks; integers that add."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.labels import Truths, enlarge
from rayseg.records import IGNORE
from rayseg.records.palette import decode_labels
from rayseg.scores import COCO_BOUNDS_PX, Confusion, SizeCounts, TagCounts, ThresholdSweep
from rayseg.stages.rows import Row, Rows
from rayseg.store import unpack_seeds


class SweepSeeds:
    """Rows of SEEDS_SCHEMA to one row of counts for all background thresholds.

    Rows that are not ok, or whose image has no truth, are passed over; `skipped` lists the id and
    reason of each whose truth cannot be used.
    """

    def __init__(self, truths: Truths, thresholds: Sequence[float]):
        self.truths = truths
        self.thresholds = tuple(thresholds)

    def __call__(self, rows: Rows) -> Rows:
        """One row: `counts`, the integers of a `ThresholdSweep`, flat, `images` and `skipped`."""
        total = ThresholdSweep.zeros(self.truths.num_classes, self.thresholds)
        images, skipped = 0, []
        for row in self.truths.rows(rows):
            try:
                one = self._sweep(row)
            except (ValueError, OSError) as error:
                skipped.append({"id": row["id"], "reason": str(error)})
            else:
                total, images = total + one, images + 1
        return [{"counts": total.counts.ravel(), "images": images, "skipped": skipped}]

    def _sweep(self, row: Row) -> ThresholdSweep:
        truth, seeds = self.truths.of(row), unpack_seeds(row)
        return ThresholdSweep.of(
            truth, enlarge(seeds), seeds.classes, self.truths.num_classes, self.thresholds
        )


class CountLabels:
    """Rows of seeds or masks to one row of counts and the mean IoU of each image.

    Rows are passed over, and skipped, as `SweepSeeds` does.

    Args:
        truths: what to count against.
        threshold: background value that turns seeds into labels; None for rows of masks.
        bounds_px: pixels at which medium and large objects begin, as `SizeCounts` has it.
    """

    def __init__(
        self,
        truths: Truths,
        threshold: float | None = None,
        bounds_px: tuple[int, int] = COCO_BOUNDS_PX,
    ):
        self.truths = truths
        self.threshold = threshold
        self.bounds_px = bounds_px

    def __call__(self, rows: Rows) -> Rows:
        """One row: flat integers of a `Confusion` and a `SizeCounts`, ids and their mean IoU.

        `pixels` are those that are scored, `undecided` those of them that the mask leaves open,
        which count as background.

        An image whose truth is all to be ignored has a mean IoU of nan.
        """
        num_classes = self.truths.num_classes
        total = Confusion.zeros(num_classes)
        sizes = SizeCounts.zeros(num_classes, self.bounds_px)
        ids, ious, skipped, undecided, pixels = [], [], [], 0, 0
        for row in self.truths.rows(rows):
            try:
                truth, labels = self.truths.of(row), self._labels(row)
                one = Confusion.of(truth, labels, num_classes)
            except (ValueError, OSError) as error:
                skipped.append({"id": row["id"], "reason": str(error)})
                continue
            total, sizes = total + one, sizes + SizeCounts.of(one, self.bounds_px)
            undecided += int(((truth != IGNORE) & (labels == IGNORE)).sum())
            pixels += int(one.counts.sum())
            ids.append(row["id"])
            ious.append(one.mean_iou())
        parts = (sizes.regions, sizes.intersection, sizes.truth, sizes.predicted)
        counts: Row = {"counts": total.counts.ravel(), "sizes": np.stack(parts).ravel()}
        counts |= {"undecided": undecided, "pixels": pixels}
        return [counts | {"ids": ids, "ious": ious, "skipped": skipped}]

    def _labels(self, row: Mapping[str, Any]) -> UInt8[ndarray, "h w"]:
        if self.threshold is None:
            return decode_labels(row["labels"])
        seeds = unpack_seeds(row)
        planes = enlarge(seeds)
        background = np.full((1, *seeds.size_hw), self.threshold, np.float32)
        winners = np.concatenate([background, planes]).argmax(0)
        return np.array([0, *(c + 1 for c in seeds.classes)], np.uint8)[winners]


class CountTagged:
    """Rows of masks to one row of what they show of their images' tags; no truth is asked for.

    Rows that are not ok, or whose image has no tag, are passed over.

    Args:
        tags: class indices of each image.
        num_classes: of the manifest.
    """

    def __init__(self, tags: Mapping[str, Sequence[int]], num_classes: int):
        self.tags = tags
        self.num_classes = num_classes

    def __call__(self, rows: Rows) -> Rows:
        """One row: `counts`, the integers of a `TagCounts`, flat."""
        total = TagCounts.zeros(self.num_classes)
        for row in rows:
            own = self.tags.get(row["id"])
            if row["status"] == "ok" and own:
                total = total + TagCounts.of(decode_labels(row["labels"]), own, self.num_classes)
        return [{"counts": total.flat}]
