"""Features from inside a trunk, brought to one grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

_SIDE = 64
"""Of the image by which a trunk is measured; every stride divides it."""


@dataclass(frozen=True)
class Tap:
    """A place in a trunk where features are taken.

    Attributes:
        channels: of the features.
        stride: image pixels a cell.
    """

    channels: int
    stride: int


def stage_outputs(
    trunk: nn.Sequential, images: Float[Tensor, "n 3 h w"]
) -> list[Float[Tensor, "n d y x"]]:
    """What each stage of a trunk gives, the stem first."""
    outputs = []
    for stage in trunk:
        images = stage(images)
        outputs.append(images)
    return outputs


@torch.no_grad()
def measure(
    trunk: nn.Sequential, reads: Callable[[nn.Sequential, Tensor], Sequence[Tensor]] = stage_outputs
) -> list[Tap]:
    """Channels and strides of a trunk's stages, or of what else is read off it.

    Args:
        trunk: left as it was; its statistics do not change.
        reads: the trunk and images to features.
    """
    training = {module: module.training for module in trunk.modules()}
    trunk.eval()
    image = torch.zeros(1, 3, _SIDE, _SIDE, device=next(trunk.parameters()).device)
    try:
        found = reads(trunk, image)
    finally:
        for module, mode in training.items():
            module.training = mode
    return [Tap(one.shape[1], _SIDE // one.shape[2]) for one in found]


def shrink(features: Float[Tensor, "n d h w"], stride: int, cell: int) -> Float[Tensor, "n d y x"]:
    """Features on the grid of a larger cell, by averages; others stay as they are.

    Args:
        stride: image pixels of a cell of the features.
        cell: image pixels of a cell that is asked for.
    """
    if stride >= cell:
        return features
    return functional.avg_pool2d(features, cell // stride, ceil_mode=True, count_include_pad=False)


def grow(
    features: Float[Tensor, "n d h w"], stride: int, cell: int, size_hw: Sequence[int]
) -> Float[Tensor, "n d y x"]:
    """Features on the grid of a smaller cell, bilinear and cut to a size; others stay.

    Args:
        stride: image pixels of a cell of the features.
        cell: image pixels of a cell that is asked for.
        size_hw: of the grid that is asked for.
    """
    if stride > cell:
        features = functional.interpolate(
            features, scale_factor=stride // cell, mode="bilinear", align_corners=False
        )
    return features[..., : size_hw[0], : size_hw[1]]


def grid_of(size_hw: Sequence[int], cell: int) -> tuple[int, int]:
    """Size of the grid of cells that covers an image."""
    height, width = size_hw
    return -(-height // cell), -(-width // cell)
