"""Losses over pairs of near cells: IRNet's and AffinityNet's, and the labels of pairs.

A pair is good for learning where both its labels are known: of the background, of one class, or of
two. Labels of pairs are found on the device from the small map of labels; the authors' code makes
them on the CPU and sends 24 MB for each image.

Every loss is a sum and what to divide it by, of which both add over batches and workers. Where a
kind of pair has none, its loss is 0, as in the authors' codes, which add 1e-5 to the number of
pairs.

Source: Ahn et al., CVPR 2019 (IRN), step/train_irn.py; Ahn and Kwak, CVPR 2018 (PSA), train_aff.py
(METHODS 1.6 and 2).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rayseg.nets.affinity import FeatureDistance
from rayseg.nets.losses import labels_on_grid
from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.pairs import PixelPairs, pixel_pairs

Terms = Mapping[str, tuple[Tensor, Tensor]]
"""By its name, the sum of a loss and the number of what it is a mean over."""
_SMALL = 1e-5
"""Inside of the logarithms."""


@dataclass(frozen=True)
class PairLabels:
    """What is known of pairs, each (n, p, s): p offsets, s sources row by row.

    Attributes:
        background: both are background.
        foreground: both are of one class.
        different: of two classes, or one of them is background.
    """

    background: Bool[Tensor, "n p s"]
    foreground: Bool[Tensor, "n p s"]
    different: Bool[Tensor, "n p s"]

    @classmethod
    def of(cls, labels: Integer[Tensor, "n h w"], radius: int) -> "PairLabels":
        """Of small maps of labels 0, class index + 1 or 255; pairs with a 255 are of no kind."""
        (near, far) = (torch.stack(one, 1) for one in zip(*_ends(labels, radius), strict=True))
        known = (near != IGNORE) & (far != IGNORE)
        same = known & (near == far)
        return cls(same & (near == BACKGROUND), same & (near != BACKGROUND), known & (near != far))


def small_labels(
    labels: Integer[Tensor, "n h w"], cell: int, by: Literal["nearest", "majority"]
) -> Integer[Tensor, "n y x"]:
    """Labels on cells of that many pixels.

    Args:
        labels: 0, class index + 1 or 255; sides divide by the cell.
        by: nearest is the label under a cell's centre, the lower right one of the four around it,
            as PIL has it (IRN); majority the label that most of its pixels have, of several the
            lowest.
    """
    if by == "nearest":
        height, width = (side // cell for side in labels.shape[1:])
        return labels_on_grid(labels, (height, width))
    pixels = labels.unfold(1, cell, cell).unfold(2, cell, cell).flatten(3).long()  # (n, y, x, a)
    counts = pixels.new_zeros(*pixels.shape[:3], IGNORE + 1)
    counts.scatter_add_(3, pixels, torch.ones_like(pixels))
    ranks = torch.arange(IGNORE, -1, -1, device=labels.device)
    best = (counts * (IGNORE + 1) + ranks).max(3).values
    return (IGNORE - best % (IGNORE + 1)).to(labels.dtype)


def affinities_of_edges(edges: Float[Tensor, "n h w"], radius: int) -> Float[Tensor, "n p s"]:
    """1 minus the strongest edge on the way from a source to each target.

    Args:
        edges: in [0, 1].

    Source: IRN, equation 4; the way is that of `PixelPairs`.
    """
    return 1 - _StrongestEdges.apply(edges, radius)


class _StrongestEdges(torch.autograd.Function):
    """The strongest edge on each path; what is kept for the gradient is a byte a pair."""

    @staticmethod
    def forward(ctx: Any, edges: Float[Tensor, "n h w"], radius: int) -> Float[Tensor, "n p s"]:
        pairs = pixel_pairs(radius)
        window = pairs.sources(_size(edges))
        sources = edges[..., *window]
        size = (len(edges), len(pairs.paths), *sources.shape[1:])
        strongest = edges.new_empty(size)
        places = torch.zeros(size, dtype=torch.uint8, device=edges.device)
        for at, path in enumerate(pairs.paths):
            greatest, place = edges[..., *pairs.shifted(window, path[0])], places[:, at]
            for number, step in enumerate(path[1:], 1):
                other = edges[..., *pairs.shifted(window, step)]
                place.masked_fill_(other > greatest, number)
                greatest = torch.maximum(greatest, other)
            strongest[:, at] = greatest
        ctx.save_for_backward(places)
        ctx.radius, ctx.size = radius, edges.shape
        return strongest.flatten(2)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        pairs = pixel_pairs(ctx.radius)
        window = pairs.sources((ctx.size[1], ctx.size[2]))
        slope, gradient = slopes[0].view(places.shape), slopes[0].new_zeros(ctx.size)
        for at, path in enumerate(pairs.paths):
            for number, step in enumerate(path):
                here = slope[:, at] * (places[:, at] == number)
                gradient[..., *pairs.shifted(window, step)] += here
        return gradient, None


def affinities_of_features(
    features: Float[Tensor, "n d h w"], radius: int, distance: FeatureDistance = "mean"
) -> Float[Tensor, "n p s"]:
    """exp(-|f_i - f_j|) of sources and targets."""
    return torch.exp(-distances_of_features(features, radius, distance))


def distances_of_features(
    features: Float[Tensor, "n d h w"], radius: int, distance: FeatureDistance = "mean"
) -> Float[Tensor, "n p s"]:
    """|f_i - f_j| of sources and targets, which is minus the logarithm of their affinity."""
    pairs = pixel_pairs(radius)
    window = pairs.sources(_size(features))

    def apart(whole: Tensor, offset: tuple[int, int]) -> Tensor:
        each = (whole[..., *window] - whole[..., *pairs.shifted(window, offset)]).abs()
        return (each.mean(1) if distance == "mean" else each.sum(1)).flatten(1)

    # differences of all channels are made again for the gradient: they would be 34 times as large
    # as the features
    offsets = [(int(down), int(right)) for down, right in pairs.offsets_yx]
    return torch.stack(
        [checkpoint(apart, features, one, use_reentrant=False) for one in offsets], 1
    )


def affinity_terms(affinities: Float[Tensor, "n p s"], labels: PairLabels) -> Terms:
    """A quarter of the mean over each of both kinds of alike pairs, half of that over others."""
    return _weighted(-torch.log(affinities + _SMALL), affinities, labels)


def distance_terms(distances: Float[Tensor, "n p s"], labels: PairLabels) -> Terms:
    """The same of affinities exp(-distance), whose logarithm is taken without a rest.

    Sums over channels are so large that their affinities are 0, and log(0 + 1e-5) has no gradient.
    """
    return _weighted(distances, torch.exp(-distances), labels)


def _weighted(
    alike: Float[Tensor, "n p s"], affinities: Float[Tensor, "n p s"], labels: PairLabels
) -> Terms:
    apart = -torch.log(1 + _SMALL - affinities)
    return {
        "background": _mean_over(labels.background, alike, 1 / 4),
        "foreground": _mean_over(labels.foreground, alike, 1 / 4),
        "different": _mean_over(labels.different, apart, 1 / 2),
    }


def displacement_terms(
    displacements: Float[Tensor, "n 2 h w"], labels: PairLabels, radius: int
) -> Terms:
    """A quarter of the sum of both axes' mean errors: D_i - D_j is the offset on an object, else 0.

    Args:
        displacements: (down, right) in cells.

    Source: IRN, equations 6 and 7.
    """
    objects, still = _DisplacementErrors.apply(displacements, labels, radius)
    return {
        "displacement": (objects / 4, labels.foreground.sum()),
        "still": (still / 4, labels.background.sum()),
    }


class _DisplacementErrors(torch.autograd.Function):
    """Sums of the errors of displacements on objects and on background.

    The gradient is made along with them, one offset at a time: all pairs together would be 150
    times the field, several times over.
    """

    @staticmethod
    def forward(
        ctx: Any, displacements: Float[Tensor, "n 2 h w"], labels: PairLabels, radius: int
    ) -> tuple[Tensor, Tensor]:
        pairs, sums = pixel_pairs(radius), displacements.new_zeros(2)
        window = pairs.sources(_size(displacements))
        gradients = displacements.new_zeros(2, *displacements.shape)
        sources = displacements[..., *window]
        size = (len(displacements), 1, *sources.shape[2:])
        for at, offset in enumerate(pairs.offsets_yx):
            target = pairs.shifted(window, offset)
            apart = sources - displacements[..., *target]
            to_target = torch.from_numpy(offset.copy()).to(apart)[:, None, None]
            kinds = ((labels.foreground, to_target), (labels.background, to_target * 0))
            for which, (kind, expected) in enumerate(kinds):
                counted = kind[:, at].view(size)
                error = (apart - expected) * counted
                sums[which] += error.abs().sum()
                slope = error.sign()
                gradients[which][..., *window] += slope
                gradients[which][..., *target] -= slope
        ctx.save_for_backward(gradients)
        return sums[0], sums[1]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (gradients,) = ctx.saved_tensors
        return slopes[0] * gradients[0] + slopes[1] * gradients[1], None, None


def _ends(planes: Tensor, radius: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Values at the sources and at the targets of each offset, (..., s)."""
    pairs = pixel_pairs(radius)
    window = pairs.sources(_size(planes))
    sources = planes[..., *window].flatten(-2)
    for offset in pairs.offsets_yx:
        yield sources, planes[..., *pairs.shifted(window, offset)].flatten(-2)


def _mean_over(
    kind: Bool[Tensor, "n p s"], losses: Float[Tensor, "n p s"], weight: float
) -> tuple[Tensor, Tensor]:
    return weight * (losses * kind).sum(), kind.sum()


def _size(planes: Tensor) -> tuple[int, int]:
    return planes.shape[-2], planes.shape[-1]


def check_room(side: int, radius: int) -> None:
    """Refuses a grid in which no pair of that radius has room.

    Raises:
        ValueError: it says the least side.
    """
    pairs: PixelPairs = pixel_pairs(radius)
    least = 2 * (pairs.radius - 1) + 1
    if side < least:
        raise ValueError(f"radius {radius} asks for crops of {least} cells or more, got {side}")
