"""AdvCAM on SEAM: T, lambda, tau and xi, which the best differ of by trunk, as the author says.

He has T 8 and lambda 2 for Wide-ResNet-38; the ranges are those of AdvCAM's space, lambda's from 0.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "restrict_weight": tune.uniform(0.0, 10.0),
    "restrict_threshold": tune.uniform(0.1, 0.9),
    "step_size": tune.loguniform(0.02, 0.32),
}
GRID = {"restrict_weight": [0.0, 1.0, 2.0, 4.0, 7.0], "restrict_threshold": [0.3, 0.5, 0.7]}
READ_OFF = {"num_steps": list(range(1, 21))}
