"""The analyses of BBAM: what each head looks at, noisy boxes, strides, other attributions.

Source: dissertation, chapter 5.5, Figures 5.6 to 5.8; Lee et al., CVPR 2021 (BBAM).

Each takes one object's arrays to numbers that add up over objects; ratios are made at the end.
Whoever calls brings the maps, the true masks and the images. Pictures are drawn by `figures`, which
is not imported here, since workers count and never draw.
"""

from rayseg.analyses.boxes.curves import CurveSums
from rayseg.analyses.boxes.heads import HeadAnalysis
from rayseg.analyses.boxes.noise import NoiseAnalysis, shake_boxes
from rayseg.analyses.boxes.overlaps import (
    SIZE_EDGES,
    THRESHOLDS,
    OverlapAnalysis,
    OverlapSums,
    threshold_ious,
)
from rayseg.analyses.boxes.positions import (
    PositionCounts,
    head_positions,
    mask_contour,
    relative_positions,
)
