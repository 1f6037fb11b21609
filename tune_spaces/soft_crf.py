"""The CRF over probabilities: PSA's exponent of the background, and its kernels.

PSA's alpha is 4 and 32 for its labels and 16 in its walk, SEAM's 24 and 6; the kernels' ranges are
those around PSA's constants in crf_inference.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "alpha": tune.loguniform(1.0, 40.0),
    "bilateral_sxy": tune.uniform(20.0, 120.0),
    "bilateral_srgb": tune.uniform(3.0, 25.0),
    "bilateral_compat": tune.uniform(2.0, 20.0),
}
GRID = {"alpha": [2.0, 4.0, 6.0, 8.0, 16.0, 24.0, 32.0]}
READ_OFF = {}
