"""Objects of masks that name classes only: the connected parts of each class."""

from typing import Any

import numpy as np
import skimage

from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.palette import decode_labels
from rayseg.records.rle import encode_mask


def connected_parts(png: bytes | None) -> dict[str, Any]:
    """Lists of `classes`, `foreground` (counts) and `scores`, 1, with one entry a connected part.

    Pixels are connected that share a side or a corner. Two objects of one class that touch are one
    part, and an object in two pieces is two.

    Args:
        png: a mask as `rayseg.records.palette.encode_labels` writes it; None for no mask.
    """
    classes, masks = [], []
    labels = decode_labels(png) if png else np.zeros((1, 1), np.uint8)
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
        if label in (BACKGROUND, IGNORE):
            continue
        parts = skimage.measure.label(labels == label, connectivity=2)
        for number in range(1, parts.max() + 1):
            classes.append(int(label) - 1)
            masks.append(encode_mask(parts == number))
    return {"classes": classes, "foreground": masks, "scores": [1.0] * len(masks)}
