"""FickleNet: its threshold and number of passes.

The paper has 200 passes and theta = 0.35. The drop rate is trained with and is not searched here.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {"threshold": tune.uniform(0.1, 0.8), "num_passes": tune.randint(20, 401)}
GRID = {"threshold": [0.2, 0.35, 0.5], "num_passes": [50, 200]}
READ_OFF = {}
