"""Feature pyramids on the trunks of classifiers, as torchvision's detectors take a backbone.

Source: Lin et al., *Feature Pyramid Networks for Object Detection*, CVPR 2017. The public code of
BBAM enlarges the coarser levels bilinearly (METHODS 9); torchvision's take the nearest cell.
"""

from collections import OrderedDict
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from rayseg.nets.backbones import (
    PYRAMID_TRUNKS,
    build_trunk,
    feature_channels,
    freeze_normalisation,
    freeze_stages,
    freeze_statistics,
)
from rayseg.nets.detectors.design import UNTRAINED, Learning, PyramidDesign, Upsample
from rayseg.nets.suited import fold_normalisation

STAGES = ("stage1", "stage2", "stage3", "stage4")
"""Stages of a trunk that levels are made of; they end at strides 4, 8, 16 and 32."""


class Pyramid(nn.Module):
    """Images to features of several strides, all of as many channels.

    Attributes:
        trunk: stem and four stages.
        inner: 1x1 convolutions, one a level, the finest first.
        layer: 3x3 convolutions that make the levels.
        extra: makes coarser levels of the last one.
        strides: image pixels a cell of each level, extra ones included.
        out_channels: of each level.
        upsample: how a coarser level is enlarged to be added to the next finer one.
    """

    def __init__(
        self,
        trunk: nn.Sequential,
        extra: Literal["pool", "p6p7"],
        upsample: Upsample,
        channels: int,
        first_level: int,
        frozen_statistics: bool,
    ):
        super().__init__()
        stages = STAGES[first_level - 2 :]
        self.trunk, self.used, self.frozen_statistics = trunk, stages, frozen_statistics
        widths = [_channels(trunk, name) for name in stages]
        self.inner = nn.ModuleList(_convolution(width, channels, 1) for width in widths)
        self.layer = nn.ModuleList(_convolution(channels, channels, 3) for _ in widths)
        self.extra = LastLevelMaxPool() if extra == "pool" else LastLevelP6P7(channels, channels)
        number = len(widths) + (1 if extra == "pool" else 2)
        self.strides = tuple(2 ** (first_level + level) for level in range(number))
        self.out_channels, self.upsample = channels, upsample
        for module in (*self.inner.modules(), *self.layer.modules()):
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> Self:
        """As ever, but frozen statistics stay frozen."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self.trunk)
        return self

    def stages(self, images: Float[Tensor, "n 3 y x"]) -> list[Float[Tensor, "n d y' x'"]]:
        """What the trunk's stages give that levels are made of, the finest first."""
        features, found = images, []
        for name, stage in self.trunk.named_children():
            features = stage(features)
            if name in self.used:
                found.append(features)
        return found

    def enlarged(
        self, coarse: Float[Tensor, "n d y x"], like: Float[Tensor, "n d y' x'"]
    ) -> Float[Tensor, "n d y' x'"]:
        """A level at the size of the next finer one."""
        size = like.shape[-2:]
        if self.upsample == "nearest":
            return functional.interpolate(coarse, size)
        return functional.interpolate(coarse, size, mode="bilinear", align_corners=False)

    def forward(self, images: Float[Tensor, "n 3 y x"]) -> OrderedDict[str, Tensor]:
        """Levels named "0", "1", ... from the finest, then the extra ones."""
        stages = self.stages(images)
        last = self.inner[-1](stages[-1])
        levels = [self.layer[-1](last)]
        for place in reversed(range(len(stages) - 1)):
            lateral = self.inner[place](stages[place])
            last = lateral + self.enlarged(last, lateral)
            levels.insert(0, self.layer[place](last))
        names = [str(place) for place in range(len(levels))]
        levels, names = self.extra(levels, [stages[-1]], names)
        return OrderedDict(zip(names, levels, strict=True))

    def some(
        self, images: Float[Tensor, "n 3 y x"], owner: Int[Tensor, " m"], level: Int[Tensor, " m"]
    ) -> dict[int, tuple[Int[Tensor, " k"], Float[Tensor, "k d y' x'"]]]:
        """Only the levels that are asked for, each of only the images that ask for it.

        A level is made of the coarser ones, so that an image has its own down to the finest that it
        is asked for.

        Args:
            level: the index of the level that it asks for; none of the extra ones.

        Returns:
            Indices of images, ascending, and their features, by the index of the level.
        """
        stages, number = self.stages(images), len(self.layer)
        finest = torch.full((len(images),), number, device=images.device)
        finest = finest.scatter_reduce(0, owner, level, "amin")
        found = {}
        kept = (finest < number).nonzero()[:, 0]
        last = self.inner[-1](_pick(stages[-1], kept))
        for place in reversed(range(number)):
            if place < number - 1:
                needed = (finest[kept] <= place).nonzero()[:, 0]
                if not len(needed):
                    break
                kept = kept[needed]
                lateral = self.inner[place](_pick(stages[place], kept))
                last = lateral + self.enlarged(_pick(last, needed), lateral)
            wanted = owner[level == place].unique()
            if len(wanted):
                own = _pick(last, torch.searchsorted(kept, wanted))
                found[place] = (wanted, self.layer[place](own))
        return found

    def fold(self) -> None:
        """Folds batch normalisation into the trunk's convolutions; for a network in eval mode."""
        for name, stage in list(self.trunk.named_children()):
            setattr(self.trunk, name, fold_normalisation(stage))


def _pick(features: Float[Tensor, "n d y x"], index: Int[Tensor, " k"]) -> Tensor:
    return features if len(index) == len(features) else features[index]


def build_pyramid(
    design: PyramidDesign,
    learning: Learning = UNTRAINED,
    extra: Literal["pool", "p6p7"] = "pool",
    first_level: int = 2,
) -> Pyramid:
    """A pyramid on a classifier's trunk.

    Args:
        extra: pool adds a level by taking every second cell, p6p7 two by convolutions.
        first_level: 2 begins at stride 4, 3 at stride 8.

    Raises:
        ValueError: an unknown trunk or stage, or one without four stages at these strides.
    """
    if design.trunk not in PYRAMID_TRUNKS:
        raise ValueError(
            f"trunk must be one of {', '.join(PYRAMID_TRUNKS)} for a pyramid, got {design.trunk!r}"
        )
    if first_level not in (2, 3, 4):
        raise ValueError(f"first_level must be 2, 3 or 4, got {first_level}")
    built = build_trunk(design.trunk, 32, learning.weights)
    if learning.frozen_statistics:
        freeze_normalisation(built)
    if learning.weights != "none":
        freeze_stages(built, learning.freeze)
    made = Pyramid(
        built, extra, design.upsample, design.channels, first_level, learning.frozen_statistics
    )
    return made.train()


def _channels(trunk: nn.Sequential, name: str) -> int:
    return feature_channels(nn.Sequential(trunk.get_submodule(name)))


def _convolution(width: int, channels: int, kernel: int) -> Conv2dNormActivation:
    return Conv2dNormActivation(
        width, channels, kernel, padding=kernel // 2, norm_layer=None, activation_layer=None
    )
