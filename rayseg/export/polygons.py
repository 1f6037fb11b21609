"""Masks as polygons, for those who read no run-length codes.

COCO's polygons know neither holes nor pieces that belong together: an object is the union of what
its polygons enclose. A mask with a hole is therefore cut in two through the hole, until no piece
has one; so nothing is filled that the mask leaves out.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import skimage
from jaxtyping import Bool
from numpy import ndarray
from pycocotools import mask as codec

from rayseg.records.rle import decode_mask

_ON_A_LINE = 1e-3  # pixels: points nearer to the line through their neighbours say nothing


def mask_polygons(mask: Bool[ndarray, "h w"], tolerance_px: float = 0.0) -> list[list[float]]:
    """The outlines of a mask as x1, y1, x2, y2, ...; none for an empty mask.

    Coordinates are in pixels from the corner of the image, so that pixel 0 reaches from 0 to 1.
    With tolerance 0 pycocotools draws exactly the mask from them.

    Args:
        tolerance_px: how far an outline may leave the mask's in order to have fewer points.
    """
    polygons = []
    for piece, top, left in _pieces(mask):
        (outline,) = skimage.measure.find_contours(
            np.pad(piece, 1).astype(float), 0.5, fully_connected="low"
        )
        points = skimage.measure.approximate_polygon(outline, max(tolerance_px, _ON_A_LINE))[:-1]
        if len(points) < 3:  # a piece smaller than the tolerance stays
            points = outline[:-1]
        polygons.append((points[:, ::-1] - 0.5 + (left, top)).ravel().tolist())
    return polygons


def polygons_iou(polygons: Sequence[Sequence[float]], mask: Bool[ndarray, "h w"]) -> float:
    """IoU of what pycocotools draws from polygons with the mask; 1 where both are empty."""
    drawn = np.zeros_like(mask)
    if polygons:
        drawn = decode_mask(
            codec.merge(codec.frPyObjects(polygons, *mask.shape))["counts"], mask.shape
        )
    union = int((drawn | mask).sum())
    return int((drawn & mask).sum()) / union if union else 1.0


def _pieces(mask: Bool[ndarray, "h w"]) -> Iterator[tuple[Bool[ndarray, "h w"], int, int]]:
    """Connected pieces without a hole, each cut out, with its first row and column."""
    waiting = [(mask, 0, 0)]
    while waiting:
        part, top, left = waiting.pop()
        for piece, y, x in _components(part):
            cut = _column_of_hole(piece)
            if cut is None:
                yield piece, top + y, left + x
            else:
                waiting += [
                    (piece[:, : cut + 1], top + y, left + x),
                    (piece[:, cut + 1 :], top + y, left + x + cut + 1),
                ]


def _components(mask: Bool[ndarray, "h w"]) -> Iterator[tuple[Bool[ndarray, "h w"], int, int]]:
    """Pieces whose pixels share sides, each cut out, with its first row and column."""
    for region in skimage.measure.regionprops(skimage.measure.label(mask, connectivity=1)):
        yield region.image, region.bbox[0], region.bbox[1]


def _column_of_hole(piece: Bool[ndarray, "h w"]) -> int | None:
    """The column next to the middle that meets a hole; None where there is none."""
    outside = skimage.measure.label(np.pad(~piece, 1, constant_values=True), connectivity=2)
    holes = ~piece & (outside[1:-1, 1:-1] != outside[0, 0])
    columns = np.flatnonzero(holes.any(0))
    if not len(columns):
        return None
    return int(columns[np.abs(columns - piece.shape[1] // 2).argmin()])
