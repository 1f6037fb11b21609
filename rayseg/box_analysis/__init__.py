"""The analyses of BBAM: what each head looks at, noisy boxes, strides, other attributions.

Source: dissertation, chapter 5.5, Figures 5.6 to 5.8; Lee et al., CVPR 2021 (BBAM).

Each takes one object's arrays to numbers that add up over objects; ratios are made at the end.
Whoever calls brings the maps, the true masks and the images. Pictures are drawn by `figures`, which
is not imported here, since workers count and never draw.
"""

from rayseg.box_analysis.curves import CurveSums
from rayseg.box_analysis.heads import HeadAnalysis
from rayseg.box_analysis.noise import NoiseAnalysis, shake_boxes
from rayseg.box_analysis.overlaps import (
    SIZE_EDGES,
    THRESHOLDS,
    OverlapAnalysis,
    OverlapSums,
    threshold_ious,
)
from rayseg.box_analysis.positions import (
    PositionCounts,
    head_positions,
    mask_contour,
    relative_positions,
)

__all__ = [
    "SIZE_EDGES",
    "THRESHOLDS",
    "CurveSums",
    "HeadAnalysis",
    "NoiseAnalysis",
    "OverlapAnalysis",
    "OverlapSums",
    "PositionCounts",
    "head_positions",
    "mask_contour",
    "relative_positions",
    "shake_boxes",
    "threshold_ious",
]
