"""From localization maps to masks; REFINERS is the only list of refiners.

Every refiner is called as ``refiner(image, maps, classes)`` and gives labels, uint8 (h, w).
`SegmenterCRF` refines a segmenter's probabilities and `SaliencyAgreement` a mask; they take other
arguments and are no refiners in this sense.
"""

from rayseg.refine.crf import LabelCRF, SoftCRF, Threshold
from rayseg.refine.saliency import SaliencyAgreement
from rayseg.refine.segmenter_crf import SegmenterCRF

REFINERS = {"label_crf": LabelCRF, "soft_crf": SoftCRF, "threshold": Threshold}

__all__ = ["REFINERS", "LabelCRF", "SaliencyAgreement", "SegmenterCRF", "SoftCRF", "Threshold"]
