"""Which label belongs to which image: stored masks, true masks, boxes and objects."""

from rayseg.labels.cues import ConfidentPixels, Cues
from rayseg.labels.enlarging import enlarge
from rayseg.labels.masks import (
    LabelSource,
    StoredMasks,
    StoredRows,
    Truths,
    UnlabelledError,
    read_trainable,
)
from rayseg.labels.objects import (
    GivenBoxes,
    GivenTags,
    ObjectLabels,
    ObjectMasks,
    ObjectTargets,
    StoredInstances,
    Targets,
    TrueInstances,
    bad_boxes,
)
from rayseg.labels.true_objects import true_instances
