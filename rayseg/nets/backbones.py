"""Trunks of published classifiers at a chosen stride, cut into a stem and four stages."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rayseg.nets.small_resnet import SMALL_RESNET
from rayseg.nets.torchvision_trunks import TORCHVISION
from rayseg.nets.trunks import STAGES, TrunkKind
from rayseg.nets.weights import find_facts, load_into, read_tensors
from rayseg.nets.wide_resnet38 import WIDE_RESNET38

N = TypeVar("N", bound=nn.Module)
TRUNKS: dict[str, TrunkKind] = {**TORCHVISION, **WIDE_RESNET38, **SMALL_RESNET}
"""The only list of trunks."""
PYRAMID_TRUNKS = tuple(name for name, kind in TRUNKS.items() if kind.has_levels)

if TYPE_CHECKING:
    Trunk: TypeAlias = str
    PyramidTrunk: TypeAlias = str
else:  # for flags and configuration files, which ask a field's type for its values
    Trunk = Literal[tuple(TRUNKS)]
    PyramidTrunk = Literal[PYRAMID_TRUNKS]


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
        stride: one of the trunk's own; wide_resnet38 only has 8, where it is always dilated.
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
    check_stride(name, stride)
    trained, kind = _trained_trunk(name, weights), TRUNKS[name]
    network = _published(name, weights if trained is None else "none")
    trunk = nn.Sequential(OrderedDict(zip(STAGES, kind.cut(network, stride), strict=True)))
    if trained is not None:
        load_into(trunk, trained, weights)
    if dilated:
        for stage, reached in zip(STAGES[-2:], kind.reached, strict=True):
            if reached > stride:
                _dilate(trunk.get_submodule(stage), reached // stride)
    return trunk


def check_stride(trunk: str, stride: int) -> None:
    """Refuses a stride that a trunk of that name cannot have.

    Raises:
        ValueError: it names those that it can have.
    """
    known = TRUNKS[trunk].strides
    if stride not in known:
        listed = " or ".join(map(str, known))
        raise ValueError(f"stride must be {listed} for trunk {trunk}, got {stride}")


def feature_channels(trunk: nn.Sequential) -> int:
    """Number of channels d that the last of a trunk's stages gives."""
    channels = getattr(trunk[-1], "out_channels", None)
    if channels is not None:
        return int(channels)
    return [module for module in trunk.modules() if isinstance(module, nn.Conv2d)][-1].out_channels


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
    kind = TRUNKS[name]
    if Path(weights).suffix in (".pth", ".pt", ".safetensors"):
        network = kind.publish(None)
        load_into(network, read_tensors(weights), weights, optional=kind.heads)
        return network
    known = ("none", *kind.weight_sets)
    if weights not in known:
        raise ValueError(
            f"weights must be {', '.join(known)} or a .pth or .safetensors path "
            f"for {name}, got {weights!r}"
        )
    return kind.publish(None if weights == "none" else weights)


def _dilate(stage: nn.Module, factor: int) -> None:
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (factor, factor)


def freeze_statistics(network: nn.Module) -> None:
    """Keeps batch normalisation on its stored mean and variance; scale and shift still train."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


@contextmanager
def kept_statistics(network: nn.Module) -> Iterator[None]:
    """Inside, batch normalisation that trains does not update its running mean and variance."""
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    tracked = [one.track_running_stats for one in norms]
    try:
        for norm in norms:
            norm.track_running_stats = False
        yield
    finally:
        for norm, own in zip(norms, tracked, strict=True):
            norm.track_running_stats = own


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
