"""Batches of image crops for training, the same ones whatever the number of workers.

A plain torch DataLoader feeds the trainers, not Ray Data: every crop is a function of the seed, its
place in the training and its image, so that two workers see together exactly what one sees, a
restart repeats the rest to the bit, and a loss curve can be compared step by step. Ray Data's
streaming split promises no order. Where images lie on other machines' disks, give paths that all
nodes can open.
"""

from rayseg.loading.batches import (
    LabelledCrops,
    TaggedCrops,
    evaluation_batches,
    labelled_batches,
    training_batches,
)
from rayseg.loading.crops import DEVIATION_RGB, MEAN_RGB, Crops, SegmentationCrops
from rayseg.loading.objects import (
    GivenBoxes,
    ObjectImages,
    ObjectLabels,
    ObjectMasks,
    ObjectTargets,
    StoredInstances,
    TrueInstances,
    bad_boxes,
    object_batches,
)
from rayseg.loading.order import DrawOrder, EpochOrder

__all__ = [
    "DEVIATION_RGB",
    "MEAN_RGB",
    "Crops",
    "DrawOrder",
    "EpochOrder",
    "GivenBoxes",
    "LabelledCrops",
    "ObjectImages",
    "ObjectLabels",
    "ObjectMasks",
    "ObjectTargets",
    "SegmentationCrops",
    "StoredInstances",
    "TaggedCrops",
    "TrueInstances",
    "bad_boxes",
    "evaluation_batches",
    "labelled_batches",
    "object_batches",
    "training_batches",
]
