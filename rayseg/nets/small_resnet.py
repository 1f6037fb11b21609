"""A small residual network that learns from scratch in a minute on two cores; it has no weights.

A stem and four residual blocks of 24 to 128 channels, 0.7 M parameters, for small pictures with
nothing to begin from, such as the drawn scenes. Its features lie at stride 8.
"""

from torch import nn
from torchvision.models.resnet import BasicBlock

from rayseg.nets.trunks import TrunkKind

_WIDTHS = (24, 32, 64, 96, 128)
_BLOCK_STRIDES = (2, 1, 2, 1)


class SmallResNet(nn.Sequential):
    """The stem, at stride 2, and four blocks, the first at stride 4, the last two at 8."""

    def __init__(self) -> None:
        stem = nn.Sequential(
            nn.Conv2d(3, _WIDTHS[0], 3, 2, 1, bias=False), nn.BatchNorm2d(_WIDTHS[0]), nn.ReLU()
        )
        blocks = map(_block, _WIDTHS[:-1], _WIDTHS[1:], _BLOCK_STRIDES)
        super().__init__(stem, *blocks)


def _block(channels: int, out: int, stride: int) -> BasicBlock:
    across = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return BasicBlock(channels, out, stride, across)


def _cut(network: nn.Sequential, stride: int) -> list[nn.Module]:
    del stride  # its own is the only one
    return list(network)


SMALL_RESNET = {
    "small_resnet": TrunkKind(lambda weights: SmallResNet(), _cut, strides=(8,), reached=(8, 8))
}
