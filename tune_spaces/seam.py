"""SEAM: the sizes that an image is looked at in, and whether mirrored.

The authors' infer_SEAM.py adds up four sizes and their mirror images. Every trial of maps is scored
at all background thresholds; theirs lie between 0 and 0.6, 0.26 being the default.
"""

from ray import tune

METRIC, MODE = "miou", "max"
GRID = {
    "scales": [(1.0,), (1.0, 0.5), (1.0, 1.5), (1.0, 0.5, 1.5), (1.0, 0.5, 1.5, 2.0)],
    "flip": [False, True],
}
SPACE = {name: tune.choice(values) for name, values in GRID.items()}
READ_OFF = {}
