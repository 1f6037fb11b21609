"""The segmentation networks DeepLab-v2 and DeepLab-v3 on any trunk.

Chen et al., *DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution,
and Fully Connected CRFs*, TPAMI 2018 (v2), and *Rethinking Atrous Convolution for Semantic Image
Segmentation*, 2017 (v3). DeepLab-v2 follows the PyTorch code that the segmenters of AdvCAM, RIB and
W-OoD were trained with, kazuto1011/deeplab-pytorch (METHODS 10).
"""

from collections.abc import Sequence
from itertools import product
from math import floor
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from rayseg.nets.backbones import build_trunk, feature_channels, freeze_statistics
from rayseg.nets.branched_head import BranchedHead
from rayseg.nets.stored import check_trained_on
from rayseg.nets.weights import load_into, read_facts, read_tensors

HEADS = ("deeplab_v2", "deeplab_v2_fc", "deeplab_v3")


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab-v2: the sum of 3x3 convolutions of several rates.

    On a CPU, whose libraries are slow at wide dilation, all taps of all rates are one matrix
    product over channels, whose results are then added where each tap points; see
    tests/benchmarks/bench_segmenter_training.py.

    Args:
        rates: dilation of each convolution, in cells.
    """

    def __init__(self, channels: int, num_labels: int, rates: Sequence[int] = (6, 12, 18, 24)):
        super().__init__()
        branches = [nn.Conv2d(channels, num_labels, 3, padding=r, dilation=r) for r in rates]
        for branch in branches:
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]
        self.branches = nn.ModuleList(branches)
        self.rates = tuple(rates)

    def forward(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n l h w"]:
        """Logits of features, on the same grid."""
        if features.device.type == "cpu":
            return self._by_product(features)
        first, *others = (branch(features) for branch in self.branches)
        return sum(others, first)

    def _by_product(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n l h w"]:
        weights = torch.stack([branch.weight for branch in self.branches])  # (r, l, d, 3, 3)
        matrix = weights.permute(0, 3, 4, 1, 2).flatten(0, 3)  # (r * 3 * 3 * l, d)
        cells = features.permute(0, 2, 3, 1)
        taps = functional.linear(cells, matrix)
        taps = taps.unflatten(3, (len(weights), 3, 3, -1))  # (n, h, w, r, 3, 3, l)
        bias = torch.stack([branch.bias for branch in self.branches]).sum(0)
        # in float32 or more, since 36 sums in bf16 would each be rounded
        wide = torch.promote_types(taps.dtype, torch.float32)
        total = bias.expand(*cells.shape[:3], -1).to(wide, copy=True)  # (n, h, w, l)
        for place, rate in enumerate(self.rates):
            for row, column in product(range(3), range(3)):
                to_y, from_y = _shifted((row - 1) * rate, cells.shape[1])
                to_x, from_x = _shifted((column - 1) * rate, cells.shape[2])
                total[:, to_y, to_x] += taps[:, from_y, from_x, place, row, column]
        return total.permute(0, 3, 1, 2)


def _shifted(offset: int, side: int) -> tuple[slice, slice]:
    """Where along an axis a tap's results are added, and which of them are."""
    kept = max(side - abs(offset), 0)
    start = max(-offset, 0)
    return slice(start, start + kept), slice(start + offset, start + offset + kept)


class Segmenter(nn.Module):
    """A dilated trunk and the head of a DeepLab, run at one or several scales of its input.

    Attributes:
        trunk: images (n, 3, h, w), normalised with ImageNet's mean and deviation, to features
            (n, d, ceil(h / stride), ceil(w / stride)).
        head: features to logits (n, l, ...) of the same grid; an `ASPP` for ``deeplab_v2``, a
            `BranchedHead` for ``deeplab_v2_fc``, torchvision's ``DeepLabHead`` without its
            auxiliary branch for ``deeplab_v3``.
        network: one of HEADS.
        trunk_name: one of TRUNKS.
        num_labels: l; background is label 0.
        stride: image pixels a feature cell.
        input_scales: factors on the image's height and width; the first is 1.
        frozen_statistics: the trunk's batch normalisation keeps its stored statistics also in
            training. That of the v3 head always trains, so training it needs two images or more.

    The rates are those of the authors: 6, 12, 18, 24 cells for v2 whatever the stride; 12, 24, 36
    for v3 at stride 8, half as many at each doubling of it.
    """

    def __init__(
        self,
        network: str,
        trunk: str,
        num_labels: int,
        stride: int = 8,
        weights: str = "none",
        input_scales: tuple[float, ...] = (1.0, 0.75, 0.5),
        frozen_statistics: bool = True,
        head_width: int = 1024,
    ):
        super().__init__()
        if network not in HEADS:
            raise ValueError(f"network must be one of {', '.join(HEADS)}, got {network!r}")
        if input_scales[:1] != (1.0,) or min(input_scales) <= 0:
            raise ValueError(f"input_scales must be positive and begin with 1, got {input_scales}")
        self.network, self.trunk_name, self.stride = network, trunk, stride
        self.num_labels, self.input_scales = num_labels, input_scales
        self.frozen_statistics = frozen_statistics
        self.trunk = build_trunk(trunk, stride, weights, dilated=True)
        channels = feature_channels(self.trunk)
        self.head: nn.Module
        if network == "deeplab_v2":
            self.head = ASPP(channels, num_labels)
        elif network == "deeplab_v2_fc":
            self.head = BranchedHead(channels, num_labels, head_width)
        else:
            self.head = DeepLabHead(channels, num_labels, [k * 96 // stride for k in (1, 2, 3)])

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n l h' w'"]]:
        """Logits of every input scale, each on its own grid, and last their maximum.

        The maximum is taken label by label and cell by cell on the first scale's grid, to which the
        others are resized bilinearly. With one scale its logits are all there is.

        An input scale has floor(scale * side) pixels a side, 1 at least, and its outer edges lie on
        those of the image (``align_corners=False``). deeplab-pytorch asks for ``scale_factor``
        instead, which gave the same in the torch of its day; since torch 1.6 that call samples at
        multiples of 1 / scale, so that up to a pixel on the right and at the bottom is cut off,
        while the logits are still stretched over the whole image.
        """
        each = [self.head(self.trunk(_scaled(images, scale))) for scale in self.input_scales]
        if len(each) == 1:
            return each
        grid_hw = each[0].shape[2:]
        on_grid = [each[0], *(_resized(logits, grid_hw) for logits in each[1:])]
        return [*each, torch.stack(on_grid).max(dim=0).values]

    def logits(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n l h' w'"]:
        """The logits to predict with, on the grid of the image's own size."""
        return self(images)[-1]

    def train(self, mode: bool = True) -> Self:
        """As every module's, but frozen statistics of the trunk stay frozen."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self.trunk)
        return self


def _scaled(images: Float[Tensor, "n 3 h w"], scale: float) -> Float[Tensor, "n 3 y x"]:
    if scale == 1:
        return images
    return _resized(images, [max(floor(scale * side), 1) for side in images.shape[2:]])


def _resized(planes: Float[Tensor, "n a h w"], size_hw: Sequence[int]) -> Float[Tensor, "n a y x"]:
    return functional.interpolate(planes, list(size_hw), mode="bilinear", align_corners=False)


def segmenter_facts(segmenter: Segmenter, classes: Sequence[str]) -> dict[str, object]:
    """What `load_segmenter` needs to know beside the tensors; for `to_safetensors`."""
    if segmenter.num_labels != len(classes) + 1:
        raise ValueError(
            f"a segmenter of {segmenter.num_labels} labels must have "
            f"{segmenter.num_labels - 1} classes beside background, got {len(classes)}"
        )
    return {
        "network": segmenter.network,
        "trunk": segmenter.trunk_name,
        "stride": segmenter.stride,
        "input_scales": list(segmenter.input_scales),
        "classes": list(classes),
        **({"head_width": head.width} if isinstance(head := segmenter.head, BranchedHead) else {}),
    }


def load_segmenter(path: str, classes: Sequence[str] | None = None) -> Segmenter:
    """A segmenter from the safetensors file that training wrote, in eval mode.

    Args:
        path: the file.
        classes: names that it must have been trained on, without background, in this order; None
            accepts any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a segmenter of ours, or of other classes.
    """
    facts = read_facts(path)
    needed = ("network", "trunk", "stride", "input_scales", "classes")
    if not set(needed) <= facts.keys():
        raise ValueError(
            f"weights file {path} must be a segmenter's and say its {', '.join(needed)}, "
            f"got {', '.join(sorted(facts))}"
        )
    trained: list[str] = facts["classes"]  # type: ignore[assignment]
    check_trained_on(path, trained, classes)
    try:
        segmenter = Segmenter(
            str(facts["network"]),
            str(facts["trunk"]),
            len(trained) + 1,
            int(str(facts["stride"])),
            input_scales=tuple(facts["input_scales"]),  # type: ignore[arg-type]
            head_width=int(str(facts.get("head_width", 1024))),
        )
    except (ValueError, TypeError) as error:  # a network that this version does not know
        raise ValueError(f"weights file {path}: {error}") from None
    load_into(segmenter, read_tensors(path), path)
    return segmenter.eval()
