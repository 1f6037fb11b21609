"""From localization maps to masks; REFINERS is the only list of refiners.

Every refiner is called as ``refiner(image, maps, classes)`` and gives labels, uint8 (h, w).
"""

from rayseg.refine.crf import LabelCRF, SoftCRF, Threshold

REFINERS = {"label_crf": LabelCRF, "soft_crf": SoftCRF, "threshold": Threshold}

__all__ = ["REFINERS", "LabelCRF", "SoftCRF", "Threshold"]
