"""RoIAlign as matrix products.

Source: He et al., *Mask R-CNN*, ICCV 2017. RoIAlign averages a regular grid of bilinear samples, so
that it is separable, with A_y and A_x of each region (their rows sum to 1 inside the map):

    pooled[i, j] = sum_y sum_x A_y[i, y] A_x[j, x] F[y, x]

torchvision's kernel does the same one sample after the other: slowly on CPUs, and on GPUs with a
gradient that is added up in no fixed order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SAMPLES = 2
"""Of a bin along each axis, as published detectors have them."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a region of that side is pooled from stride 16


class RegionPool(nn.Module):
    """Pools each region from the level of a pyramid that suits its size.

    It takes the place of torchvision's `MultiScaleRoIAlign` and gives the same numbers.

    Args:
        levels: of the pyramid that regions are pooled from, named "0", "1", ...
        size: bins along each axis.
        first_level: of the pyramid, 2 at stride 4.
    """

    def __init__(self, levels: int, size: int, first_level: int = 2):
        super().__init__()
        self.levels, self.size, self.first_level = levels, size, first_level

    def forward(
        self,
        features: Mapping[str, Float[Tensor, "n d y x"]],
        boxes: Sequence[Float[Tensor, "m 4"]],
        image_sizes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "m d s s"]:
        """Features of the regions of all images, image by image.

        Args:
            features: by the name of the level.
            boxes: of each image, in input pixels.
            image_sizes: not asked for.
        """
        del image_sizes  # a level's stride is known
        regions = torch.cat(list(boxes))
        owner = torch.arange(len(boxes), device=regions.device).repeat_interleave(
            torch.tensor([len(own) for own in boxes], device=regions.device)
        )
        level = region_levels(regions, self.levels, self.first_level)
        parts, places = [], []
        for place in range(self.levels):
            own = (level == place).nonzero()[:, 0]
            stride = 2 ** (self.first_level + place)
            plane = features[str(place)]
            parts.append(pool_regions(plane, regions[own], owner[own], stride, self.size))
            places.append(own)
        pooled = torch.cat(parts)[torch.cat(places).argsort()]
        return pooled.permute(0, 3, 1, 2)


def region_levels(
    regions_xyxy: Float[Tensor, "m 4"], levels: int, first_level: int
) -> Int[Tensor, " m"]:
    """Index of the level that each region is pooled from, as torchvision's LevelMapper.

    Source: Lin et al., CVPR 2017, eq. 1.
    """
    sides = regions_xyxy[:, 2:] - regions_xyxy[:, :2]
    # torchvision's order of operations, since a rounding error changes the level
    root = torch.sqrt(sides[:, 0] * sides[:, 1])
    level = torch.floor(CANONICAL_LEVEL + torch.log2(root / CANONICAL_SIDE) + 1e-6)
    return level.clamp(first_level, first_level + levels - 1).to(torch.int64) - first_level


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
