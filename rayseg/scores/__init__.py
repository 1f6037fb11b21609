"""Scores of masks, from integer counts that add; ratios are made once, at the end.

A count of one image, of one worker or of a whole dataset is the same type, and ``+`` merges them,
so that a score does not depend on how the images were shared out. mIoU is the IoU of the *summed*
confusion matrix (the segmentation measure of PASCAL VOC, Everingham et al., IJCV 2015), never a
mean of per-image IoUs.

Shape letters as in `rayseg.records`, T thresholds, and c+1 counts all labels: 0 background, class
index + 1. "Label" always means the number in a mask; 255 is no label.
"""

from rayseg.scores.counts import Confusion, Means, Overlap
from rayseg.scores.instances import (
    ObjectGuesses,
    ObjectTruths,
    PrecisionScores,
    average_best_overlap,
    average_precision,
)
from rayseg.scores.object_masks import MaskQuality, mask_iou
from rayseg.scores.quality import ClassQuality, TagCounts, qualities, warning_lines
from rayseg.scores.sizes import BANDS, COCO_BOUNDS_PX, SizeCounts, extreme_classes
from rayseg.scores.sweep import ThresholdSweep, thresholds_every
