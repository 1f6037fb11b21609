"""The overlap of masks with the true masks of the same objects."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from rayseg.scores.counts import mean_of, plain
from rayseg.scores.sizes import BANDS, COCO_BOUNDS_PX


def mask_iou(
    mask: Bool[ndarray, "h w"], truth: Bool[ndarray, "h w"], counted: Bool[ndarray, "h w"]
) -> float:
    """IoU of a mask with a true one; 0 where neither has a pixel that counts.

    As in VOC's evaluation, pixels that the truth ignores are left out of both.
    """
    union = int(((mask | truth) & counted).sum())
    return int((mask & truth & counted).sum()) / union if union else 0.0


@dataclass(frozen=True, eq=False)
class MaskQuality:
    """Overlap of made masks, each with the true mask of its own object.

    Attributes:
        ious: (o,) in [0, 1].
        areas: (o,) pixels of the true masks.
        bounds_px: areas at which medium and large begin.
    """

    ious: Float[ndarray, " o"]
    areas: Int[ndarray, " o"]
    bounds_px: tuple[int, int] = COCO_BOUNDS_PX

    @property
    def mean(self) -> float:
        """Mean IoU over objects, nan without any."""
        return float(mean_of(self.ious))

    @property
    def over_50(self) -> float:
        """Share of the objects whose IoU is above one half, nan without any."""
        return float(mean_of((self.ious > 0.5).astype(float)))

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
            "iou_over_50": plain(self.over_50),
            **{name: plain(self.band(name)) for name in BANDS[:3]},
            "bounds_px": list(self.bounds_px),
        }
