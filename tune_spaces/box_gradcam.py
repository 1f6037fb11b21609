"""Grad-CAM of a detector: how fine its grid is; theta_fg is scored for all values from each map.

Nothing published names a grid; BBAM's has cells of 16 to 64 input pixels. theta_fg as for BBAM.
"""

from ray import tune

METRIC, MODE = "object_iou", "max"
GRID = {"cell": [8, 16, 32, 64]}
SPACE = {name: tune.choice(values) for name, values in GRID.items()}
READ_OFF = {"box_crf.foreground": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9]}
