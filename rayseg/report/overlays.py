"""Pictures for the page: photographs small enough to embed, and transparent layers to put on them.

A layer is RGBA of the photograph's displayed size. It is kept apart from the photograph so that
each photograph is stored once however many methods are compared on it, and so that the reader can
fade the layer away and look at what is underneath.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from PIL import Image

from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.painting import OUTLINE, differs, label_layer, outline
from rayseg.records.palette import VOC_PALETTE
from rayseg.store import MAP_STRIDE

LONG_SIDE = 320
"""Longer side of an embedded picture in pixels: sharp at 200 CSS pixels on most screens."""
HEAT_ALPHA = 195
# Few levels of alpha keep a smooth layer at a few kilobytes; steps of 1/24 are not visible.
_ALPHA_LEVELS = 24


def fit(size_hw: tuple[int, int], long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Height and width of the same shape whose longer side is `long_side`, each at least 1."""
    scale = long_side / max(size_hw)
    return max(1, round(size_hw[0] * scale)), max(1, round(size_hw[1] * scale))


def resize_photo(pixels: UInt8[ndarray, "h w 3"], size_hw: tuple[int, int]) -> ndarray:
    """Resamples an RGB image."""
    resized = Image.fromarray(pixels).resize(size_hw[::-1], Image.Resampling.LANCZOS)
    return np.asarray(resized)


def resize_labels(labels: UInt8[ndarray, "h w"], size_hw: tuple[int, int]) -> ndarray:
    """Resamples a mask without inventing labels."""
    resized = Image.fromarray(labels).resize(size_hw[::-1], Image.Resampling.NEAREST)
    return np.asarray(resized)


def resize_maps(
    maps: Float[ndarray, "k h w"], image_hw: tuple[int, int], size_hw: tuple[int, int]
) -> ndarray:
    """Resamples stored maps of an image of size `image_hw`, without the cells' overhang over it."""
    box = (0, 0, image_hw[1] / MAP_STRIDE, image_hw[0] / MAP_STRIDE)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size_hw[::-1], Image.Resampling.BILINEAR, box))
        for plane in maps
    ]
    return np.clip(np.stack(planes), 0, 1) if planes else np.zeros((0, *size_hw), np.float32)


def maps_to_labels(
    maps: Float[ndarray, "k h w"], classes: Sequence[int], threshold: float
) -> UInt8[ndarray, "h w"]:
    """The strongest class where its map exceeds the background threshold, else background."""
    if not classes:
        return np.full(maps.shape[1:], BACKGROUND, np.uint8)
    strongest = np.array(classes)[maps.argmax(axis=0)] + 1
    return np.where(maps.max(axis=0) > threshold, strongest, BACKGROUND).astype(np.uint8)


def heat_layer(
    maps: Float[ndarray, "k h w"], classes: Sequence[int], threshold: float | None
) -> UInt8[ndarray, "h w 4"]:
    """Maps as depth of colour: the strongest class's colour, denser where its map is higher.

    Args:
        maps: values in [0, 1].
        threshold: where the mask would begin, drawn as an outline; None draws none.
    """
    layer = np.zeros((*maps.shape[1:], 4), np.uint8)
    if not classes:
        return layer
    layer[..., :3] = VOC_PALETTE[np.array(classes)[maps.argmax(axis=0)] + 1]
    levels = np.rint(maps.max(axis=0) * _ALPHA_LEVELS) / _ALPHA_LEVELS
    layer[..., 3] = np.rint(levels * HEAT_ALPHA)
    if threshold is not None:
        layer[outline(maps_to_labels(maps, classes, threshold))] = OUTLINE
    return layer


def grey_layer(
    grid: Float[ndarray, "y x"], stride: int, image_hw: tuple[int, int], size_hw: tuple[int, int]
) -> UInt8[ndarray, "h w 4"]:
    """A plane in [0, 1] from black to white, which covers what is underneath.

    Args:
        stride: pixels of the image that a cell covers; where the cells cover less than the image,
            they are larger.
    """
    rows, columns = (min(n, side / stride) for n, side in zip(grid.shape, image_hw, strict=True))
    box = (0, 0, columns, rows)
    plane = np.asarray(Image.fromarray(grid).resize(size_hw[::-1], Image.Resampling.BILINEAR, box))
    levels = np.rint(plane.clip(0, 1) * _ALPHA_LEVELS) / _ALPHA_LEVELS
    layer = np.full((*size_hw, 4), 255, np.uint8)
    layer[..., :3] = np.rint(levels * 255)[..., None]
    return layer


def enlarge_grid(grid: Float[ndarray, "y x"], size_hw: tuple[int, int]) -> Float[ndarray, "h w"]:
    """A grid whose corners are the image's, bilinear: how BBAM's maps lie on their image."""
    rows, columns = (_between(cells, side) for cells, side in zip(grid.shape, size_hw, strict=True))
    return rows @ grid @ columns.T


def _between(cells: int, side: int) -> Float[ndarray, "s c"]:
    """Weights of the cells at each pixel, the first and last cell on the first and last pixel."""
    where = np.linspace(0, cells - 1, side)[:, None]
    return np.clip(1 - np.abs(where - np.arange(cells)), 0, 1)


def object_layer(
    masks: Bool[ndarray, "o h w"],
    doubtful: Bool[ndarray, "h w"],
    boxes_xyxy: Float[ndarray, "o 4"],
    classes: Sequence[int],
) -> UInt8[ndarray, "h w 4"]:
    """Objects in their classes' colours, each outlined, in their boxes; doubtful pixels hatched.

    Args:
        masks: of each object; the first lies on top.
        doubtful: pixels that may be of an object.
    """
    which = np.zeros(doubtful.shape, np.int64)
    for i in reversed(range(len(masks))):
        which[masks[i]] = i + 1
    labels = np.array([BACKGROUND, *(index + 1 for index in classes)], np.uint8)[which]
    layer = label_layer(np.where(doubtful & (which == 0), np.uint8(IGNORE), labels))
    layer[differs(which) & (which > 0)] = OUTLINE  # two objects of one class touch
    return draw_boxes(layer, boxes_xyxy, classes)


def draw_boxes(
    layer: UInt8[ndarray, "h w 4"], boxes_xyxy: Float[ndarray, "o 4"], classes: Sequence[int]
) -> UInt8[ndarray, "h w 4"]:
    """The layer with boxes in its pixels, two wide, each in its class's colour, the first on top.

    What of a box lies outside, and a box that is not finite, is not drawn.
    """
    drawn = layer.copy()
    height, width = layer.shape[:2]
    for box, index in reversed(list(zip(boxes_xyxy, classes, strict=True))):
        if not np.isfinite(box).all():
            continue
        x1, x2 = (int(x) for x in np.rint(np.clip(box[[0, 2]], 0, width)))
        y1, y2 = (int(y) for y in np.rint(np.clip(box[[1, 3]], 0, height)))
        inner = (slice(y1 + 2, max(y2 - 2, y1 + 2)), slice(x1 + 2, max(x2 - 2, x1 + 2)))
        within = drawn[inner].copy()
        drawn[y1:y2, x1:x2] = (*VOC_PALETTE[index + 1], 255)
        drawn[inner] = within
    return drawn


def png_uri(layer: UInt8[ndarray, "h w 4"]) -> str:
    """A layer as a data URI, exact."""
    return _uri(Image.fromarray(layer), "png", optimize=True)


def jpeg_uri(pixels: UInt8[ndarray, "h w 3"]) -> str:
    """A photograph as a data URI, compressed."""
    return _uri(Image.fromarray(pixels), "jpeg", quality=80, optimize=True)


def jpeg_bytes(pixels: UInt8[ndarray, "h w 3"]) -> bytes:
    """A photograph as a small JPEG, made quickly."""
    return _saved(Image.fromarray(pixels), "jpeg", quality=72)


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    data = base64.b64encode(_saved(image, kind, **options)).decode()
    return f"data:image/{kind};base64,{data}"


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()
