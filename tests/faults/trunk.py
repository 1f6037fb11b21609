"""A trunk of a few kilobytes in the place of ResNet-18, so that commands take no time."""

from torch import nn

from rayseg.nets.backbones import TRUNKS
from rayseg.nets.trunks import TrunkKind, unstride

WIDTH = 8


RESNET18 = TRUNKS["resnet18"]


def take_the_place_of_resnet18() -> None:
    """In this process and the children that it forks."""
    TRUNKS["resnet18"] = TrunkKind(_publish, _cut, has_levels=True)


def give_it_back() -> None:
    """ResNet-18 is ResNet-18 again, for what is shared with other programs."""
    TRUNKS["resnet18"] = RESNET18


def _publish(weights: str | None) -> nn.Module:
    del weights
    return nn.ModuleList([_block(3, 4), *(_block(WIDTH, 2 * (n > 0) or 1) for n in range(4))])


def _block(channels: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, WIDTH, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(WIDTH), nn.ReLU())


def _cut(network: nn.ModuleList, stride: int) -> list[nn.Module]:
    for stage, reached in ((network[4], 32), (network[3], 16)):
        if stride < reached:
            unstride(stage)
    return list(network)
