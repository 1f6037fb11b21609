"""The toy experiment that motivates RIB: where a classifier loses what its image tells it.

A small network tells handwritten 2 from 8. A tenth of the images also have a mark that tells the
same: a circle beside a 2, a square beside an 8. The digit is what the network decides by, the mark
is relevant and not needed, the rest is neither. The gradient of every layer says how much of each
of the three reaches it.

Source: dissertation, chapter 3.4.2, Figures 3.11 and 3.12; Lee et al., NeurIPS 2021 (RIB).

Pictures are drawn by `figures`, which is not imported here: configurations hold a `ToyBottleneck`,
and every worker reads configurations.
"""

from rayseg.analyses.bottleneck.experiment import BottleneckResult, ToyBottleneck
