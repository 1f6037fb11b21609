"""Convolutions put another way where a CPU's own is slow.

The gradient of a strided depthwise convolution has no bf16 kernel worth the name; it is taken in
float32, four times faster.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


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
