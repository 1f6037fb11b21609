"""IRNet's walk: how maps start, how affinities weigh, how far it goes and what is background.

The public codes take maps to the power of 1 (IRN), 1.3 (RIB) or 1.5 (AdvCAM, W-OoD), and background
at 0.22 to 0.27; beta 10 and 2**8 steps are IRN's. The ranges are those around these values.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "cam_power": tune.uniform(0.7, 2.0),
    "background_threshold": tune.uniform(0.1, 0.5),
    "beta": tune.uniform(4.0, 16.0),
    "log_steps": tune.randint(3, 11),
    "radius": tune.randint(3, 8),
}
GRID = {"background_threshold": [0.15, 0.2, 0.25, 0.3, 0.35], "log_steps": [4, 6, 8]}
READ_OFF = {}
