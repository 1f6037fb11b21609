"""Maps against true masks: by method, and by stride and size of the object.

Source: dissertation 5.5, Figure 5.7(b): adaptive against fixed strides of 24 and 48; (c): BBAM
against gradient methods. Neither says at which threshold a map becomes a mask. Here each kind of
map is taken at the one threshold that is best for it over all objects, as seeds of tags are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray

THRESHOLDS = tuple(number / 20 for number in range(1, 20))
"""Of maps in [0, 1]: 0.05, 0.1, ... 0.95."""
SIZE_EDGES = (0.2, 0.4, 0.6, 0.8)
"""Of sqrt(a), the root of the box's share of the image, which s(a) grows with: five sizes."""


def threshold_ious(
    map_: Float[ndarray, "h w"],
    mask: Bool[ndarray, "h w"],
    counted: Bool[ndarray, "h w"] | None = None,
) -> Float64[ndarray, " t"]:
    """IoU of a true mask with the pixels in which a map is above each of `THRESHOLDS`.

    Args:
        map_: in [0, 1].
        mask: the object's true mask.
        counted: pixels that the truth does not ignore, as VOC's does borders; the others are left
            out of both sides. None counts all.
    """
    if map_.shape != mask.shape:
        raise ValueError(f"map_ must be of the mask's size {mask.shape}, got {map_.shape}")
    if counted is not None:
        map_, mask = map_[counted], mask[counted]
    if not mask.any():
        raise ValueError("mask must have a pixel, got none")
    # a pixel is above the first so many thresholds
    above = np.searchsorted(THRESHOLDS, map_)
    steps = len(THRESHOLDS) + 1
    shown, shared = (
        np.bincount(some, minlength=steps)[::-1].cumsum()[::-1][1:]
        for some in (above.ravel(), above[mask])
    )
    return shared / (shown + mask.sum() - shared)


@dataclass(frozen=True, eq=False)
class OverlapSums:
    """IoUs of one kind of map, added over objects of each size.

    Attributes:
        total: float64 (s, t), IoUs at each of `THRESHOLDS`, by size.
        objects: int64 (s,), that were added.
    """

    total: Float64[ndarray, "s t"]
    objects: Int64[ndarray, " s"]

    @classmethod
    def of(cls, ious: Float[ndarray, " t"], share: float = 0.0) -> Self:
        """One object."""
        sizes = len(SIZE_EDGES) + 1
        total, objects = np.zeros((sizes, len(THRESHOLDS))), np.zeros(sizes, int)
        place = int(np.searchsorted(SIZE_EDGES, np.sqrt(share), side="right"))
        total[place], objects[place] = ious, 1
        return cls(total, objects)

    def __add__(self, other: OverlapSums) -> OverlapSums:
        return OverlapSums(self.total + other.total, self.objects + other.objects)

    @property
    def means(self) -> Float64[ndarray, " t"]:
        """Mean IoU over all objects at each threshold."""
        return self.total.sum(0) / max(int(self.objects.sum()), 1)

    @property
    def best(self) -> int:
        """Index of the threshold at which the mean over all objects is highest."""
        return int(self.means.argmax())

    @property
    def by_size(self) -> Float64[ndarray, " s"]:
        """Mean IoU of each size at the best threshold; nan where there is no object."""
        empty = np.full(len(self.objects), np.nan)
        return np.divide(self.total[:, self.best], self.objects, out=empty, where=self.objects > 0)

    def figures(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON; None for a size without objects."""
        return {
            "objects": int(self.objects.sum()),
            "threshold": THRESHOLDS[self.best],
            "iou": float(self.means[self.best]),
            "iou_by_threshold": self.means.tolist(),
            "objects_by_size": self.objects.tolist(),
            "iou_by_size": [None if np.isnan(value) else value for value in self.by_size.tolist()],
        }


@dataclass(frozen=True)
class OverlapAnalysis:
    """Several kinds of maps over the same objects: strides, or methods.

    Attributes:
        kinds: sums of each by its name, in the order of the picture.
    """

    kinds: Mapping[str, OverlapSums]

    def figures(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON."""
        return {
            "thresholds": list(THRESHOLDS),
            "size_edges": list(SIZE_EDGES),
            "kinds": {name: one.figures() for name, one in self.kinds.items()},
        }
