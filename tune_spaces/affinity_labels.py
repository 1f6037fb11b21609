"""The two CRFs of PSA's labels: the exponents of their backgrounds, and their kernels.

PSA's alpha is 4 and 32, SEAM's 4 and 24; the ranges meet and do not cross, since the lower exponent
must not exceed the higher. The kernels' ranges are those around PSA's constants in crf_inference.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "low_alpha": tune.loguniform(1.0, 10.0),
    "high_alpha": tune.loguniform(10.0, 80.0),
    "bilateral_sxy": tune.uniform(20.0, 120.0),
    "bilateral_srgb": tune.uniform(3.0, 25.0),
    "bilateral_compat": tune.uniform(2.0, 20.0),
}
GRID = {"low_alpha": [2.0, 4.0, 6.0, 8.0], "high_alpha": [16.0, 24.0, 32.0]}
READ_OFF = {}
