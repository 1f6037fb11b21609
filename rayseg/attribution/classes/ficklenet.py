"""FickleNet: many random selections of hidden units, each finding another part of an object.

Lee et al., *FickleNet: Weakly and Semi-Supervised Semantic Image Segmentation Using Stochastic
Inference*, CVPR 2019; dissertation 3.2.1. A pass leaves random hidden units out of each window of
the classifier's head, and its map is the gradient's,

    map_c = ReLU( sum_k x_k * dS_c/dx_k )

With m[u, o] the selection in the window at position u and W the s x s head, that map is known
without a backward pass and without the expanded feature map of Figure 3.2b (METHODS 7):

    Y[c, o, v] = W[c, :, o] . x[:, v]
    map_c(v)   = ReLU( 1/(hw) sum_o m[v - o, o] Y[c, o, v] )

where m is 0 at positions outside the map. Y is made once a view and serves all passes.

There is no public code. Recalled from the paper (METHODS 7): 200 passes at a drop rate of 0.9,
centres that are never dropped, one image without its mirror image, and that a pixel belongs to a
class where any pass exceeds 0.35, conflicts being decided by the mean map. Ours: each pass's map is
divided by its own maximum before it is held against 0.35, and aggregation happens on the features'
grid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from rayseg.attribution.classes.base import Attribution, ScaleResult, seeded
from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.lean import LeanNetwork, check_head, placed
from rayseg.attribution.classes.views import ViewBatch, merge_views
from rayseg.nets.inputs import Precision
from rayseg.records.bounds import check_least

BLOCK_NUMBERS = 2**21
"""Units selected at a time: 8 MiB as float32, 15 passes of a 321-pixel image at stride 8."""


class LeanFickle(LeanNetwork):
    """The lean copy of a FickleNet.

    Its `weight`, and so its `class_maps`, are those of the windows' centres, which every selection
    keeps.

    Attributes:
        kernel: float32 (c, d, s, s), the head's.
    """

    head_side: ClassVar[int] = 0
    serves_all: ClassVar[bool] = False

    def __init__(self, network: nn.Module, precision: Precision = "auto"):
        super().__init__(network, precision)
        kernel = network.get_parameter("head.weight")
        self.kernel: Float[Tensor, "c d s s"] = kernel.detach().float().clone()


@dataclass(frozen=True)
class FickleNet(Attribution):
    """Random selections of hidden units; at drop rate 0 it is Grad-CAM, element by element.

    Attributes:
        num_passes: Random selections of each view.
        drop_rate: Chance, in [0, 1), that a hidden unit beside a window's centre is left out,
            within 2**-16, whatever the training's was.
        aggregate: How the passes, each divided by its maximum, become one map. threshold is the
            published rule: 0.5 where any pass exceeds `threshold`, plus half their mean over its
            maximum. A background threshold of 0.5 then leaves the pixels that any pass found, and
            the mean decides between classes. max and mean take the plain maximum and mean.
        threshold: Value in [0, 1) that a pass must exceed; used only by aggregate threshold.
        seed: Seed of the selections, with the image's id and the view.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    num_passes: int = 200
    drop_rate: float = 0.9
    aggregate: Literal["threshold", "max", "mean"] = "threshold"
    threshold: float = 0.35
    seed: int = 0

    network_kind: ClassVar[str] = "ficklenet"
    # aggregate threshold is made so that 0.5 is the published rule
    own_thresholds: ClassVar[tuple[float, float] | None] = (0.50, 0.05)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_passes=1)
        if not 0 <= self.drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {self.drop_rate}")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold must be in [0, 1), got {self.threshold}")

    @classmethod
    def as_written(cls) -> Self:
        """What has "high scores in each localization map", in one map: the passes' maximum.

        The text names no threshold, no rule for conflicts and no constants; these are as recalled.
        """
        return cls(aggregate="max")

    def prepare(
        self,
        network: nn.Module,
        device: torch.device | None = None,
        companions: Companions | None = None,
    ) -> LeanFickle:
        """The copy to work on; make it once where many images follow.

        Raises:
            ValueError: a classifier whose head has no windows to select from.
        """
        del companions  # looks at nothing but the image
        if isinstance(network, LeanFickle):
            return network
        try:
            check_head(network.classifier if isinstance(network, LeanNetwork) else network, 0)
        except ValueError as error:
            raise ValueError(f"{error}; train one with train-ficklenet") from None
        return LeanFickle(placed(network, device), self.precision)

    def localize(self, network: LeanNetwork, batch: ViewBatch) -> list[ScaleResult]:
        """All passes at each scale, image by image, view by view."""
        assert isinstance(network, LeanFickle)  # prepare made it
        return [self._at_scale(network, batch, scale) for scale in self.scales]

    def _at_scale(self, network: LeanFickle, batch: ViewBatch, scale: float) -> ScaleResult:
        views = batch.views(scale, self.flip)
        maps, scores = [], []
        with torch.no_grad():
            features = network.features(views.flatten(0, 1)).unflatten(0, views.shape[:2])
            for own, classes, image_id in zip(features, batch.classes, batch.ids, strict=True):
                if not classes:
                    continue
                kernel = network.kernel[list(classes)]
                places = [place_maps(view, kernel) for view in own]
                found = [
                    self._aggregated(part, own.shape[2:], seeded(self.seed, f"{image_id}/{key}"))
                    for part, key in zip(places, (f"{scale}", f"{scale}/mirrored"), strict=False)
                ]
                maps.append(merge_views(torch.stack(found, 1)))
                scores.append(self._mean_logits(places[0]))
        logits = torch.cat(scores)
        return ScaleResult(torch.cat(maps), logits, torch.zeros_like(logits))

    def _mean_logits(self, places: Float[Tensor, "v o k"]) -> Float[Tensor, " k"]:
        """The logits' mean over all selections: they are linear in the selection."""
        sums = places.sum(0)  # (o, k)
        centre = sums[len(sums) // 2]
        return centre + (1 - self.drop_rate) * (sums.sum(0) - centre)

    def _aggregated(
        self, places: Float[Tensor, "v o k"], size_hw: torch.Size, generator: torch.Generator
    ) -> Float[Tensor, "k h w"]:
        """One map a class from the maps of all passes."""
        largest = places.new_zeros(len(places), places.shape[2])  # (v, k)
        total = torch.zeros_like(largest)
        for maps in self._passes(places, generator):
            shares = _over_maximum(maps)
            largest = torch.maximum(largest, shares.amax(1))
            for one in shares.unbind(1):  # pass by pass, so that blocks do not show in the rounding
                total += one
        mean = total / self.num_passes
        if self.aggregate == "threshold":
            found = (largest > self.threshold) * 0.5 + 0.5 * _over_maximum(mean[:, None])[:, 0]
        else:
            found = largest if self.aggregate == "max" else mean
        return found.t().unflatten(1, size_hw)

    def _passes(
        self, places: Float[Tensor, "v o k"], generator: torch.Generator
    ) -> Iterator[Float[Tensor, "v t k"]]:
        """The maps of all passes, some passes at a time."""
        cells, units = places.shape[:2]
        block = max(BLOCK_NUMBERS // (cells * units), 1)
        for start in range(0, self.num_passes, block):
            number = min(block, self.num_passes - start)
            kept = draw_selections(number, cells, units, self.drop_rate, generator)
            kept = kept.to(places.device).transpose(0, 1)  # (v, t, o)
            yield (kept.to(places.dtype) @ places).relu()


def place_maps(
    features: Float[Tensor, "d h w"], kernel: Float[Tensor, "k d s s"]
) -> Float[Tensor, "v o k"]:
    """Y / (hw) by cell, place of a window and class; 0 where the window lies outside the map."""
    number, side = features[0].numel(), kernel.shape[-1]
    cells = features.flatten(1).t() / number  # (v, d)
    weights = kernel.flatten(2).permute(1, 2, 0)  # (d, o, k)
    places = (cells @ weights.flatten(1)).unflatten(1, weights.shape[1:])  # (v, o, k)
    return places * inside(side, *features.shape[1:]).to(places.device)[..., None]


def draw_selections(
    number: int, cells: int, units: int, drop_rate: float, generator: torch.Generator
) -> Bool[Tensor, "t v o"]:
    """m[v - o, o] of some passes, one after the other off the generator's stream.

    Args:
        units: places o of a window; the middle one, its centre, is always kept.
        drop_rate: chance of the others to be left out, rounded to a multiple of 2**-16.
    """
    count = -(-cells * units // 4)
    # each draw of 64 bits is four numbers: a quarter of the time of drawing them one by one
    bits = torch.empty(number, count, dtype=torch.int64)
    bits.random_(-(2**63), None, generator=generator)
    numbers = bits.view(torch.int16)[:, : cells * units].view(number, cells, units)
    dropped = min(round(drop_rate * 2**16), 2**16 - 1)
    kept = numbers >= dropped - 2**15
    kept[..., units // 2] = True
    return kept


def inside(side: int, height: int, width: int) -> Bool[Tensor, "v o"]:
    """Whether the window that has cell v at its place o lies on the map."""
    offsets = torch.arange(side) - side // 2
    rows, columns = (torch.arange(size)[:, None] - offsets for size in (height, width))
    in_rows, in_columns = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    return (in_rows[:, None, :, None] & in_columns[None, :, None, :]).reshape(height * width, -1)


def _over_maximum(maps: Float[Tensor, "v t k"]) -> Float[Tensor, "v t k"]:
    """Each map over its largest value; 0 where no cell is positive."""
    # a pass's map carries 1/(hw), beside which the EPSILON of whole images would be large
    return maps / maps.amax(0).clamp_min(torch.finfo(maps.dtype).tiny)
