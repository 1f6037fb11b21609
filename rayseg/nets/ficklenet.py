"""FickleNet's classifier: a head of large windows, in each of which hidden units are left out.

Lee et al., *FickleNet: Weakly and Semi-Supervised Semantic Image Segmentation Using Stochastic
Inference*, CVPR 2019; dissertation 3.2.1. With x the features, s the side of a window, u its
position, o one of its s*s places and m a random selection of 0 and 1:

    logit_c = mean_u sum_o m[u, o] W[c, :, o] . x[:, u + o]

The dissertation computes it on a map that is expanded to (s h, s w) so that windows do not overlap
(Figure 3.2b). The same sum, ordered by the cell v = u + o, needs no expanded map:

    logit_c = sum_o W[c, :, o] . mean_v n[o, v] x[:, v]    with n[o, v] = m[v - o, o]

There is no public code. Recalled from the paper (METHODS 7): s = 9, the drop rate of 0.9, that all
channels share a selection, and that a window's centre is never dropped. Ours: what is kept is not
scaled up by 1 / (1 - drop rate), so that a pass is the plain convolution of what is left; and
in eval mode logits are the exact mean over all selections, for they are linear in m.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from rayseg.nets.backbones import build_trunk, feature_channels, freeze_statistics
from rayseg.nets.stored import load_network


class FickleClassifier(nn.Module):
    """Multi-label classifier that sees another random part of each window in every training step.

    Args:
        frozen_statistics: batch normalisation keeps its stored statistics also in training.
        kernel: side s of a window in cells; odd.
        drop_rate: chance of a place beside the centre to be left out, in [0, 1).
        dilated: the trunk's last stages are dilated where they lost their stride.
        selection: closed is the sum over cells; expanded is Figure 3.2b, the same numbers on a map
            s * s times as large.

    Attributes:
        trunk: images (n, 3, h, w), normalised with ImageNet's mean and deviation, to features
            (n, d, ceil(h / stride), ceil(w / stride)).
        head: s x s convolution (d to c) without bias.
    """

    def __init__(
        self,
        trunk: str,
        num_classes: int,
        stride: int = 8,
        weights: str = "none",
        frozen_statistics: bool = True,
        kernel: int = 9,
        drop_rate: float = 0.9,
        dilated: bool = True,
        selection: Literal["closed", "expanded"] = "closed",
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and positive, got {kernel}")
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate}")
        self.trunk = build_trunk(trunk, stride, weights, dilated)
        channels = feature_channels(self.trunk)
        self.head = nn.Conv2d(channels, num_classes, kernel, padding=kernel // 2, bias=False)
        self.stride = stride
        self.frozen_statistics = frozen_statistics
        self.drop_rate = drop_rate
        self.dilated = dilated
        self.selection = selection
        self._seed: tuple[int, int, int, int] | None = None

    def features(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d h' w'"]:
        """The features whose units are selected."""
        return self.trunk(images)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c"]:
        """Logits of the classes."""
        return self.classify(self.features(images))

    def classify(self, features: Float[Tensor, "n d h' w'"]) -> Float[Tensor, "n c"]:
        """Logits of features: under one selection in training, else their mean over selections."""
        if not self.training:
            return closed_logits(features, self.head.weight, self._expected(features))
        selection = self._draw(features).to(features.device)
        if self.selection == "expanded":
            return expanded_logits(features, self.head.weight, selection)
        return closed_logits(features, self.head.weight, selection.to(features.dtype))

    def reseed(self, seed: int, step: int, rank: int = 0, world: int = 1) -> None:
        """Sets what the next training forward draws; without it torch's own generator draws.

        The selection of the batch of all workers follows from seed and step, and this worker takes
        every `world`-th image of it, as `EpochOrder` shares a batch. What one worker draws is so
        what several draw together.

        Args:
            step: counted over the whole training.
            world: number of workers, each with equally many images.
        """
        self._seed = (seed, step, rank, world)

    def train(self, mode: bool = True) -> Self:
        """As every module's, but frozen statistics stay frozen."""
        super().train(mode)
        if self.frozen_statistics:
            freeze_statistics(self)
        return self

    def _draw(self, features: Tensor) -> Bool[Tensor, "n o h w"]:
        shape = (len(features), features.shape[2], features.shape[3])
        kernel = self.head.kernel_size[0]
        if self._seed is None:
            return draw_selection(kernel, self.drop_rate, *shape)
        seed, step, rank, world = self._seed
        self._seed = None  # another forward is another step
        selection = draw_selection(
            kernel, self.drop_rate, world * shape[0], *shape[1:], _generator(seed, step)
        )
        return selection[rank::world]

    def _expected(self, features: Tensor) -> Float[Tensor, "1 o h w"]:
        kernel = self.head.kernel_size[0]
        chance = torch.full((kernel**2, 1, 1), 1 - self.drop_rate)
        chance[kernel**2 // 2] = 1
        return (chance * inside(kernel, *features.shape[2:]))[None].to(features)


def draw_selection(
    kernel: int,
    drop_rate: float,
    number: int,
    height: int,
    width: int,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "n o h w"]:
    """Selections n[o, v]: whether the window that has cell v at its place o keeps it there.

    Args:
        kernel: side s of a window; its places o count row by row, s * s of them.
        drop_rate: chance of a place beside the centre to be left out; the centre never is.
        generator: on the CPU; None is torch's own.

    Returns:
        On the CPU; False where that window would lie outside the map.
    """
    chance = torch.rand(number, kernel**2, height, width, generator=generator)
    chance[:, kernel**2 // 2] = 1
    return (chance >= drop_rate) & inside(kernel, height, width)


def inside(kernel: int, height: int, width: int) -> Bool[Tensor, "o h w"]:
    """Whether the window that has cell v at its place o lies on the map, v - o in it."""
    offsets = torch.arange(kernel) - kernel // 2
    positions = (torch.arange(side) - offsets[:, None] for side in (height, width))
    rows, columns = (
        (position >= 0) & (position < side)
        for position, side in zip(positions, (height, width), strict=True)
    )
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)


def closed_logits(
    features: Float[Tensor, "n d h w"],
    kernel: Float[Tensor, "c d s s"],
    selection: Float[Tensor, "#n o h w"],
) -> Float[Tensor, "n c"]:
    """Logits by cells: features are summed up place by place, and then weighed once a class.

    Args:
        selection: n[o, v], or the mean of several; 0 where the window lies outside.
    """
    shares = selection.flatten(2).expand(len(features), -1, -1)
    means = shares @ features.flatten(2).transpose(1, 2) / (features.shape[2] * features.shape[3])
    return torch.einsum("nod,cdo->nc", means, kernel.flatten(2))


def expanded_logits(
    features: Float[Tensor, "n d h w"],
    kernel: Float[Tensor, "c d s s"],
    selection: Bool[Tensor, "n o h w"],
) -> Float[Tensor, "n c"]:
    """The same by Figure 3.2b: expanded map, spatial dropout on it, convolution with stride s."""
    side = kernel.shape[-1]
    dropped = expand(features, side) * _by_window(selection, side)
    return functional.conv2d(dropped, kernel, stride=side).mean((2, 3))


def expand(features: Float[Tensor, "n d h w"], side: int) -> Float[Tensor, "n d y x"]:
    """The windows of all positions side by side, zero where they reach over the map."""
    padded = functional.pad(features, [side // 2] * 4)
    windows = padded.unfold(2, side, 1).unfold(3, side, 1)  # (n, d, h, w, s, s)
    return windows.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def _by_window(selection: Bool[Tensor, "n o h w"], side: int) -> Float[Tensor, "n 1 y x"]:
    """The selection where the expanded map has the units: m[u, o] = n[o, u + o]."""
    rows = []
    for place, plane in enumerate(selection.unbind(1)):
        y, x = (at - side // 2 for at in divmod(place, side))
        # a window's units that lie outside the map are zero anyway
        rows.append(plane.roll((-y, -x), (1, 2)))
    number, height, width = rows[0].shape
    windows = torch.stack(rows, 1).view(number, side, side, height, width)
    apart = windows.permute(0, 3, 1, 4, 2)
    return apart.reshape(number, 1, height * side, width * side)


def _generator(seed: int, step: int) -> torch.Generator:
    # torch keeps 32 bits of a seed, so that seed * 2**32 + step would lose the seed
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def fickle_facts(
    network: FickleClassifier, trunk: str, classes: Sequence[str]
) -> dict[str, object]:
    """What `load_ficklenet` needs to know beside the tensors; for `to_safetensors`."""
    return {
        "network": "ficklenet",
        "trunk": trunk,
        "stride": network.stride,
        "classes": list(classes),
        "kernel": network.head.kernel_size[0],
        "drop_rate": network.drop_rate,
        "dilated": network.dilated,
    }


def load_ficklenet(path: str, classes: Sequence[str] | None = None) -> FickleClassifier:
    """A FickleNet from the file that training wrote; see `load_network`."""
    return load_network(
        path, "ficklenet", classes,
        lambda facts: FickleClassifier(
            facts["trunk"],
            len(facts["classes"]),
            facts["stride"],
            kernel=int(facts["kernel"]),
            drop_rate=float(facts["drop_rate"]),
            dilated=bool(facts["dilated"]),
        ),
        ("kernel", "drop_rate", "dilated"),
    )  # fmt: skip
