"""The CRF that makes labels of maps: its thresholds and kernels.

AdvCAM's and RIB's public code choose the two thresholds for each method between 0.05 and 0.35; the
kernels' ranges are those around IRN's constants in crf_inference_label.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "fg_threshold": tune.uniform(0.15, 0.6),
    "bg_threshold": tune.uniform(0.01, 0.15),
    "gt_prob": tune.uniform(0.55, 0.95),
    "bilateral_sxy": tune.uniform(20.0, 100.0),
    "bilateral_srgb": tune.uniform(3.0, 20.0),
    "bilateral_compat": tune.uniform(2.0, 20.0),
}
GRID = {"fg_threshold": [0.2, 0.3, 0.4, 0.5], "bg_threshold": [0.05, 0.1, 0.15]}
READ_OFF = {}
