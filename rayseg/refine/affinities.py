"""Affinities of pixels that lie near each other: from an edge map, and from features.

Both come as planes (n, h, w), one for each offset of `pixel_pairs` in its order: the affinity of a
pixel and the pixel at that offset from it, 0 where there is no such pair.

Source: dissertation eq. 2.5 and 2.6 (METHODS 1.6 and 2).
"""

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rayseg.nets.affinity import FeatureDistance
from rayseg.records.pairs import pixel_pairs

Borders = Literal["quirk", "clipped"]

_CHANNELS = 32
"""Channels that are compared at once, so that differences of all never lie in memory."""


def edge_affinities(
    edges: Float[Tensor, "n h w"], radius: int = 5
) -> Iterator[Float[Tensor, "n h w"]]:
    """1 - the greatest edge on the path of each pair.

    Args:
        edges: probability in [0, 1] that a pixel lies on a boundary.

    Source: edge_to_affinity of IRN's misc/indexing.py, dissertation eq. 2.6. IRN pads the map with
    edges, which no path inside meets.
    """
    reach, (height, width) = radius - 1, edges.shape[1:]
    # beyond the border all is edge, and a path ends in its target
    padded = functional.pad(edges, (reach, reach, 0, reach), value=1.0)
    for path in pixel_pairs(radius).paths:
        greatest = torch.zeros_like(edges)
        for down, right in path.tolist():
            left = right + reach
            view = padded[:, down : down + height, left : left + width]
            greatest = torch.maximum(greatest, view)
        yield 1 - greatest


def feature_affinities(
    features: Float[Tensor, "n c h w"],
    radius: int = 5,
    borders: Borders = "quirk",
    distance: FeatureDistance = "mean",
) -> Iterator[Float[Tensor, "n h w"]]:
    """exp(-distance) of the features of each pair.

    Args:
        features: AffinityNet's, any range.
        borders: which pairs count; ``quirk`` leaves those out whose source is none of
            `PixelPairs.sources`, as PSA's code does, which does not pad. A pixel at the left border
            then has 2 neighbours, one in a corner has none. ``clipped`` takes all in the image.
        distance: ``mean`` of the absolute differences over the channels is PSA's code, their
            ``sum`` is eq. 2.5.

    Source: AffinityNet of PSA's network/resnet38_aff.py, dissertation eq. 2.5.
    """
    pairs, (_, channels, height, width) = pixel_pairs(radius), features.shape
    for down, right in pairs.offsets_yx.tolist():
        size_hw = (height, width)
        quirk = borders == "quirk"
        window = pairs.sources(size_hw) if quirk else pairs.inside(size_hw, (down, right))
        plane = torch.zeros_like(features[:, 0])
        if plane[..., *window].numel():
            target = pairs.shifted(window, (down, right))
            gap = plane[..., *window].clone()
            for some in features.split(_CHANNELS, 1):
                gap += (some[..., *window] - some[..., *target]).abs().sum(1)
            plane[..., *window] = torch.exp(-gap / (channels if distance == "mean" else 1))
        yield plane


def mean_affinity(
    features: Float[Tensor, "n c h w"], distance: FeatureDistance = "mean", beta: float = 1.0
) -> Float[Tensor, "n h w"]:
    """Mean over the pixels around each of the affinity to them, to a power; to look at.

    Up to eight are around a pixel; one with none has 0. In [0, 1].

    Source: ours; the affinity is that of dissertation eq. 2.5, the power PSA's infer_aff.py.
    """
    pairs, size_hw = pixel_pairs(2), (features.shape[2], features.shape[3])
    total, count = (torch.zeros_like(features[:, 0]) for _ in range(2))
    planes = feature_affinities(features, 2, "clipped", distance)
    for offset, plane in zip(pairs.offsets_yx.tolist(), planes, strict=True):
        source = pairs.inside(size_hw, offset)
        for end in (source, pairs.shifted(source, offset)):
            total[..., *end] += plane[..., *source] ** beta
            count[..., *end] += 1
    return total / count.clamp(min=1)
