"""Grad-CAM: the sizes that an image is looked at in, whether mirrored, whether pooled.

The paper pools the gradient over the map, the dissertation's Eq. 2.2 does not. Sizes as for CAM.
"""

from ray import tune

METRIC, MODE = "miou", "max"
GRID = {
    "scales": [(1.0,), (1.0, 0.5), (1.0, 1.5), (1.0, 0.5, 1.5), (1.0, 0.5, 1.5, 2.0)],
    "flip": [False, True],
    "pooled": [False, True],
}
SPACE = {name: tune.choice(values) for name, values in GRID.items()}
READ_OFF = {}
