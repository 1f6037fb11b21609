"""DeepLab-v2's head as it was trained on VGG-16: fc6, fc7 and fc8 in each of four branches.

Chen et al., *DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution,
and Fully Connected CRFs*, TPAMI 2018 (ASPP of VGG-16); Huang et al., *Weakly-Supervised Semantic
Segmentation Network with Deep Seeded Region Growing*, CVPR 2018 (DSRG), METHODS 8.
"""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class BranchedHead(nn.Module):
    """The sum of branches of a dilated 3x3 convolution, a 1x1 one, and one to the labels.

    The published fc6 and fc7 begin with VGG-16's fully connected layers of ImageNet, thinned out;
    torchvision's trunks hold none, so that ours begin at random (He's normal).

    Args:
        width: channels of fc6 and fc7; 1024 as published.
        rates: dilation of each fc6, in cells.
        drop_rate: chance that an output of fc6 or fc7 is left out in training.
    """

    def __init__(
        self,
        channels: int,
        num_labels: int,
        width: int = 1024,
        rates: Sequence[int] = (6, 12, 18, 24),
        drop_rate: float = 0.5,
    ):
        super().__init__()
        if width < 1:
            raise ValueError(f"head_width must be 1 or more, got {width}")
        self.branches = nn.ModuleList(
            _branch(channels, num_labels, width, rate, drop_rate, 2 * place)
            for place, rate in enumerate(rates)
        )
        self.width = width

    def forward(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n l h w"]:
        """Logits of features, on the same grid."""
        first, *others = (branch(features) for branch in self.branches)
        return sum(others, first)

    def reseed(self, seed: int, step: int, rank: int = 0, world: int = 1) -> None:
        """Sets what the next training forward leaves out; see `SharedDropout`."""
        for module in self.modules():
            if isinstance(module, SharedDropout):
                module.draws = (seed, step, rank, world)


class SharedDropout(nn.Module):
    """Dropout that leaves out the same of an image, however many workers share a batch.

    What is left out follows from seed, step, place and the image's place in the batch of all
    workers, of which each takes every `world`-th, as `DrawOrder` shares a batch. Without these
    torch's own generator draws.

    Args:
        rate: chance of a value to be left out, in [0, 1); the others are scaled by 1 / (1 - rate).
        place: number of this dropout in its network.
    """

    def __init__(self, rate: float, place: int):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"drop rate must be in [0, 1), got {rate}")
        self.rate, self.place = rate, place
        self.draws: tuple[int, int, int, int] | None = None

    def forward(self, values: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """The values, in training without some."""
        if not self.training or not self.rate:
            return values
        if self.draws is None:
            return functional.dropout(values, self.rate)
        (seed, step, rank, world), self.draws = self.draws, None  # another forward, another step
        kept = [
            torch.rand(
                values.shape[1:],
                generator=_generator(values.device, seed, step, self.place, rank + image * world),
                device=values.device,
            )
            >= self.rate
            for image in range(len(values))
        ]
        return values * torch.stack(kept) / (1 - self.rate)


def _branch(
    channels: int, num_labels: int, width: int, rate: int, drop_rate: float, place: int
) -> nn.Sequential:
    fc6 = nn.Conv2d(channels, width, 3, padding=rate, dilation=rate)
    fc7, fc8 = nn.Conv2d(width, width, 1), nn.Conv2d(width, num_labels, 1)
    for layer in (fc6, fc7):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(fc8.weight, std=0.01)
    for layer in (fc6, fc7, fc8):
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    first, second = (SharedDropout(drop_rate, place + later) for later in range(2))
    return nn.Sequential(fc6, nn.ReLU(), first, fc7, nn.ReLU(), second, fc8)


def _generator(device: torch.device, *numbers: int) -> torch.Generator:
    # torch keeps 32 bits of a seed
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big"))
