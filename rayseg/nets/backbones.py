"""Trunks of torchvision's classifiers at a chosen stride, cut into a stem and four stages."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import nn
from torchvision import models

from rayseg.nets.weights import load_into, read_tensors

TRUNKS = ("mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16")
STRIDES = (8, 16, 32)
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")


def build_trunk(name: str, stride: int = 16, weights: str = "none") -> nn.Sequential:
    """A trunk that maps images (n, 3, h, w) to features (n, d, ceil(h / stride), ceil(w / stride)).

    Its children are named as STAGES. Where the stride is smaller than the network's own 32, the
    last stages lose their stride and gain no dilation, as in IRN's ResNet-50 (METHODS 1.2).

    Args:
        name: one of TRUNKS.
        stride: one of STRIDES.
        weights: ``none`` for random ones, the name of a torchvision weight set such as
            ``IMAGENET1K_V1``, or the path of a ``.pth`` or ``.safetensors`` file with torchvision's
            key names.

    Raises:
        ValueError: an unknown name or stride, or weights of another network.
        FileNotFoundError: there is no weights file of that path.
    """
    if name not in TRUNKS:
        raise ValueError(f"trunk must be one of {', '.join(TRUNKS)}, got {name!r}")
    if stride not in STRIDES:
        raise ValueError(f"stride must be one of {STRIDES}, got {stride}")
    network = _torchvision(name, weights)
    family = name.rstrip("0123456789_v")
    cut = {"mobilenet": _cut_mobilenet, "resnet": _cut_resnet, "vgg": _cut_vgg}[family]
    return nn.Sequential(OrderedDict(zip(STAGES, cut(network, stride), strict=True)))


def feature_channels(trunk: nn.Sequential) -> int:
    """Number of channels d that a trunk's features have."""
    convolutions = [module for module in trunk.modules() if isinstance(module, nn.Conv2d)]
    return convolutions[-1].out_channels


def _torchvision(name: str, weights: str) -> nn.Module:
    if weights == "none":
        return models.get_model(name, weights=None)
    if Path(weights).suffix in (".pth", ".pt", ".safetensors"):
        network = models.get_model(name, weights=None)
        load_into(network, read_tensors(weights), weights, optional=("fc.", "classifier."))
        return network
    known = list(models.get_model_weights(name).__members__)
    if weights not in known:
        raise ValueError(
            f"weights must be none, a .pth or .safetensors path, or one of {', '.join(known)} "
            f"for {name}, got {weights!r}"
        )
    return models.get_model(name, weights=weights)


def _cut_mobilenet(network: Any, stride: int) -> list[nn.Module]:
    layers = network.features
    for first, reached in ((14, 32), (7, 16)):  # the blocks whose depthwise convolution strides
        if stride < reached:
            _unstride(layers[first])
    return [layers[0:2], layers[2:4], layers[4:7], layers[7:14], layers[14:]]


def _cut_resnet(network: Any, stride: int) -> list[nn.Module]:
    for stage, reached in ((network.layer4, 32), (network.layer3, 16)):
        if stride < reached:
            _unstride(stage[0])
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


def _unstride(block: nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def freeze_statistics(network: nn.Module) -> None:
    """Keeps batch normalisation on its stored mean and variance; scale and shift still train."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def freeze_stages(trunk: nn.Sequential, through: str) -> None:
    """Stops the training of the stages up to and including that one; ``none`` freezes nothing."""
    if through == "none":
        return
    if through not in STAGES:
        raise ValueError(f"stage must be one of none, {', '.join(STAGES)}, got {through!r}")
    for name in STAGES[: STAGES.index(through) + 1]:
        getattr(trunk, name).requires_grad_(False)
