"""BBAM: lambda of Table 5.6; theta_fg of Table 5.5 is scored for all values from each map.

The table has lambda from 0.001 to 0.02 and theta_fg from 0.2 to 0.8; the code's theta is a share of
the box and 0.85. A detector that predicts with less background competing may need less lambda.
theta_bg decides which pixels training ignores and no mask's IoU, so that it is not searched.
"""

from ray import tune

METRIC, MODE = "object_iou", "max"
SPACE = {"sparsity": tune.loguniform(0.0005, 0.05)}
GRID = {"sparsity": [0.001, 0.003, 0.005, 0.007, 0.01, 0.02]}
READ_OFF = {"box_crf.foreground": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9]}
