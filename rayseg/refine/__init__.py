"""From localization maps to masks; REFINERS and BOX_REFINERS are the only lists of refiners.

Every refiner is called as ``refiner(image, maps, classes)`` and gives labels, uint8 (h, w); one
that works on a network is what its ``prepare(network, device)`` gives, and one that
``finds_objects`` then has ``find``, called in the same way. Every box refiner is called as
``refiner(image, maps, boxes_xyxy)`` and gives a `BoxMask` an object.
`ProposalRefinement` refines such a mask with mask proposals and `semantic_labels` joins them.
`SegmenterCRF` refines a segmenter's probabilities, `SeededGrowing` grows its seeds and
`SaliencyAgreement` refines a mask; they take other arguments and are no refiners in this sense.
"""

from rayseg.refine.affinity_labels import AffinityLabels
from rayseg.refine.box_masks import BoxCRF, BoxMask, BoxThreshold
from rayseg.refine.crf import LabelCRF, SoftCRF, Threshold
from rayseg.refine.instances import semantic_labels
from rayseg.refine.learned_instances import IRNetInstances
from rayseg.refine.learned_walks import IRNetRefinement, PSARefinement
from rayseg.refine.mask_proposals import ProposalRefinement, SuperpixelProposals, read_proposals
from rayseg.refine.saliency import SaliencyAgreement
from rayseg.refine.seeded_growing import SeededGrowing
from rayseg.refine.segmenter_crf import SegmenterCRF

REFINERS = {
    "label_crf": LabelCRF,
    "affinity_labels": AffinityLabels,
    "soft_crf": SoftCRF,
    "threshold": Threshold,
    "irnet": IRNetRefinement,
    "irnet_instances": IRNetInstances,
    "psa": PSARefinement,
}
BOX_REFINERS = {"box_crf": BoxCRF, "box_threshold": BoxThreshold}
