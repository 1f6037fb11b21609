"""The overlap of masks with the true masks of the same objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from rayseg.rle import mask_area, mask_ious
from rayseg.scores.counts import mean_of, plain
from rayseg.scores.sizes import BANDS, COCO_BOUNDS_PX


@dataclass(frozen=True, eq=False)
class MaskQuality:
    """Overlap of made masks, each with the true mask of its own object; adds with ``+``.

    Attributes:
        ious: (o,) in [0, 1].
        areas: (o,) pixels of the true masks.
        bounds_px: areas at which medium and large begin.
    """

    ious: Float[ndarray, " o"]
    areas: Int[ndarray, " o"]
    bounds_px: tuple[int, int] = COCO_BOUNDS_PX

    def __add__(self, other: MaskQuality) -> MaskQuality:
        if self.bounds_px != other.bounds_px:
            raise ValueError(
                f"only figures of one pair of bounds add, got {self.bounds_px} and "
                f"{other.bounds_px}"
            )
        return MaskQuality(
            np.concatenate([self.ious, other.ious]),
            np.concatenate([self.areas, other.areas]),
            self.bounds_px,
        )

    @property
    def mean(self) -> float:
        """Mean IoU over objects, nan without any."""
        return float(mean_of(self.ious))

    def band(self, name: str) -> float:
        """Mean IoU over the objects that are ``small``, ``medium`` or ``large``; nan without."""
        place = BANDS.index(name)
        return float(
            mean_of(self.ious[np.searchsorted(self.bounds_px, self.areas, "right") == place])
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python; nan becomes None."""
        return {
            "objects": len(self.ious),
            "mean_iou": plain(self.mean),
            **{name: plain(self.band(name)) for name in BANDS[:3]},
            "bounds_px": list(self.bounds_px),
        }


def mask_quality(
    truth_masks: Sequence[bytes],
    masks: Sequence[bytes],
    size_hw: tuple[int, int],
    bounds_px: tuple[int, int] = COCO_BOUNDS_PX,
) -> MaskQuality:
    """IoU of each object's mask with its own truth, in one image.

    Args:
        truth_masks: counts of each object; one that is empty is not known and left out.
        masks: counts that were made of the same objects; an empty one has overlap 0.
        size_hw: height and width of the image.
        bounds_px: areas at which medium and large begin.

    Raises:
        ValueError: there are not equally many of both.
    """
    if len(truth_masks) != len(masks):
        raise ValueError(f"masks must be {len(truth_masks)}, one a true mask, got {len(masks)}")
    known = [i for i, counts in enumerate(truth_masks) if counts]
    ious = [mask_ious([truth_masks[i]], [masks[i]], size_hw)[0, 0] for i in known]
    areas = [mask_area(truth_masks[i], size_hw) for i in known]
    return MaskQuality(np.array(ious, float), np.array(areas, np.int64), bounds_px)
