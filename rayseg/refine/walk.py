"""The random walk by which PSA and IRNet spread maps over the pixels that belong together.

With affinities A_ij of pixels less than a radius apart (A_ii = 1, else 0), maps x as rows and
n = 2^log_steps steps,

    y = x T^n,    T_ij = A_ij^beta / sum_i A_ij^beta

IRNet (`EdgeWalk`):  A_ij = 1 - max of the edge map on the path from i to j,  x = map (1 - edge)
PSA (`FeatureWalk`): A_ij = exp(-mean over the channels of |f_i - f_j|)

The authors square the dense matrix T, of all pixels by all pixels, log_steps times. Here T is never
made: `chebyshev` has the same power as a hundred sparse products. An image takes 34 weights (radius
5) and 5 numbers a class for each pixel: a process grows by less than 10 MB in float64 for the
quarter size of 375x500, and by 0.3 GB for that of 4000x3000.

Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity", CVPR 2018 (PSA; infer_aff.py); Ahn
et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR 2019
(IRNet; propagate_to_edge of misc/indexing.py); dissertation 2.3.2 (METHODS 1.7 and 2).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rayseg.nets.affinity import FeatureDistance
from rayseg.records.pairs import pixel_pairs
from rayseg.refine.affinities import Borders, edge_affinities, feature_affinities
from rayseg.refine.chebyshev import Transitions

_PRECISIONS = {"fp64": (torch.float64, 1e-11), "fp32": (torch.float32, 1e-7)}
"""Number format, and how much the polynomials that are left out may add up to."""
_BATCH_BYTES = 2**28
"""Of the weights of images that are walked on at once, and of their maps; at least one of each."""


@dataclass(frozen=True, kw_only=True)
class _Walk:
    radius: int = 5
    beta: float = 8
    log_steps: int = 8
    precision: Literal["fp64", "fp32"] = "fp64"

    def __post_init__(self) -> None:
        pixel_pairs(self.radius)
        if not self.beta > 0:
            raise ValueError(f"beta must be positive, got {self.beta}")
        _check_log_steps([self.log_steps])
        if self.precision not in _PRECISIONS:
            raise ValueError(f"precision must be fp64 or fp32, got {self.precision!r}")

    def _spread(
        self,
        maps: Float[Tensor, "n k h w"],
        affinities: Iterable[Float[Tensor, "n h w"]],
        like: Float[Tensor, "n h w"],
        log_steps: Sequence[int],
    ) -> Float[Tensor, "t n k h w"]:
        powers = (plane**self.beta for plane in affinities)
        transitions = Transitions(powers, self.radius, like)
        dtype, tolerance = _PRECISIONS[self.precision]
        steps = [2**one for one in log_steps]
        numbers = like.numel() * (4 + len(steps))
        at_once = max(1, _BATCH_BYTES // (numbers * dtype.itemsize))
        found = [transitions.powers(some, steps, tolerance) for some in maps.split(at_once, 1)]
        return torch.cat([one.to(maps.dtype) for one in found], 2)

    def _batches(self, maps: Tensor, beside: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Maps of some images at a time, and what stands beside in the walk's number format."""
        dtype, _ = _PRECISIONS[self.precision]
        numbers = maps.shape[-2:].numel() * len(pixel_pairs(self.radius).offsets_yx)
        at_once = max(1, _BATCH_BYTES // (numbers * dtype.itemsize))
        for some, other in zip(maps.split(at_once), beside.split(at_once), strict=True):
            yield some, other.to(dtype)


@dataclass(frozen=True, kw_only=True)
class EdgeWalk(_Walk):
    """IRNet's walk, which does not cross edges.

    Attributes:
        radius: Distance in pixels that no pair reaches.
        beta: Exponent of the affinities.
        log_steps: Binary logarithm of the number of steps; exp_times of the code.
        precision: Number format of the walk; fp32 needs half the memory and is good to 5e-5.
    """

    beta: float = 10

    @classmethod
    def official(cls) -> Self:
        """The values of the authors' code."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """The dissertation names no constant; those of the code."""
        return cls()

    def __call__(
        self, maps: Float[Tensor, "n k h w"], edges: Float[Tensor, "n h w"]
    ) -> Float[Tensor, "n k h w"]:
        """The maps after the walk, of the type of the maps and on their device.

        Args:
            maps: of n images of one size, any range; a plane of zeros stays one, so that images of
                fewer classes can be filled up with such.
            edges: probability that a pixel lies on a boundary.

        Raises:
            ValueError: shapes do not fit, or an edge is outside [0, 1].
        """
        return self.course(maps, edges, [self.log_steps])[0]

    @torch.no_grad()
    def course(
        self,
        maps: Float[Tensor, "n k h w"],
        edges: Float[Tensor, "n h w"],
        log_steps: Sequence[int],
    ) -> Float[Tensor, "t n k h w"]:
        """The maps after several numbers of steps, in the time of the largest."""
        _check_log_steps(log_steps)
        _check(maps, edges, "edges", (len(maps), *maps.shape[2:]))
        if not bool(((edges >= 0) & (edges <= 1)).all()):
            raise ValueError(f"edges must lie in [0, 1], got {edges.min()} to {edges.max()}")
        found = [
            self._spread(
                some * (1 - edge)[:, None].to(some.dtype),
                edge_affinities(edge, self.radius),
                edge,
                log_steps,
            )
            for some, edge in self._batches(maps, edges)
        ]
        return torch.cat(found, 1)


@dataclass(frozen=True, kw_only=True)
class FeatureWalk(_Walk):
    """PSA's walk, to pixels of similar features.

    Attributes:
        radius: Distance in pixels that no pair reaches.
        beta: Exponent of the affinities.
        log_steps: Binary logarithm of the number of steps; logt of the code, which SEAM has at 6.
        borders: Pairs that count. ``quirk`` leaves those out whose upper pixel lies less than
            radius - 1 from the left, right or lower border, as PSA's code does, which does not pad:
            a pixel at the left border then has 2 neighbours, one in a corner none or one.
            ``clipped`` takes all pairs in the image.
        distance: Distance of two features; ``mean`` over the channels is the code, ``sum`` is
            equation 2.5.
        precision: Number format of the walk; fp32 needs half the memory and is good to 5e-5.
    """

    borders: Borders = "quirk"
    distance: FeatureDistance = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in (("borders", Borders), ("distance", FeatureDistance)):
            if getattr(self, name) not in get_args(kind):
                known = " or ".join(map(repr, get_args(kind)))
                raise ValueError(f"{name} must be {known}, got {getattr(self, name)!r}")

    @classmethod
    def official(cls) -> Self:
        """The values of the authors' code."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """Equation 2.5, which sums over the channels, with every pair; constants of the code."""
        return cls(borders="clipped", distance="sum")

    def __call__(
        self, maps: Float[Tensor, "n k h w"], features: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n k h w"]:
        """The maps after the walk, of the type of the maps and on their device.

        Args:
            maps: of n images of one size, any range.
            features: AffinityNet's, at the size of the maps.

        Raises:
            ValueError: shapes do not fit, or a feature is not finite.
        """
        return self.course(maps, features, [self.log_steps])[0]

    @torch.no_grad()
    def course(
        self,
        maps: Float[Tensor, "n k h w"],
        features: Float[Tensor, "n c h w"],
        log_steps: Sequence[int],
    ) -> Float[Tensor, "t n k h w"]:
        """The maps after several numbers of steps, in the time of the largest."""
        _check_log_steps(log_steps)
        channels = features.shape[1] if features.ndim > 1 else 0
        _check(maps, features, "features", (len(maps), channels, *maps.shape[2:]))
        if not channels or not bool(features.isfinite().all()):
            raise ValueError("features must have a channel and be finite")
        found = [
            self._spread(
                some,
                feature_affinities(one, self.radius, self.borders, self.distance),
                one[:, 0],
                log_steps,
            )
            for some, one in self._batches(maps, features)
        ]
        return torch.cat(found, 1)


def _check_log_steps(log_steps: Sequence[int]) -> None:
    if not log_steps or not all(0 <= one <= 14 for one in log_steps):
        raise ValueError(f"log_steps must lie from 0 to 14, got {list(log_steps)}")


def _check(maps: Tensor, beside: Tensor, name: str, shape: tuple[int, ...]) -> None:
    if maps.ndim != 4 or not maps.is_floating_point() or 0 in (len(maps), *maps.shape[2:]):
        raise ValueError(
            "maps must be floating (n, k, h, w) of one image or more, "
            f"got {maps.dtype} {tuple(maps.shape)}"
        )
    if tuple(beside.shape) != shape or not beside.is_floating_point():
        raise ValueError(
            f"{name} must be floating {shape} for maps of {tuple(maps.shape)}, "
            f"got {beside.dtype} {tuple(beside.shape)}"
        )
