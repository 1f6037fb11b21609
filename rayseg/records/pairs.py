"""Pairs of pixels that lie near each other, and the pixels between the two of a pair.

A pair is a source pixel and an offset (y, x) to its target. Of the two offsets that join the same
pixels only the one that points down, or right in the same row, is listed. The path of an offset is
every pixel of the rectangle between source and target whose squared distance to the line through
both is less than 1, both ends included.

Source: Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations", CVPR 2019 (IRN), section 4; misc/indexing.py of its code (METHODS 1.6).
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

SubGrid = tuple[slice, slice]
"""Rows and columns of a grid; indexes the last two axes of an array or tensor by `[..., *it]`."""


@dataclass(frozen=True, eq=False)
class PixelPairs:
    """The pairs of a radius; they do not depend on the size of a grid.

    Attributes:
        radius: distance in pixels that no pair reaches.
        offsets_yx: (p, 2) from source to target, by ascending length of path. Read-only.
        path_groups: the paths, of one length each: (g, l, 2) offsets (y, x) from the source of l
            pixels, far to near. Groups one after the other are in the order of `offsets_yx`.
    """

    radius: int
    offsets_yx: Int64[ndarray, "p 2"]
    path_groups: tuple[Int64[ndarray, "g l 2"], ...]

    @cached_property
    def paths(self) -> tuple[Int64[ndarray, "l 2"], ...]:
        """The path of each offset."""
        return tuple(path for group in self.path_groups for path in group)

    def sources(self, size_hw: tuple[int, int]) -> SubGrid:
        """The pixels of a grid of which every target lies in it: IRN's and PSA's sources.

        The lowest radius - 1 rows and the outer radius - 1 columns of both sides have none. A grid
        that is too small gives an empty window.
        """
        reach, (height, width) = self.radius - 1, size_hw
        last = max(reach, width - reach)
        return slice(0, max(0, height - reach)), slice(reach, last)

    def inside(self, size_hw: tuple[int, int], offset_yx: tuple[int, int] | ndarray) -> SubGrid:
        """The pixels of a grid of which the target at an offset lies in it."""
        (down, right), (height, width) = (int(step) for step in offset_yx), size_hw
        first = max(0, -right)
        return slice(0, max(0, height - down)), slice(first, max(first, width - max(0, right)))

    def shifted(self, window: SubGrid, offset_yx: tuple[int, int] | ndarray) -> SubGrid:
        """The window moved by an offset, which must keep it in the grid."""
        down, right = (int(step) for step in offset_yx)
        rows, columns = window
        return (
            slice(rows.start + down, rows.stop + down),
            slice(columns.start + right, columns.stop + right),
        )


@cache
def pixel_pairs(radius: int) -> PixelPairs:
    """The pairs of pixels less than a radius apart: 34 offsets for 5, 152 for 10.

    Raises:
        ValueError: the radius is below 2, where there is no pair.
    """
    if radius < 2:
        raise ValueError(f"radius must be 2 or more for a pixel to have a neighbour, got {radius}")
    steps = range(1 - radius, radius)
    offsets = [(0, x) for x in range(1, radius)]
    offsets += [(y, x) for y in range(1, radius) for x in steps if y * y + x * x < radius * radius]
    by_length: dict[int, list[tuple[tuple[int, int], list[tuple[int, int]]]]] = {}
    for offset in offsets:
        path = _path(*offset)
        by_length.setdefault(len(path), []).append((offset, path))
    groups = [by_length[length] for length in sorted(by_length)]
    return PixelPairs(
        radius,
        _frozen([offset for group in groups for offset, _ in group]),
        tuple(_frozen([path for _, path in group]) for group in groups),
    )


def _path(down: int, right: int) -> list[tuple[int, int]]:
    """Pixels of the path of an offset, the target first and the source last."""
    length_squared = down * down + right * right
    rows, columns = range(down + 1), range(min(0, right), max(0, right) + 1)
    # the squared distance to the line is a fraction; it is compared without dividing
    cells = [(y, x) for y in rows for x in columns if (down * x - right * y) ** 2 < length_squared]
    return sorted(cells, key=lambda cell: -cell[0] - abs(cell[1]))


def _frozen(numbers: list) -> ndarray:  # type: ignore[type-arg]
    array = np.array(numbers, np.int64)
    array.setflags(write=False)
    return array
