"""IRNet: class boundaries, and displacements to the centroids of instances, over a frozen trunk.

Ahn et al., *Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations*, CVPR
2019 (IRN). Both branches look at all five stages of the trunk by 1x1 convolutions with group
normalisation (METHODS 1.6). That sees the whole input: an image among zeros gives other values than
the image alone, so that images lie on as large a canvas as in training. The authors' trunk is
ResNet-50 at stride 16 with ImageNet's weights. Of other trunks, stages on a finer grid than the one
they are needed on are averaged to it first.
"""

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rayseg.nets.backbones import build_trunk
from rayseg.nets.stored import load_network
from rayseg.nets.taps import Tap, grid_of, grow, measure, shrink, stage_outputs

CELL = 4
"""Image pixels of a cell of edges and displacements; as many as one of stored maps has."""
_INNER = 8
"""Of a cell of the grid on which the displacement branch joins the last three stages."""
_EDGE_WIDTH, _EDGE_GROUPS = 32, 4
_DISPLACEMENT_WIDTHS = ((64, 8), (128, 16), (256, 16), (256, 16), (256, 16))
"""Channels and groups for each stage."""


class _Branch(nn.Module):
    """A stage's features as a branch takes them, on a grid of its own."""

    def __init__(self, tap: Tap, channels: int, groups: int, cell: int):
        super().__init__()
        self.conv = nn.Conv2d(tap.channels, channels, 1, bias=False)
        self.norm = nn.GroupNorm(groups, channels)
        self.stride, self.cell = tap.stride, cell

    def forward(
        self, features: Float[Tensor, "n d h w"], size_hw: Sequence[int]
    ) -> Float[Tensor, "n e y x"]:
        mixed = self.norm(self.conv(shrink(features, self.stride, self.cell)))
        return grow(mixed, self.stride, self.cell, size_hw).relu()


class _Edges(nn.Module):
    def __init__(self, taps: Sequence[Tap]):
        super().__init__()
        self.branches = nn.ModuleList(_Branch(tap, _EDGE_WIDTH, _EDGE_GROUPS, CELL) for tap in taps)
        self.last = nn.Conv2d(_EDGE_WIDTH * len(taps), 1, 1)

    def forward(self, stages: Sequence[Tensor], size_hw: Sequence[int]) -> Tensor:
        found = [one(stage, size_hw) for one, stage in zip(self.branches, stages, strict=True)]
        return _exact(self.last, torch.cat(found, 1))


class _Displacements(nn.Module):
    def __init__(self, taps: Sequence[Tap]):
        super().__init__()
        cells = (CELL, CELL, _INNER, _INNER, _INNER)
        self.branches = nn.ModuleList(
            _Branch(tap, *width, cell)
            for tap, width, cell in zip(taps, _DISPLACEMENT_WIDTHS, cells, strict=True)
        )
        self.inner = _Branch(Tap(768, _INNER), 256, 16, CELL)
        self.joined = _Branch(Tap(448, CELL), 256, 16, CELL)
        self.last = nn.Conv2d(256, 2, 1, bias=False)

    def forward(self, stages: Sequence[Tensor], image_hw: Sequence[int]) -> Tensor:
        sizes = [grid_of(image_hw, branch.cell) for branch in self.branches]  # type: ignore[arg-type]
        first, second, *deep = (
            branch(stage, size)
            for branch, stage, size in zip(self.branches, stages, sizes, strict=True)
        )
        inner = self.inner(torch.cat(deep, 1), sizes[0])
        return _exact(self.last, self.joined(torch.cat([first, second, inner], 1), sizes[0]))


def _exact(last: nn.Conv2d, features: Tensor) -> Tensor:
    """In the weights' number format: bf16 has steps of an eighth where a displacement is 16."""
    with torch.autocast(features.device.type, enabled=False):
        return last(features.to(last.weight.dtype))


class IRNet(nn.Module):
    """Edges and displacements of images, on cells of four pixels.

    Args:
        trunk: one of TRUNKS; its parameters do not train and its statistics do not change.
        stride: image pixels of a cell of the trunk's features.
        weights: of the trunk, as `build_trunk` takes them.
        canvas: side in pixels of the crops that it trains on, of which small images fill a part.

    Attributes:
        trunk: images (n, 3, h, w), normalised with ImageNet's mean and deviation, to features.
        edge: the branch of class boundaries.
        displacement_head: that of displacements, which learns ten times as fast.
        mean_displacement: (2,), taken off displacements in eval mode; the authors' MeanShift.
    """

    mean_displacement: Tensor

    def __init__(self, trunk: str, stride: int = 16, weights: str = "none", canvas: int = 0):
        super().__init__()
        self.trunk = build_trunk(trunk, stride, weights).requires_grad_(False)
        taps = measure(self.trunk)
        self.edge = _Edges(taps)
        self.displacement_head = _Displacements(taps)
        self.register_buffer("mean_displacement", torch.zeros(2))
        self.trunk_name, self.stride, self.canvas = trunk, stride, canvas
        self.trunk.eval()

    def forward(
        self, images: Float[Tensor, "n 3 h w"]
    ) -> tuple[Float[Tensor, "n 1 y x"], Float[Tensor, "n 2 y x"]]:
        """Logits of class boundaries, and displacements (down, right) in cells."""
        size_hw = images.shape[2:]
        with torch.no_grad():
            stages = stage_outputs(self.trunk, images)
        displacements = self.displacement_head(stages, size_hw)
        if not self.training:
            displacements = displacements - self.mean_displacement.view(1, 2, 1, 1)
        return self.edge(stages, grid_of(size_hw, CELL)), displacements

    def edges(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 y x"]:
        """Logits of class boundaries alone."""
        with torch.no_grad():
            stages = stage_outputs(self.trunk, images)
        return self.edge(stages, grid_of(images.shape[2:], CELL))

    def train(self, mode: bool = True) -> Self:
        """As every module's, but the trunk stays in eval mode."""
        super().train(mode)
        self.trunk.eval()
        return self


def irnet_facts(network: IRNet, classes: Sequence[str]) -> dict[str, object]:
    """What `load_irnet` needs to know beside the tensors; for `to_safetensors`."""
    return {
        "network": "irnet",
        "trunk": network.trunk_name,
        "stride": network.stride,
        "canvas": network.canvas,
        "classes": list(classes),
    }


def load_irnet(path: str, classes: Sequence[str] | None = None) -> IRNet:
    """An IRNet from the file that training wrote; see `load_network`."""
    return load_network(
        path, "irnet", classes,
        lambda facts: IRNet(facts["trunk"], facts["stride"], canvas=int(facts.get("canvas", 0))),
    )  # fmt: skip
