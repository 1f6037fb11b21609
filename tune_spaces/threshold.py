"""The background threshold of stored maps, without a CRF.

The public codes sweep it: W-OoD from 0.08, AdvCAM to 0.34, RIB to 0.50, SEAM to 0.60.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {"threshold": tune.uniform(0.02, 0.6)}
GRID = {"threshold": [round(0.02 * number, 2) for number in range(1, 31)]}
READ_OFF = {}
