"""Where in an object the pixels lie that a head needs: in its interior or at its boundary.

Source: dissertation 5.5, Figure 5.6(a, b): with C the points on the contour of the object's mask
and x_c its centroid, a pixel x at an angle theta from x_c has

    r1 = |x - x_c|,  r2 = min_{c in C} |x - c|,  R = r1 / (r1 + r2) (cos theta, sin theta).

So |R| is 0 in the centroid and 1 on the contour. Outside of the mask it falls again below 1, and a
pixel far away has about 1/2; the dissertation plots all pixels above 0.9, and so do we.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray

HIGH = 0.9
"""A pixel above it is highly activated (5.5)."""
NEAR_BOUNDARY = 0.8
"""|R| from which a pixel counts as near the boundary: four times as far from the centroid."""
CELLS = 41
"""A side of the density picture; odd, so that the centroid lies in the middle of a cell."""
_DISTANCES_AT_ONCE = 2_000_000


def mask_contour(mask: Bool[ndarray, "h w"]) -> Float64[ndarray, "p 2"]:
    """Centres (x, y) of a mask's pixels that have one of four neighbours outside of it.

    What lies beyond the image is outside.
    """
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return _points(mask & ~inner)


def relative_positions(
    points_xy: Float[ndarray, "m 2"], mask: Bool[ndarray, "h w"]
) -> Float64[ndarray, "m 2"]:
    """R of points, (x, y) in pixels with y downwards; (0, 0) for a point that is the whole mask.

    The centroid is the mean over the mask's pixels.
    """
    if not mask.any():
        raise ValueError("mask must have a pixel, got none")
    arms = points_xy - _points(mask).mean(0)
    from_centre = np.hypot(arms[:, 0], arms[:, 1])
    total = from_centre + _distances(points_xy, mask_contour(mask))
    # (r1 / (r1 + r2)) (cos theta, sin theta) = arm / (r1 + r2)
    return np.divide(arms, total[:, None], out=np.zeros_like(arms), where=total[:, None] > 0)


def head_positions(
    map_: Float[ndarray, "h w"], mask: Bool[ndarray, "h w"], threshold: float = HIGH
) -> Float64[ndarray, "m 2"]:
    """R of the pixels in which a map is above a threshold."""
    if map_.shape != mask.shape:
        raise ValueError(f"map_ must be of the mask's size {mask.shape}, got {map_.shape}")
    return relative_positions(_points(map_ > threshold), mask)


@dataclass(frozen=True, eq=False)
class PositionCounts:
    """Pixels by their relative position; counts of objects add up.

    Attributes:
        density: int64 (CELLS, CELLS), pixels in the cells of [-1, 1] x [-1, 1], a row a y,
            downwards.
        near: pixels near the boundary.
        pixels: all.
    """

    density: Int64[ndarray, "b b"] = field(default_factory=lambda: np.zeros((CELLS, CELLS), int))
    near: int = 0
    pixels: int = 0

    @classmethod
    def of(cls, positions: Float[ndarray, "m 2"], near: float = NEAR_BOUNDARY) -> Self:
        """Counts of one object's pixels."""
        span = [[-1, 1], [-1, 1]]
        # rounding may carry |R| = 1 over the edge
        inside = np.clip(positions, -1, 1)
        density, _, _ = np.histogram2d(inside[:, 1], inside[:, 0], CELLS, span)
        radii = np.hypot(positions[:, 0], positions[:, 1])
        return cls(density.astype(int), int((radii >= near).sum()), len(positions))

    def __add__(self, other: PositionCounts) -> PositionCounts:
        return PositionCounts(
            self.density + other.density, self.near + other.near, self.pixels + other.pixels
        )

    @property
    def near_share(self) -> float:
        """Share of the pixels that lie near the boundary; 0 without pixels."""
        return self.near / self.pixels if self.pixels else 0.0

    def figures(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON."""
        return {
            "pixels": self.pixels,
            "near_boundary": self.near,
            "near_share": self.near_share,
            "density": self.density.tolist(),
        }


def _points(mask: Bool[ndarray, "h w"]) -> Float64[ndarray, "p 2"]:
    y, x = np.nonzero(mask)
    return np.stack([x, y], 1).astype(float)


def _distances(
    points: Float[ndarray, "m 2"], contour: Float[ndarray, "p 2"]
) -> Float64[ndarray, " m"]:
    """Distance of each point to the nearest point of a contour."""
    step = max(_DISTANCES_AT_ONCE // len(contour), 1)
    nearest = np.empty(len(points))
    for start in range(0, len(points), step):
        x, y = (points[start : start + step, None, axis] - contour[:, axis] for axis in (0, 1))
        nearest[start : start + step] = np.sqrt((x * x + y * y).min(1))
    return nearest
