"""Networks: nn.Module only, no training and no files but weights."""

from rayseg.nets.quick_start import import_torchvision

import_torchvision()
