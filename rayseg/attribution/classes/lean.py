"""The lean copy of a classifier that methods work on, so that the classifier stays as it was.

It computes what the classifier computes, up to rounding, and only what attribution needs: batch
normalisation is folded into the convolutions, no weight has a gradient, tensors lie channels last,
in the chosen precision. (RIB's copy, adaptable.py, trains its last stages.) On a CPU two kinds of
convolution are put another way:

- A 1x1 convolution is a matrix product over channels. torch takes a slow path for few images on one
  thread, and copies between memory formats in the backward pass; as a product it does neither.
- The gradient of a strided depthwise convolution is taken in float32 (nets/suited.py).
"""

import copy
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rayseg.nets.inputs import Precision, choose_dtype
from rayseg.nets.suited import StridedDepthwise, fold_normalisation, is_strided_depthwise


def placed(network: nn.Module, device: torch.device | None) -> nn.Module:
    """The network where it lies on that device or none is asked for, else a copy that does."""
    if device in (None, next(network.parameters()).device):
        return network
    return copy.deepcopy(network).to(device)


class LeanNetwork(nn.Module):
    """A copy of a classifier that only runs forward and differentiates to its input.

    Attributes:
        classifier: has ``features`` (n, 3, h, w) -> (n, d, h', w'), ``head`` (a convolution
            without bias, 1x1 here), ``classify`` (features -> logits) and ``stride``; a ``trunk``
            is folded.
        dtype: of weights and activations; features come out as float32 whatever it is.
        weight: float32 (c, d), the head's; of a larger head its centre.
        stride: image pixels a feature cell.
    """

    head_side: ClassVar[int] = 1
    """Side of the windows that the head must have; 0 for any above 1."""
    serves_all: ClassVar[bool] = True
    """Whether methods that made no copy of their own take it."""

    def __init__(self, network: nn.Module, precision: Precision = "auto"):
        super().__init__()
        check_head(network, self.head_side)
        device = next(network.parameters()).device
        self.dtype = choose_dtype(precision, device)
        lean: Any = copy.deepcopy(network).eval()
        for parameter in lean.parameters():
            parameter.grad = None  # a gradient that was there is not ours to carry
        lean.requires_grad_(False)
        windows = lean.head.weight.float().flatten(2)
        self.weight: Float[Tensor, "c d"] = windows[..., windows.shape[2] // 2].clone()
        self.stride: int = lean.stride
        if hasattr(lean, "trunk"):
            self._fold(lean)
        self.classifier = lean.to(device, self.dtype).to(memory_format=torch.channels_last)
        if device.type == "cpu":
            suit_cpu(self.classifier, self.dtype)

    def _fold(self, lean: Any) -> None:
        """Folds what the copy's trunk normalises, in place."""
        lean.trunk = fold_normalisation(lean.trunk)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.weight.device

    @property
    def num_classes(self) -> int:
        """Number of classes c."""
        return len(self.weight)

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d h' w'"]:
        """Float32 features of normalised images."""
        images = images.to(self.dtype).contiguous(memory_format=torch.channels_last)
        return self.classifier.features(images).float()

    def class_maps(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c h' w'"]:
        """w_c . f for every class, neither rectified nor normalised."""
        return functional.conv2d(self.features(images), self.weight[:, :, None, None])

    def classify(self, features: Float[Tensor, "n d h' w'"]) -> Float[Tensor, "n c"]:
        """Float32 logits of features."""
        return self.classifier.classify(features.to(self.dtype)).float()


def check_head(network: Any, side: int) -> None:
    """Refuses a network whose head's windows are of another side.

    Raises:
        ValueError: they are; 0 stands for any side above 1.
    """
    found = network.head.kernel_size[0]
    if found != side and (side or found == 1):
        wanted = f"{side}x{side}" if side else "larger than 1x1"
        raise ValueError(f"the network's head must be {wanted}, got {found}x{found}")


def suit_cpu(network: nn.Module, dtype: torch.dtype) -> None:
    """Puts convolutions another way, in place; see the top of the file."""
    for name, child in network.named_children():
        if name == "head":
            continue  # asked for its weight by name
        if isinstance(child, nn.Conv2d):
            if is_pointwise(child):
                setattr(network, name, _Pointwise(child))
            elif dtype == torch.bfloat16 and is_strided_depthwise(child):
                setattr(network, name, StridedDepthwise(child))
        else:
            if isinstance(child, nn.ReLU | nn.ReLU6):
                child.inplace = False  # in place on a product's view, autograd copies the view
            suit_cpu(child, dtype)


def is_pointwise(layer: nn.Conv2d) -> bool:
    """Whether it is a plain 1x1 convolution."""
    return layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.groups == 1


class _Pointwise(nn.Module):
    """A 1x1 convolution as a matrix product over the channels of each cell."""

    def __init__(self, layer: nn.Conv2d):
        super().__init__()
        self.weight = nn.Parameter(layer.weight.flatten(1).contiguous(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n e h w"]:
        cells = functional.linear(inputs.permute(0, 2, 3, 1), self.weight, self.bias)
        return cells.permute(0, 3, 1, 2)
