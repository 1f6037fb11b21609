"""Masks of instances between image pixels and the cells of boxes.

Pixel i covers i to i + 1 and the cells of a box fill it, in both directions.
"""

from dataclasses import dataclass
from math import ceil, floor
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_align


class Instances(NamedTuple):
    """Objects that were found in one image, the likeliest first.

    Attributes:
        boxes_xyxy: float (o, 4) in image pixels.
        classes: int64 (o,) class indices.
        scores: float (o,) in [0, 1].
        masks: bool (o, h, w).
    """

    boxes_xyxy: Float[Tensor, "o 4"]
    classes: Int[Tensor, " o"]
    scores: Float[Tensor, " o"]
    masks: Bool[Tensor, "o h w"]


@dataclass(frozen=True)
class SoftInstances:
    """Objects that were found in one image, the likeliest first, with their masks as they came.

    Attributes:
        boxes_xyxy: float (o, 4) in image pixels.
        classes: int64 (o,) class indices.
        scores: float (o,) in [0, 1].
        grids: float (o, s, s), probability in each cell of the box.
        size_hw: height and width of the image.
    """

    boxes_xyxy: Float[Tensor, "o 4"]
    classes: Int[Tensor, " o"]
    scores: Float[Tensor, " o"]
    grids: Float[Tensor, "o s s"]
    size_hw: tuple[int, int]

    def probabilities(self, place: int) -> Float[Tensor, "h w"]:
        """One object's probability at each pixel of the image."""
        return paste_grid(self.grids[place], self.boxes_xyxy[place], self.size_hw)

    def masked(self, threshold: float) -> Instances:
        """The objects with masks where the probability is above the threshold."""
        planes = [self.probabilities(i) > threshold for i in range(len(self.grids))]
        empty = self.grids.new_zeros((0, *self.size_hw), dtype=torch.bool)
        masks = torch.stack(planes) if planes else empty
        return Instances(self.boxes_xyxy, self.classes, self.scores, masks)


def project_masks(
    masks: Bool[Tensor, "o h w"],
    boxes_xyxy: Float[Tensor, "m 4"],
    objects: Int[Tensor, " m"],
    cells: int,
) -> Bool[Tensor, "m s s"]:
    """Masks of objects in the cells of boxes: those of which the mask covers half or more.

    Args:
        objects: which mask belongs to each box.
        cells: s, a side.
    """
    covered = boxes_xyxy.new_zeros(len(boxes_xyxy), cells, cells)
    for number in objects.unique().tolist():  # planes of all at once would take gigabytes
        own = objects == number
        plane = masks[number][None, None].to(boxes_xyxy.dtype)
        covered[own] = roi_align(plane, [boxes_xyxy[own]], cells, aligned=True)[:, 0]
    return covered >= 0.5


def paste_grid(
    grid: Float[Tensor, "s s"], box_xyxy: Float[Tensor, " 4"], size_hw: tuple[int, int]
) -> Float[Tensor, "h w"]:
    """A box's grid as a plane of its image, bilinear; 0 outside the box.

    The cells fill the box, and beyond its edge the grid goes on with 0, as in Detectron2.
    """
    plane = grid.new_zeros(size_hw)
    x1, y1, x2, y2 = box_xyxy.tolist()
    rows = _pixels_between(y1, y2, size_hw[0]).to(grid)
    columns = _pixels_between(x1, x2, size_hw[1]).to(grid)
    if not (len(rows) and len(columns)):
        return plane
    y = 2 * (rows + 0.5 - y1) / (y2 - y1) - 1
    x = 2 * (columns + 0.5 - x1) / (x2 - x1) - 1
    where = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)  # (h', w', 2)
    values = functional.grid_sample(grid[None, None], where[None], align_corners=False)
    top, left = int(rows[0]), int(columns[0])
    plane[top : top + len(rows), left : left + len(columns)] = values[0, 0]
    return plane


def _pixels_between(low: float, high: float, side: int) -> Int[Tensor, " i"]:
    """The pixels of an image's side that lie in an interval, wholly or in part."""
    start = max(floor(low), 0)
    return torch.arange(start, max(min(ceil(high), side), start))
