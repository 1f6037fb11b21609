"""Trunks of published classifiers at a chosen stride, cut into a stem and four stages."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models

from rayseg.nets.weights import find_facts, load_into, read_tensors
from rayseg.nets.wide_resnet38 import WideResNet38

N = TypeVar("N", bound=nn.Module)
TRUNKS = (
    "mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16", "wide_resnet38",
)  # fmt: skip
STRIDES = (8, 16, 32)
STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")

# the stride at which the convolutions of stage3 and stage4 end in the networks as published
REACHED = {"mobilenet": (16, 32), "resnet": (16, 32), "vgg": (8, 16), "wide_resnet": (8, 8)}


def build_trunk(
    name: str, stride: int = 16, weights: str = "none", dilated: bool = False
) -> nn.Sequential:
    """A trunk that maps images (n, 3, h, w) to features (n, d, ceil(h / stride), ceil(w / stride)).

    Its children are named as STAGES. Where the stride is smaller than the network's own 32, the
    last stages lose their stride and, unless dilated, gain no dilation, as in IRN's ResNet-50
    (METHODS 1.2). Names and shapes of the parameters are the same whatever stride and dilation.

    Dilated, a stage computes at every second (fourth) cell what it would compute had its input been
    thinned to these cells: all its 3x3 convolutions are dilated by 2 after one dropped stride, by 4
    after two. That holds for the first block too, as in DeepLab's Caffe networks, whose stride sits
    in the 1x1 convolution ahead of it. torchvision's ``replace_stride_with_dilation`` gives the
    first block the dilation of the stage before instead, since its stride sits in the 3x3 itself.

    Args:
        name: one of TRUNKS.
        stride: one of STRIDES; wide_resnet38 only has 8, where it is always dilated.
        weights: ``none`` for random ones, the name of a torchvision weight set such as
            ``IMAGENET1K_V1``, or the path of a ``.pth`` or ``.safetensors`` file with torchvision's
            key names (wide_resnet38: PSA's), or of a network with this trunk that rayseg trained.
        dilated: as DeepLab does it; see above.

    Raises:
        ValueError: an unknown name or stride, or weights of another network.
        FileNotFoundError: there is no weights file of that path.
    """
    if name not in TRUNKS:
        raise ValueError(f"trunk must be one of {', '.join(TRUNKS)}, got {name!r}")
    if stride not in STRIDES:
        raise ValueError(f"stride must be one of {STRIDES}, got {stride}")
    if name == "wide_resnet38" and stride != 8:
        raise ValueError(f"trunk wide_resnet38 has stride 8, got {stride}")
    trained = _trained_trunk(name, weights)
    network = _published(name, weights if trained is None else "none")
    family = name.rstrip("0123456789_v")
    trunk = nn.Sequential(OrderedDict(zip(STAGES, CUTS[family](network, stride), strict=True)))
    if trained is not None:
        load_into(trunk, trained, weights)
    if dilated:
        for stage, reached in zip(STAGES[-2:], REACHED[family], strict=True):
            if reached > stride:
                _dilate(trunk.get_submodule(stage), reached // stride)
    return trunk


def feature_channels(trunk: nn.Sequential) -> int:
    """Number of channels d that a trunk's features have."""
    convolutions = [module for module in trunk.modules() if isinstance(module, nn.Conv2d)]
    return convolutions[-1].out_channels


def _trained_trunk(name: str, weights: str) -> dict[str, Tensor] | None:
    """The trunk's tensors out of a file that rayseg wrote; None where it is no such file."""
    facts = find_facts(weights) if weights.endswith(".safetensors") else None
    if facts is None:
        return None
    if facts.get("trunk") != name:
        raise ValueError(f"{weights} was trained with trunk {facts.get('trunk')}, not with {name}")
    return {
        key.removeprefix("trunk."): value
        for key, value in read_tensors(weights).items()
        if key.startswith("trunk.")
    }


def _published(name: str, weights: str) -> nn.Module:
    wide = name == "wide_resnet38"
    is_file = Path(weights).suffix in (".pth", ".pt", ".safetensors")
    if is_file or weights == "none":
        network = WideResNet38() if wide else models.get_model(name, weights=None)
        if is_file:
            heads = WideResNet38.HEADS if wide else ("fc.", "classifier.")
            load_into(network, read_tensors(weights), weights, optional=heads)
        return network
    known = [] if wide else list(models.get_model_weights(name).__members__)
    if weights not in known:
        raise ValueError(
            f"weights must be {', '.join(['none', *known])} or a .pth or .safetensors path "
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


def _cut_wide_resnet(network: Any, stride: int) -> list[nn.Module]:
    ends = ("conv1a", "b2_2", "b3_2", "b4_5", "relu")
    parts = list(network.named_children())
    places = [0, *(1 + [name for name, _ in parts].index(end) for end in ends)]
    return [nn.Sequential(OrderedDict(parts[a:b])) for a, b in pairwise(places)]


CUTS = {
    "mobilenet": _cut_mobilenet,
    "resnet": _cut_resnet,
    "vgg": _cut_vgg,
    "wide_resnet": _cut_wide_resnet,
}


def _unstride(block: nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)


def _dilate(stage: nn.Module, factor: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (factor, factor)


def freeze_statistics(network: nn.Module) -> None:
    """Keeps batch normalisation on its stored mean and variance; scale and shift still train."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


class FloatDepthwise(nn.Conv2d):
    """A depthwise convolution that stays in float32 under autocast."""

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d y x"]:
        """The convolution of the inputs, whatever their type."""
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def keep_depthwise_float(network: nn.Module) -> None:
    """Makes the network's depthwise convolutions `FloatDepthwise`, parameters and names unchanged.

    On CPUs the bf16 gradient of a dilated or strided one takes two to three times as long as that
    in float32, which would make training in bf16 the slower choice.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == module.in_channels > 1:
            module.__class__ = FloatDepthwise


def release_depthwise(network: nn.Module) -> None:
    """Makes them plain convolutions again, of whatever precision their weights are."""
    for module in network.modules():
        if isinstance(module, FloatDepthwise):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]


def freeze_normalisation(network: N) -> N:
    """Stops the training of batch normalisation's scale and shift, and returns the network.

    DeepLab trains convolutions only (METHODS 10).
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return network


def freeze_stages(trunk: nn.Sequential, through: str) -> None:
    """Stops the training of the stages up to and including that one; ``none`` freezes nothing."""
    if through == "none":
        return
    if through not in STAGES:
        raise ValueError(f"stage must be one of none, {', '.join(STAGES)}, got {through!r}")
    for name in STAGES[: STAGES.index(through) + 1]:
        getattr(trunk, name).requires_grad_(False)
