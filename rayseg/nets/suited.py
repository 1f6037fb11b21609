"""Layers of frozen networks put another way where torch's own are slow.

On a CPU the gradient of a strided depthwise convolution has no bf16 kernel worth the name; it is
taken in float32, four times faster. torch's ReLU6 in place copies its input first, since its
gradient is written by what went in; what comes out says the same.
"""

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.fx.experimental.optimization import fuse
from torch.nn.grad import conv2d_input


def fold_normalisation(network: nn.Module) -> nn.Module:
    """A copy whose batch normalisation is folded into convolutions; for a network in eval mode.

    One without any is not traced, so that it need not be traceable.
    """
    has_any = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    return fuse(network) if has_any else copy.deepcopy(network)


def suit_relu6(network: nn.Module) -> None:
    """Puts `LeanReLU6` where there are such layers, in place.

    None of them may be shown what is needed afterwards as it was.
    """
    for name, child in network.named_children():
        if isinstance(child, nn.ReLU6):
            setattr(network, name, LeanReLU6())
        else:
            suit_relu6(child)


class LeanReLU6(nn.Module):
    """Clamps to [0, 6] in place and keeps nothing but what comes out."""

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """The inputs, clamped."""
        return _ClampInPlace.apply(inputs)


class _ClampInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.mark_dirty(inputs)
        outputs = inputs.clamp_(0, 6)
        ctx.save_for_backward(outputs)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (outputs,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], outputs, 0.0, 6.0)


def suit_depthwise(network: nn.Module) -> None:
    """Puts `StridedDepthwise` where there are such convolutions, in place; for frozen networks."""
    for name, child in network.named_children():
        if isinstance(child, nn.Conv2d) and is_strided_depthwise(child):
            setattr(network, name, StridedDepthwise(child))
        elif not isinstance(child, StridedDepthwise):
            suit_depthwise(child)


def is_strided_depthwise(layer: nn.Conv2d) -> bool:
    """Whether it looks at each channel alone, at some of the cells."""
    return layer.groups == layer.in_channels > 1 and layer.stride != (1, 1)


class StridedDepthwise(nn.Module):
    """A strided depthwise convolution whose gradient is taken in float32, to its input only."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h' w'"]:
        """The convolution of the inputs."""
        return _FloatGradient.apply(inputs, self.layer)


class _FloatGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: nn.Conv2d) -> Tensor:
        ctx.layer, ctx.shape = layer, inputs.shape
        return layer(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        layer: nn.Conv2d = ctx.layer
        gradient = conv2d_input(
            ctx.shape, layer.weight.float(), gradients[0].float(),
            layer.stride, layer.padding, layer.dilation, layer.groups,
        )  # fmt: skip
        return gradient.to(layer.weight.dtype), None
