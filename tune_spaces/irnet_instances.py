"""IRNet's instances: the walk of each part, where displacements are weak, and what is background.

The values of IRN's public code lie in the middle: 2.5 cells, background 0.25, beta 10, 2**8 steps.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "cam_power": tune.uniform(0.7, 3.0),
    "background_threshold": tune.uniform(0.1, 0.5),
    "beta": tune.uniform(4.0, 16.0),
    "log_steps": tune.randint(3, 11),
    "radius": tune.randint(3, 8),
    "weak_displacement": tune.uniform(1.0, 5.0),
}
GRID = {"background_threshold": [0.15, 0.2, 0.25, 0.3, 0.35], "weak_displacement": [1.5, 2.5, 4.0]}
READ_OFF = {}
