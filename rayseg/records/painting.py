"""Masks in the colours of their classes, and on their photographs."""

import io

import numpy as np
from jaxtyping import Bool, Integer, UInt8
from numpy import ndarray
from PIL import Image

from rayseg.records.palette import VOC_PALETTE
from rayseg.records.sample import BACKGROUND, IGNORE

FILL_ALPHA = 150
OUTLINE = (255, 255, 255, 235)
HATCH_LIGHT = (205, 205, 205, 150)
HATCH_DARK = (150, 150, 150, 150)
_HATCH_PERIOD = 6


def label_layer(labels: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "h w 4"]:
    """A mask in its classes' colours, outlined; ignored pixels hatched, background clear."""
    layer = np.zeros((*labels.shape, 4), np.uint8)
    layer[..., :3] = VOC_PALETTE[labels]
    layer[..., 3] = np.where(labels == BACKGROUND, 0, FILL_ALPHA)
    layer[outline(labels)] = OUTLINE
    row, column = np.indices(labels.shape)
    stripe = (row + column) % _HATCH_PERIOD < _HATCH_PERIOD // 2
    layer[(labels == IGNORE) & stripe] = HATCH_LIGHT
    layer[(labels == IGNORE) & ~stripe] = HATCH_DARK
    return layer


def painted(
    pixels: UInt8[ndarray, "h w 3"], labels: UInt8[ndarray, "h w"]
) -> UInt8[ndarray, "h w 3"]:
    """A photograph with its mask on it.

    Raises:
        ValueError: the mask is of another size.
    """
    if pixels.shape[:2] != labels.shape:
        raise ValueError(f"mask must be {pixels.shape[:2]} as its photo, got {labels.shape}")
    layer = label_layer(labels)
    share = layer[..., 3:].astype(np.float32) / 255
    return np.rint(pixels * (1 - share) + layer[..., :3] * share).astype(np.uint8)


def encode_png(pixels: UInt8[ndarray, "h w *c"]) -> bytes:
    """A picture, grey or RGB, as PNG."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def outline(labels: UInt8[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Foreground pixels with a neighbour of another label; the picture's edge is no outline."""
    return differs(labels) & (labels != BACKGROUND) & (labels != IGNORE)


def differs(labels: Integer[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Pixels with a neighbour of another number."""
    padded = np.pad(labels, 1, mode="edge")
    inner = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.logical_or.reduce([inner != other for other in neighbours])
