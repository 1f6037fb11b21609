"""SEAM: class activation maps refined by how alike pixels are.

Wang et al., *Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation*, CVPR 2020, as the authors' infer_SEAM.py makes seeds (METHODS 2): maps after the
pixel correlation module (`nets/seam.py`), at four sizes and mirrored, each brought to the size of
what was looked at corners over corners and from there to the image's, added, and stretched from
their minimum and maximum to [0, 1].

In the authors' module all classes compete for a cell, each divided by its own maximum, so that one
which the image does not have can take most cells however small its maximum is. After their long
training its maps are negative; after a short one they are not, and `compete` present leaves the
cells to the classes that the image has. A class that is nowhere the strongest, or whose map is
nowhere positive, has a map of zeros.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from rayseg.attribution.classes.base import ScaleByScale, ScaleResult
from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.lean import LeanNetwork, placed
from rayseg.attribution.classes.views import merge_views
from rayseg.nets.inputs import Precision
from rayseg.nets.seam import (
    EPSILON,
    Levels,
    PixelCorrelation,
    ReadTrunk,
    SeamClassifier,
    resize_corners,
    strongest_planes,
)
from rayseg.nets.suited import fold_normalisation


class LeanSeam(LeanNetwork):
    """The lean copy of a SEAM; what follows the trunk is computed in float32."""

    serves_all: ClassVar[bool] = False

    def __init__(self, network: SeamClassifier, precision: Precision = "auto"):
        super().__init__(network, precision)
        del self.classifier.correlation_head  # which has been rounded
        own = copy.deepcopy(network.correlation_head).eval().requires_grad_(False)
        self.correlation_head: PixelCorrelation = own

    def _fold(self, lean: SeamClassifier) -> None:
        lean.trunk = fold_normalisation(ReadTrunk(lean.trunk, lean.reads))  # type: ignore[assignment]
        lean.reads = call

    def levels(self, images: Float[Tensor, "n 3 h w"]) -> Levels:
        """Two earlier levels of the trunk and the features, in float32."""
        images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        low, middle, features = self.classifier.levels(images)
        return low.float(), middle.float(), features.float()

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d h' w'"]:
        """Float32 features of normalised images."""
        return self.levels(images)[2]

    def look(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n c h' w'"], Levels]:
        """w_c . f for every class, and what else PCM needs of normalised images."""
        levels = self.levels(images)
        return functional.conv2d(levels[2], self.weight[:, :, None, None]), levels

    @torch.no_grad()
    def refine(
        self,
        maps: Float[Tensor, "n c h' w'"],
        classes: Int[Tensor, " k"] | Int[Tensor, "n 1"],
        images: Float[Tensor, "n 3 h w"],
        levels: Levels,
    ) -> Float[Tensor, "n k h' w'"]:
        """Maps of these classes, of all images or one of each, after PCM; in [0, 1]."""
        planes = strongest_planes(maps)[:, 1:]
        rows = torch.arange(len(maps), device=maps.device)[:, None]
        return self.correlation_head(planes[rows, classes], images, *levels[:2])


def call(trunk: Any, images: Tensor) -> Levels:
    """What a trunk gives that gives its levels itself."""
    return trunk(images)


def present_classes(
    images: Int[Tensor, " i"], owner: Int[Tensor, " m"], target: Int[Tensor, " m"], num_classes: int
) -> Bool[Tensor, "i c 1 1"]:
    """Whether each image, given by its number, has each class.

    Args:
        owner: number of the image of each pair of image and class.
        target: class of each pair.
    """
    own = (images[:, None] == owner).float()
    return (own @ functional.one_hot(target, num_classes).float() > 0)[:, :, None, None]


class OnSEAM:
    """What methods share that look at maps after PCM."""

    scales: tuple[float, ...]
    precision: Precision

    network_kind: ClassVar[str] = "seam"
    # the authors' threshold; for sure background they have none, and this is IRN's
    own_thresholds: ClassVar[tuple[float, float] | None] = (0.26, 0.05)

    def prepare(
        self,
        network: nn.Module,
        device: torch.device | None = None,
        companions: Companions | None = None,
    ) -> LeanSeam:
        """The copy to work on; make it once where many images follow.

        Raises:
            ValueError: a network that is no SEAM.
        """
        del companions  # looks at nothing but the image
        if isinstance(network, LeanSeam):
            return network
        if not isinstance(network, SeamClassifier):
            raise ValueError(
                f"network must be a SEAM, got a {type(network).__name__}; train one with train-seam"
            )
        return LeanSeam(placed(network, device), self.precision)  # type: ignore[arg-type]

    def laid(
        self,
        maps: Sequence[Float[Tensor, "m h' w'"]],
        size_hw: tuple[int, int],
        stride: int,
        map_stride: int,
    ) -> list[Float[Tensor, "m h w"]]:
        """The maps of each scale on the image's grid, of which cells that are larger are means."""
        del stride  # corners lie over corners, whatever the cells' size
        return [
            functional.avg_pool2d(self._enlarged(one, scale, size_hw), map_stride, ceil_mode=True)
            for one, scale in zip(maps, self.scales, strict=True)
        ]

    def _enlarged(
        self, maps: Float[Tensor, "m h' w'"], scale: float, size_hw: tuple[int, int]
    ) -> Float[Tensor, "m h w"]:
        height, width = (max(round(side * scale), 1) for side in size_hw)
        looked_at = resize_corners(maps[None], (height, width))
        return functional.interpolate(looked_at, size_hw, mode="bilinear", align_corners=False)[0]

    def normalised(self, maps: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
        """Each map from its own minimum and maximum to [0, 1]."""
        lowest, highest = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - lowest - EPSILON).relu() / (highest - lowest + EPSILON)


@dataclass(frozen=True)
class SEAM(OnSEAM, ScaleByScale):
    """Class activation maps after the pixel correlation module of a network of its own.

    Attributes:
        compete: Classes that take cells from each other in the module: all of the network's, as in
            the authors' code, or those alone that the image has (present), which is ours.
    """

    compete: Literal["all", "present"] = "all"

    @classmethod
    def as_written(cls) -> Self:
        """The same: the dissertation takes SEAM as it is."""
        return cls()

    def locate(
        self,
        network: LeanNetwork,
        views: Float[Tensor, "n v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
        scale: float,
    ) -> ScaleResult:
        """One forward pass for all classes of an image."""
        del scale  # every scale is treated alike
        assert isinstance(network, LeanSeam)  # prepare made it
        images = views.flatten(0, 1)
        asked, place = target.unique(return_inverse=True)
        with torch.no_grad():
            maps, levels = network.look(images)
        competing = maps
        if self.compete == "present":
            numbers = torch.arange(len(views), device=views.device)
            present = present_classes(numbers, owner, target, network.num_classes)
            competing = maps * present.repeat_interleave(views.shape[1], 0)
        found = network.refine(competing, asked, images, levels).unflatten(0, views.shape[:2])
        scores = maps.unflatten(0, views.shape[:2])[owner, 0, target].mean((1, 2))
        return ScaleResult(merge_views(found[owner, :, place]), scores, torch.zeros_like(scores))
