"""Masks as indexed PNG: PASCAL VOC's palette, and labels to bytes and back.

The index of a pixel is its label; the palette only gives it a colour to look at.
"""

from io import BytesIO

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image


def _voc_palette() -> UInt8[ndarray, "256 3"]:
    """Colours of the labels 0 to 255.

    The bits of a label are dealt to red, green and blue in turn, the lowest three to the highest
    bit of each: 1 = 001b is (128, 0, 0), 255 is (224, 224, 192).

    Source: VOCdevkit, VOCcode/VOClabelcolormap.m (Everingham et al.).
    """
    labels = np.arange(256)
    bits = (labels[:, None] >> np.arange(8)) & 1  # (256, 8)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (bits[:, bit] << (7 - bit // 3)).astype(np.uint8)
    colours.flags.writeable = False
    return colours


VOC_PALETTE = _voc_palette()


def encode_labels(labels: UInt8[ndarray, "h w"]) -> bytes:
    """A mask as PNG bytes, mode P with VOC's palette, index equal to label.

    Args:
        labels: 0 background, class index + 1, 255 to ignore; at least one pixel.

    Raises:
        ValueError: not uint8, not two-dimensional, or without pixels.
    """
    if labels.dtype != np.uint8 or labels.ndim != 2 or not labels.size:
        raise ValueError(
            "labels must be uint8 (h, w) with at least one pixel, "
            f"got {labels.dtype.name} {labels.shape}"
        )
    picture = Image.fromarray(np.ascontiguousarray(labels))
    picture.putpalette(VOC_PALETTE.tobytes())
    stream = BytesIO()
    # optimize would drop palette entries and renumber the pixels
    picture.save(stream, format="PNG", optimize=False)
    return stream.getvalue()


def decode_labels(png: bytes) -> UInt8[ndarray, "h w"]:
    """The labels of a PNG: the indices of an indexed one, the values of an 8-bit grey one.

    Raises:
        ValueError: not a PNG, truncated, or of another mode. RGB is refused because its values are
            colours, grey of under 8 bits because it is stretched to 255 on opening.
    """
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as picture:
            mode = picture.mode
            labels = np.array(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"a mask must be a whole PNG, got {len(png)} bytes: {error}") from error
    bits = png[24]  # of the header's depth
    if mode != "P" and (mode, bits) != ("L", 8):
        raise ValueError(
            "a mask must be an indexed PNG (mode P) or a grey one of 8 bits (mode L), "
            f"got mode {mode} of {bits} bits"
        )
    return labels
