"""PSA's walk: its background's exponent, how affinities weigh and how far it goes.

PSA has alpha 16, beta 8 and 2**8 steps, SEAM 6, 8 and 2**6; the ranges are those around these.
Every number of steps is scored from one walk; alpha is not, since the background walks too.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "alpha": tune.loguniform(1.0, 40.0),
    "beta": tune.uniform(4.0, 16.0),
    "radius": tune.randint(3, 8),
}
GRID = {"alpha": [1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0]}
READ_OFF = {"log_steps": list(range(3, 11))}
