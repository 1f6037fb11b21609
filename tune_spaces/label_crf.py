"""The CRF that makes labels of maps: its thresholds and kernels.

The public codes choose the lower threshold for each method between 0.05 (IRN) and 0.17 (RIB), the
upper between 0.30 and 0.35; their ranges meet and do not cross, since the upper one must not be the
lower. The kernels' ranges are those around IRN's constants in crf_inference_label.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "fg_threshold": tune.uniform(0.2, 0.6),
    "bg_threshold": tune.uniform(0.01, 0.2),
    "gt_prob": tune.uniform(0.55, 0.95),
    "bilateral_sxy": tune.uniform(20.0, 100.0),
    "bilateral_srgb": tune.uniform(3.0, 20.0),
    "bilateral_compat": tune.uniform(2.0, 20.0),
}
GRID = {"fg_threshold": [0.2, 0.3, 0.4, 0.5], "bg_threshold": [0.05, 0.1, 0.15]}
READ_OFF = {}
