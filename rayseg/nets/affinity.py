"""AffinityNet: features whose distance says whether two pixels are of one class.

Ahn and Kwak, *Learning Pixel-level Semantic Affinity with Image-level Supervision for Weakly
Supervised Semantic Segmentation*, CVPR 2018 (PSA). Three taps of a trunk are brought to 64, 128 and
256 channels by 1x1 convolutions, joined and mixed once more (METHODS 2). The authors' trunk is
Wide-ResNet-38 at stride 8, tapped before its blocks b5 and b6 and at its end; other trunks are
tapped after their last three stages.
"""

from collections.abc import Sequence
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rayseg.nets.backbones import TRUNKS, build_trunk, freeze_normalisation, freeze_statistics
from rayseg.nets.stored import load_network
from rayseg.nets.taps import grid_of, grow, measure, shrink

FeatureDistance = Literal["mean", "sum"]
"""Of two features: over channels the mean, as PSA's code has it, or the sum, as Eq. 2.5 has it."""
CELL = 8
"""Image pixels of a cell of the features."""
_WIDTHS = (64, 128, 256)


class AffinityNet(nn.Module):
    """Features of images on cells of eight pixels.

    Args:
        trunk: one of TRUNKS.
        stride: image pixels of a cell of the trunk's features.
        weights: of the trunk, as `build_trunk` takes them.
        frozen_statistics: batch normalisation keeps its statistics, and its scale and shift do not
            train.
        distance: by which its features are compared, the mean over channels or their sum.

    Attributes:
        trunk: images (n, 3, h, w), normalised with ImageNet's mean and deviation, to features.
        reads: the trunk and images to two earlier levels and the features.
        tap_head: 1x1 convolutions of the taps.
        head: 1x1 convolution of what they give together.
    """

    def __init__(
        self,
        trunk: str,
        stride: int = 8,
        weights: str = "none",
        frozen_statistics: bool = True,
        distance: FeatureDistance = "mean",
    ):
        super().__init__()
        self.trunk = build_trunk(trunk, stride, weights)
        self.reads = TRUNKS[trunk].levels
        self.taps = measure(self.trunk, self.reads)
        convolutions = [
            nn.Conv2d(tap.channels, width, 1, bias=False)
            for tap, width in zip(self.taps, _WIDTHS, strict=True)
        ]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight)
        self.tap_head = nn.ModuleList(convolutions)
        self.head = nn.Conv2d(sum(_WIDTHS), sum(_WIDTHS), 1, bias=False)
        nn.init.xavier_uniform_(self.head.weight, gain=4)
        self.trunk_name, self.stride, self.distance = trunk, stride, distance
        self.frozen_statistics = frozen_statistics
        if frozen_statistics:
            freeze_normalisation(self.trunk)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 448 y x"]:
        """Features to be compared, after an ELU."""
        size_hw = grid_of(images.shape[2:], CELL)
        inside = self.reads(self.trunk, images)
        mixed = []
        for features, tap, convolution in zip(inside, self.taps, self.tap_head, strict=True):
            small = functional.elu(convolution(shrink(features, tap.stride, CELL)))
            mixed.append(grow(small, tap.stride, CELL, size_hw))
        return functional.elu(self.head(torch.cat(mixed, 1)))

    def train(self, mode: bool = True) -> Self:
        """As every module's, but frozen statistics stay frozen."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self)
        return self


def affinity_facts(network: AffinityNet, classes: Sequence[str]) -> dict[str, object]:
    """What `load_affinity` needs to know beside the tensors; for `to_safetensors`."""
    return {
        "network": "affinity",
        "trunk": network.trunk_name,
        "stride": network.stride,
        "distance": network.distance,
        "classes": list(classes),
    }


def load_affinity(path: str, classes: Sequence[str] | None = None) -> AffinityNet:
    """An AffinityNet from the file that training wrote; see `load_network`."""
    return load_network(
        path, "affinity", classes,
        lambda facts: AffinityNet(
            facts["trunk"], facts["stride"], distance=facts.get("distance", "mean")
        ),
    )  # fmt: skip
