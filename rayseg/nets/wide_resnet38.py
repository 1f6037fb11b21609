"""The wide residual network A1 with 38 layers, at stride 8.

Wu et al., *Wider or Deeper: Revisiting the ResNet Model for Visual Recognition*, 2016, in the form
in which PSA, SEAM and W-OoD train it: Ahn and Kwak, *Learning Pixel-level Semantic Affinity with
Image-level Supervision*, CVPR 2018.

A block normalises and rectifies first (pre-activation): y = x' + f(r), r = relu(bn(x)), where x' is
x, or a 1x1 convolution of r where the channels or the grid change. The grid shrinks in b2, b3 and
b4; b5 is dilated by 2 from its second convolution on, b6 and b7 by 4.
"""

from collections import OrderedDict
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from rayseg.nets.trunks import TrunkKind


class WideResNet38(nn.Sequential):
    """Images (n, 3, h, w) to features (n, 4096, ceil(h / 8), ceil(w / 8)).

    Its parts carry the names of PSA's, ``b2.conv_branch2a.weight`` to ``bn7.running_var``, so that
    the weight files of PSA, SEAM and W-OoD load as they are.

    Args:
        divisor: all widths are divided by it, for tests; 64 at most.
    """

    HEADS = ("fc", "f8_", "f9.", "linear1000.")
    """Prefixes of the keys that these files hold beside the trunk's."""

    def __init__(self, divisor: int = 1):
        w64, w128, w256, w512, w1024, w2048, w4096 = (64 * 2**k // divisor for k in range(7))
        plain = [
            ("b2", w64, w128, w128, 2, 1), ("b2_1", w128, w128, w128, 1, 1),
            ("b2_2", w128, w128, w128, 1, 1),
            ("b3", w128, w256, w256, 2, 1), ("b3_1", w256, w256, w256, 1, 1),
            ("b3_2", w256, w256, w256, 1, 1),
            ("b4", w256, w512, w512, 2, 1),
            *((f"b4_{i}", w512, w512, w512, 1, 1) for i in range(1, 6)),
            ("b5", w512, w512, w1024, 1, 2),
            *((f"b5_{i}", w1024, w512, w1024, 1, 2) for i in (1, 2)),
        ]  # fmt: skip
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv1a"] = nn.Conv2d(3, w64, 3, padding=1, bias=False)
        for name, *sizes in plain:
            parts[name] = _Block(*sizes, first_dilation=1 if name == "b5" else sizes[-1])
        parts["b6"] = _Bottleneck(w1024, w2048, dropout=0.3)
        parts["b7"] = _Bottleneck(w2048, w4096, dropout=0.5)
        parts["bn7"] = nn.BatchNorm2d(w4096)
        parts["relu"] = nn.ReLU(inplace=True)
        super().__init__(parts)


class _Block(nn.Module):
    """Two 3x3 convolutions."""

    def __init__(
        self, channels: int, inner: int, out: int, stride: int, dilation: int, first_dilation: int
    ):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(channels)
        self.conv_branch2a = _conv3x3(channels, inner, stride, first_dilation)
        self.bn_branch2b1 = nn.BatchNorm2d(inner)
        self.conv_branch2b1 = _conv3x3(inner, out, 1, dilation)
        self.same_shape = channels == out and stride == 1
        if not self.same_shape:
            self.conv_branch1 = nn.Conv2d(channels, out, 1, stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def ready(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """The inputs, normalised and rectified."""
        return self.relu(self.bn_branch2a(inputs))

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n e h' w'"]:
        ready = self.ready(inputs)
        shortcut = inputs if self.same_shape else self.conv_branch1(ready)
        inner = self.relu(self.bn_branch2b1(self.conv_branch2a(ready)))
        return shortcut + self.conv_branch2b1(inner)


class _Bottleneck(nn.Module):
    """1x1, 3x3 dilated by 4, 1x1; a quarter and a half of the channels between them.

    PSA drops whole channels, and before both later convolutions; Wu et al. drop single values, and
    before the last alone.
    """

    def __init__(self, channels: int, out: int, dropout: float):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(channels)
        self.conv_branch2a = nn.Conv2d(channels, out // 4, 1, bias=False)
        self.bn_branch2b1 = nn.BatchNorm2d(out // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = _conv3x3(out // 4, out // 2, 1, 4)
        self.bn_branch2b2 = nn.BatchNorm2d(out // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(out // 2, out, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(channels, out, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def ready(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """The inputs, normalised and rectified."""
        return self.relu(self.bn_branch2a(inputs))

    def forward(self, inputs: Float[Tensor, "n d h w"]) -> Float[Tensor, "n e h w"]:
        ready = self.ready(inputs)
        inner = self.relu(self.bn_branch2b1(self.conv_branch2a(ready)))
        inner = self.relu(self.bn_branch2b2(self.conv_branch2b1(self.dropout_2b1(inner))))
        return self.conv_branch1(ready) + self.conv_branch2b2(self.dropout_2b2(inner))


def _conv3x3(channels: int, out: int, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _cut(network: nn.Module, stride: int) -> list[nn.Module]:
    ends = ("conv1a", "b2_2", "b3_2", "b4_5", "relu")
    parts = list(network.named_children())
    places = [0, *(1 + [name for name, _ in parts].index(end) for end in ends)]
    return [nn.Sequential(OrderedDict(parts[a:b])) for a, b in pairwise(places)]


def _levels(trunk: nn.Module, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What b5 and b6 are given, once they normalised and rectified it, and the features."""
    *stages, last = trunk.children()
    for stage in stages:
        images = stage(images)
    ready = []
    for name, part in last.named_children():
        if name in ("b5", "b6"):
            assert isinstance(part, _Block | _Bottleneck)
            ready.append(part.ready(images))
        images = part(images)
    return ready[0], ready[1], images


WIDE_RESNET38 = {
    "wide_resnet38": TrunkKind(
        lambda weights: WideResNet38(),
        _cut,
        heads=WideResNet38.HEADS,
        strides=(8,),
        reached=(8, 8),
        levels=_levels,
    )
}
