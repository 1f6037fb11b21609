"""SmoothGrad of a detector: its noise; theta_fg is scored for all values from each map.

Smilkov et al. find a noise of 0.1 to 0.2 of the input's range best, and 50 copies enough.
"""

from ray import tune

METRIC, MODE = "object_iou", "max"
SPACE = {"noise": tune.uniform(0.02, 0.4), "num_copies": tune.randint(10, 101)}
GRID = {"noise": [0.05, 0.1, 0.15, 0.2, 0.3]}
READ_OFF = {"box_crf.foreground": [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9]}
