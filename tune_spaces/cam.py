"""CAM: the sizes that an image is looked at in, and whether mirrored.

IRN's make_cam.py adds up four sizes and their mirror images, the text looks at the image alone.
Every trial of maps is scored at all background thresholds.
"""

from ray import tune

METRIC, MODE = "miou", "max"
GRID = {
    "scales": [(1.0,), (1.0, 0.5), (1.0, 1.5), (1.0, 0.5, 1.5), (1.0, 0.5, 1.5, 2.0)],
    "flip": [False, True],
}
SPACE = {name: tune.choice(values) for name, values in GRID.items()}
READ_OFF = {}
