"""AdvCAM: T, lambda, tau and xi of Figure 3.7.

The figure has lambda from 0, where nothing is restricted, to beyond 7, flat after 5; tau within
0.3 to 0.7, less than 1 % apart; T up to 30. The code's xi is 0.08, of gradients that are divided by
their maximum (the text's, of plain ones, is 0.008).
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "restrict_weight": tune.uniform(0.0, 15.0),
    "restrict_threshold": tune.uniform(0.1, 0.9),
    "step_size": tune.loguniform(0.02, 0.32),
}
GRID = {"restrict_weight": [0.0, 3.0, 5.0, 7.0, 10.0], "restrict_threshold": [0.3, 0.5, 0.7]}
READ_OFF = {"num_steps": list(range(1, 31))}
