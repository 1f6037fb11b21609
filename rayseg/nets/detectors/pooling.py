"""RoIAlign as matrix products.

Source: He et al., *Mask R-CNN*, ICCV 2017. RoIAlign averages a regular grid of bilinear samples, so
that it is separable, with A_y and A_x of each region (their rows sum to 1 inside the map):

    pooled[i, j] = sum_y sum_x A_y[i, y] A_x[j, x] F[y, x]

torchvision's kernel does the same one sample after the other: slowly on CPUs, and on GPUs with a
gradient that is added up in no fixed order.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

SAMPLES = 2
"""Of a bin along each axis, as published detectors have them."""


def pool_regions(
    features: Float[Tensor, "n d y x"],
    regions_xyxy: Float[Tensor, "m 4"],
    owner: Int[Tensor, " m"],
    stride: float,
    size: int = 7,
) -> Float[Tensor, "m s s d"]:
    """Features of regions, size by size bins each, as torchvision's `roi_align` (not aligned).

    Args:
        features: of n inputs; fast where they lie channels last.
        regions_xyxy: in input pixels, without a gradient.
        owner: index into `features` of each region.
        stride: input pixels a cell.
        size: bins along each axis.
    """
    rows = _bins(regions_xyxy[:, [1, 3]] / stride, features.shape[2], size)
    columns = _bins(regions_xyxy[:, [0, 2]] / stride, features.shape[3], size)
    planes = features.permute(0, 2, 3, 1)  # (n, y, x, d)
    parts, places = [], []
    for image in owner.unique().tolist():
        own = (owner == image).nonzero()[:, 0]
        (top, bottom), (left, right) = _span(rows[own]), _span(columns[own])
        parts.append(
            _pool(
                planes[image, top:bottom, left:right],
                rows[own, :, top:bottom].to(features),
                columns[own, :, left:right].to(features),
            )
        )
        places.append(own)
    if not parts:
        return features.new_zeros(0, size, size, features.shape[1])
    pooled, order = torch.cat(parts), torch.cat(places)
    return pooled if len(parts) == 1 else pooled[order.argsort()]


def _pool(
    plane: Float[Tensor, "y x d"], rows: Float[Tensor, "m s y"], columns: Float[Tensor, "m s x"]
) -> Float[Tensor, "m s s d"]:
    regions, size, height = rows.shape
    width, channels = plane.shape[1:]
    tall = rows.reshape(regions * size, height) @ plane.reshape(height, width * channels)
    return columns[:, None] @ tall.view(regions, size, width, channels)


def _bins(sides: Float[Tensor, "m 2"], length: int, size: int) -> Float[Tensor, "m s length"]:
    """Weights of a map's cells in each bin along one axis."""
    start, extent = sides[:, :1], (sides[:, 1:] - sides[:, :1]).clamp(min=1)
    count = size * SAMPLES
    steps = (torch.arange(count, device=sides.device, dtype=sides.dtype) + 0.5) / count
    places = start + extent * steps  # (m, count)
    inside = (places >= -1) & (places <= length)
    cells = torch.arange(length, device=sides.device, dtype=sides.dtype)
    near = places.clamp(0, length - 1)[..., None]
    weights = (1 - (near - cells).abs()).clamp(min=0) * inside[..., None]  # (m, count, length)
    return weights.view(len(sides), size, SAMPLES, length).mean(2)


def _span(weights: Float[Tensor, "m s length"]) -> tuple[int, int]:
    """First cell with any weight, and the one after the last."""
    used = (weights > 0).any(0).any(0).nonzero()[:, 0]
    return (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
