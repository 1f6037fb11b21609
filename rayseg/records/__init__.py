"""The nouns of rayseg, and the arrays of one image: plain records, pictures, boxes, masks.

Every part may import what is here; a label is 0 for background, class index + 1, or 255.
"""

from rayseg.records.sample import (
    BACKGROUND,
    IGNORE,
    MAX_CLASSES,
    InstanceMasks,
    LabelMap,
    Sample,
    Seeds,
)
