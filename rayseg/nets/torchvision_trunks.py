"""Classifiers of torchvision as trunks."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torchvision import models

from rayseg.nets.trunks import TrunkKind, unstride


def _cut_mobilenet(network: Any, stride: int) -> list[nn.Module]:
    layers = network.features
    for first, reached in ((14, 32), (7, 16)):  # the blocks whose depthwise convolution strides
        if stride < reached:
            unstride(layers[first])
    return [layers[0:2], layers[2:4], layers[4:7], layers[7:14], layers[14:]]


def _cut_resnet(network: Any, stride: int) -> list[nn.Module]:
    for stage, reached in ((network.layer4, 32), (network.layer3, 16)):
        if stride < reached:
            unstride(stage[0])
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    return [stem, network.layer1, network.layer2, network.layer3, network.layer4]


def _cut_vgg(network: Any, stride: int) -> list[nn.Module]:
    layers = list(network.features)
    pools = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    dropped = {32: 0, 16: 1, 8: 2}[stride]
    starts = [0, *(i + 1 for i in pools)]
    for pool in pools:
        layers[pool].ceil_mode = True  # else features end before the image does
    blocks = [layers[a:b] for a, b in zip(starts, [*starts[1:-1], len(layers)], strict=False)]
    for block in blocks[len(blocks) - dropped :]:
        block.pop()
    return [nn.Sequential(*block) for block in blocks]


def _entry(
    name: str, cut: Callable[[Any, int], list[nn.Module]], **known: Any
) -> dict[str, TrunkKind]:
    def publish(weights: str | None) -> nn.Module:
        return models.get_model(name, weights=weights)

    def address(weights: str) -> str:
        return str(models.get_model_weights(name)[weights].url)

    sets = tuple(models.get_model_weights(name).__members__)
    return {name: TrunkKind(publish, cut, sets, address, ("fc.", "classifier."), **known)}


TORCHVISION: dict[str, TrunkKind] = {
    **_entry("mobilenet_v2", _cut_mobilenet, has_levels=True),
    **_entry("resnet18", _cut_resnet, has_levels=True),
    **_entry("resnet34", _cut_resnet, has_levels=True),
    **_entry("resnet50", _cut_resnet, has_levels=True),
    **_entry("resnet101", _cut_resnet, has_levels=True),
    **_entry("vgg16", _cut_vgg, reached=(8, 16)),
}
