"""RIB: lambda, m and tau of Table 3.9, K of Figure 3.15.

The table has m of 300, 600 and 1000, lambda of 5e-6 to 1e-5, and tau of 0.3 to 0.5; the text finds
K between 10 and 20 within 0.8 points. The rate decays over the largest K that is read off, so that
1 to 10 has the official setting in it; num_steps=5,10,15,20 looks beyond. Other classifiers than
ResNet-50 may need another lambda by a factor of ten: the range is wider than the table's.
"""

from ray import tune

METRIC, MODE = "miou", "max"
SPACE = {
    "learning_rate": tune.loguniform(1e-6, 1e-4),
    "margin": tune.uniform(100.0, 1500.0),
    "tau": tune.uniform(0.2, 0.7),
}
GRID = {"learning_rate": [5e-6, 8e-6, 1e-5], "margin": [300.0, 600.0, 1000.0]}
READ_OFF = {"num_steps": list(range(1, 11))}
