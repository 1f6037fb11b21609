"""IRNet's walk: how maps start, how affinities weigh, how far it goes and what is background.

The public codes take maps to the power of 1 (IRN), 1.3 (RIB) or 1.5 (AdvCAM, W-OoD), and background
at 0.22 to 0.27; beta 10 and 2**8 steps are IRN's. The ranges are those around these values; wide
maps of small networks ask for powers up to 2.5. Every number of steps and every background
threshold is scored from one walk.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "cam_power": tune.uniform(0.7, 3.0),
    "beta": tune.uniform(4.0, 16.0),
    "radius": tune.randint(3, 8),
}
GRID = {"cam_power": [1.0, 1.5, 2.0, 2.5], "beta": [6.0, 8.0, 10.0, 14.0]}
READ_OFF = {
    "log_steps": list(range(3, 11)),
    "background_threshold": [0.1, 0.14, 0.18, 0.2, 0.22, 0.25, 0.27, 0.3, 0.35, 0.4, 0.5],
}
