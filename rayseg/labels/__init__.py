"""Which label belongs to which image: stored masks, true masks, boxes and objects."""

from rayseg.labels.masks import (
    LabelSource,
    StoredMasks,
    StoredRows,
    Truths,
    read_trainable,
)
from rayseg.labels.objects import (
    GivenBoxes,
    ObjectLabels,
    ObjectMasks,
    ObjectTargets,
    StoredInstances,
    Targets,
    TrueInstances,
    bad_boxes,
)

__all__ = [
    "GivenBoxes",
    "LabelSource",
    "ObjectLabels",
    "ObjectMasks",
    "ObjectTargets",
    "StoredInstances",
    "StoredMasks",
    "StoredRows",
    "Targets",
    "TrueInstances",
    "Truths",
    "bad_boxes",
    "read_trainable",
]
