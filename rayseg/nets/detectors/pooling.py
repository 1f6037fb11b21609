"""RoIAlign as matrix products.

Source: He et al., *Mask R-CNN*, ICCV 2017. RoIAlign averages a regular grid of bilinear samples, so
that it is separable, with A_y and A_x of each region (their rows sum to 1 inside the map):

    pooled[i, j] = sum_y sum_x A_y[i, y] A_x[j, x] F[y, x]

torchvision's kernel does the same one sample after the other: slowly on CPUs, and on GPUs with a
gradient that is added up in no fixed order. Here regions that lie near each other are pooled
together, from no more of the map than they span.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SAMPLES = 2
"""Of a bin along each axis, as published detectors have them."""
CANONICAL_SIDE, CANONICAL_LEVEL = 224, 4  # a region of that side is pooled from stride 16
NEAR = 32
"""Regions are pooled together whose centres lie in one square of so many cells."""


class RegionPool(nn.Module):
    """Pools each region from the level of a pyramid that suits its size.

    It takes the place of torchvision's `MultiScaleRoIAlign` and gives the same numbers.

    Args:
        levels: of the pyramid that regions are pooled from, named "0", "1", ...
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
        """Features of the regions of all images, image by image."""
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
    y, x = regions_xyxy[:, [1, 3]] / stride, regions_xyxy[:, [0, 2]] / stride
    rows, columns = _bins(y, features.shape[2], size), _bins(x, features.shape[3], size)
    groups = _groups(owner, torch.stack([y.mean(1), x.mean(1)], 1), rows, columns)
    return _Pooling.apply(features, rows.to(features), columns.to(features), groups)


@dataclass(frozen=True)
class _Group:
    """Regions that are pooled together, and the part of a map that they span."""

    members: Int[Tensor, " g"]
    image: int
    rows: slice
    columns: slice


def _groups(
    owner: Int[Tensor, " m"],
    centres_yx: Float[Tensor, "m 2"],
    rows: Float[Tensor, "m s y"],
    columns: Float[Tensor, "m s x"],
) -> list[_Group]:
    """Regions of one image that lie near each other; centres are in cells."""
    squares = (centres_yx / NEAR).floor().long()
    keys, group, counts = torch.cat([owner[:, None], squares], 1).unique(
        dim=0, return_inverse=True, return_counts=True
    )
    bounds = [counts, keys[:, 0]]
    for weights in (rows, columns):
        length = weights.shape[2]
        cells = torch.arange(length, device=weights.device)
        used = (weights > 0).any(1)  # (m, length)
        first = torch.where(used, cells, length).amin(1)
        end = torch.where(used, cells + 1, 0).amax(1)
        bounds.append(first.new_full(counts.shape, length).scatter_reduce(0, group, first, "amin"))
        bounds.append(end.new_zeros(counts.shape).scatter_reduce(0, group, end, "amax"))
    # once for all groups, since a GPU is waited for
    spans = torch.stack(bounds, 1).tolist()
    members = group.argsort(stable=True).split([count for count, *_ in spans])
    return [
        _Group(own, image, slice(top, bottom), slice(left, right))
        for own, (_, image, top, bottom, left, right) in zip(members, spans, strict=True)
    ]


class _Pooling(torch.autograd.Function):
    """Both products, group by group, and the gradient to the features.

    By autograd, each group would keep what lies between its products, and add a gradient of all
    maps' size.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, rows: Tensor, columns: Tensor, groups: list[_Group]
    ) -> Tensor:
        ctx.save_for_backward(rows, columns)
        ctx.groups, ctx.shape = groups, features.shape
        planes, size, channels = features.permute(0, 2, 3, 1), rows.shape[1], features.shape[1]
        pooled = features.new_empty(len(rows), size, size, channels)
        for group in groups:
            plane = planes[group.image, group.rows, group.columns]  # (y, x, d)
            down = rows[group.members, :, group.rows].flatten(0, 1)  # (g * s, y)
            tall = (down @ plane.flatten(1)).view(len(group.members), size, *plane.shape[1:])
            across = columns[group.members, None, :, group.columns]  # (g, 1, s, x)
            pooled[group.members] = (across @ tall).to(pooled)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns = ctx.saved_tensors
        images, channels, height, width = ctx.shape
        found = rows.new_zeros(images, height, width, channels)
        for group in ctx.groups:
            across = columns[group.members, None, :, group.columns]  # (g, 1, s, x)
            tall = across.transpose(2, 3) @ gradients[0][group.members]  # (g, s, x, d)
            down = rows[group.members, :, group.rows].flatten(0, 1)  # (g * s, y)
            part = down.T @ tall.flatten(2).flatten(0, 1)  # (y, x * d)
            whole = found[group.image, group.rows, group.columns]
            whole += part.view(whole.shape)
        return found.permute(0, 3, 1, 2), None, None, None


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
