"""SEAM's network: a CAM classifier whose maps are refined by how alike pixels are.

Wang et al., *Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation*, CVPR 2020, in the form of the authors' resnet38_SEAM.py (METHODS 2). The pixel
correlation module (PCM) looks at all pairs of cells: with v the unit vectors of what the image and
two levels of the trunk have in a cell,

    A[j, i]  = ReLU(v_j . v_i)
    M'[p, i] = sum_j M[p, j] A[j, i] / sum_j A[j, i]

M has a plane for background besides one a class, and in each cell only its strongest class. Neither
M nor the levels carry a gradient: losses of M' train the three convolutions of the module alone.
"""

import hashlib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from rayseg.nets.backbones import TRUNKS, kept_statistics
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.stored import load_network

EPSILON = 1e-5
WIDTHS = (64, 128)
"""Channels that the two levels are brought to; the image adds its three."""
BLOCK_NUMBERS = 2**24
"""Affinities that are there at a time where no gradient needs them: 64 MiB as float32."""
Levels = tuple[Float[Tensor, "n a y x"], Float[Tensor, "n b v u"], Float[Tensor, "n d h w"]]
Looks = list[tuple[Float[Tensor, "n c h w"], Float[Tensor, "n p h w"]]]


class SeamClassifier(CamClassifier):
    """CAM's classifier with the pixel correlation module.

    Args:
        dropout: chance of a channel of the features to be left out in training, in [0, 1).

    Attributes:
        correlation_head: PCM. Its name has a head in it, since it learns as fast as one.
        reads: the trunk and images to two earlier levels and the features.
    """

    def __init__(
        self,
        trunk: str,
        num_classes: int,
        stride: int = 8,
        weights: str = "none",
        frozen_statistics: bool = True,
        dropout: float = 0.5,
    ):
        super().__init__(trunk, num_classes, stride, weights, frozen_statistics)
        nn.init.xavier_uniform_(self.head.weight)
        self.reads = TRUNKS[trunk].levels
        self.correlation_head = PixelCorrelation(*_channels(self.trunk, self.reads))
        self.dropout = dropout
        self._seed: tuple[int, int, int, int] | None = None

    def levels(self, images: Float[Tensor, "n 3 h w"]) -> Levels:
        """Two earlier levels of the trunk, and the features."""
        return self.reads(self.trunk, images)

    def forward(  # type: ignore[override]
        self, images: Float[Tensor, "n 3 h w"], scales: Sequence[float] = ()
    ) -> Float[Tensor, "n c"] | Looks:
        """Logits of the classes; with scales what `look` finds at each, for training.

        All in one call, as one step of several workers asks for. Where batch normalisation trains,
        the first look alone updates its running statistics, which maps are made with: a small
        look's are others, since more of it is the convolutions' zeros around the image.
        """
        if not scales:
            return self.classify(self.features(images))
        found = [self.look(resize_by(images, scales[0]))]
        with kept_statistics(self.trunk):
            for place, scale in enumerate(scales[1:], 1):
                found.append(self.look(resize_by(images, scale), place))
        return found

    def look(
        self, images: Float[Tensor, "n 3 h w"], place: int = 0
    ) -> tuple[Float[Tensor, "n c h w"], Float[Tensor, "n p h w"]]:
        """Class maps before and, with one of background ahead of them, after PCM, in float32.

        Args:
            place: among the looks of a step, each of which leaves out other channels.

        Returns:
            At the images' size, corners over corners; the former of any range, the latter in
            [0, 1].
        """
        low, middle, features = self.levels(images)
        maps = _whole(self.head(self._thinned(features, place)))
        planes = strongest_planes(maps.detach())
        refined = self.correlation_head(planes, images, low.detach(), middle.detach())
        size_hw = (images.shape[2], images.shape[3])
        return resize_corners(maps, size_hw), resize_corners(refined, size_hw)

    def reseed(self, seed: int, step: int, rank: int = 0, world: int = 1) -> None:
        """Sets what the looks of a step leave out; without it torch's own generator draws.

        It is drawn for the batch of all workers, and this worker takes every `world`-th image of
        it, as `EpochOrder` shares a batch: several workers draw together what one draws.
        """
        self._seed = (seed, step, rank, world)

    def _thinned(self, features: Float[Tensor, "n d h w"], place: int) -> Tensor:
        """Features with some channels left out in training, the others scaled up for them."""
        if not self.training or not self.dropout:
            return features
        seed, step, rank, world = self._seed or (None, 0, 0, 1)
        generator = None if seed is None else _generator(f"{seed}/{step}/{place}")
        shape = (len(features) * world, features.shape[1], 1, 1)
        kept = torch.rand(shape, generator=generator)[rank::world] >= self.dropout
        return features * (kept / (1 - self.dropout)).to(features)


class PixelCorrelation(nn.Module):
    """PCM: maps of a cell become means over all cells, weighted by how alike their contents are.

    Args:
        low: channels of the earlier of two levels.
        middle: channels of the later one.
    """

    def __init__(self, low: int, middle: int):
        super().__init__()
        joined = sum(WIDTHS) + 3
        self.low = nn.Conv2d(low, WIDTHS[0], 1, bias=False)
        self.middle = nn.Conv2d(middle, WIDTHS[1], 1, bias=False)
        self.joined = nn.Conv2d(joined, joined - 3, 1, bias=False)
        nn.init.kaiming_normal_(self.low.weight)
        nn.init.kaiming_normal_(self.middle.weight)
        nn.init.xavier_uniform_(self.joined.weight, gain=4)

    def forward(
        self,
        planes: Float[Tensor, "n p h w"],
        images: Float[Tensor, "n 3 y x"],
        low: Float[Tensor, "n a v u"],
        middle: Float[Tensor, "n b t s"],
    ) -> Float[Tensor, "n p h w"]:
        """The planes after PCM, in float32 also under autocast.

        Args:
            images: normalised, of any size; they and the levels are brought to the planes' grid.
        """
        with torch.autocast(images.device.type, enabled=False):
            size_hw = (planes.shape[2], planes.shape[3])
            parts = (
                _whole(images),
                self.low(_whole(low)).relu(),
                self.middle(_whole(middle)).relu(),
            )
            joined = self.joined(torch.cat([resize_corners(one, size_hw) for one in parts], 1))
            vectors = joined.flatten(2)
            vectors = vectors / (vectors.norm(dim=1, keepdim=True) + EPSILON)
            return correlate(planes.flatten(2), vectors).unflatten(2, size_hw)


def correlate(
    planes: Float[Tensor, "n p v"], vectors: Float[Tensor, "n e v"]
) -> Float[Tensor, "n p v"]:
    """sum_j M[p, j] A[j, i] / sum_j A[j, i] with A[j, i] = ReLU(v_j . v_i).

    Some columns of A at a time where nothing is differentiated, so that memory does not grow with
    the square of the image.

    Source: Wang et al., CVPR 2020 (SEAM), eq. 6, and the 1e-5 of its code.
    """
    number, _, cells = vectors.shape
    block = cells if vectors.requires_grad else max(BLOCK_NUMBERS // (number * cells), 1)
    found = []
    for part in vectors.split(block, 2):
        affinity = (vectors.transpose(1, 2) @ part).relu()  # (n, v, block)
        found.append(planes @ affinity / (affinity.sum(1, keepdim=True) + EPSILON))
    return torch.cat(found, 2)


def strongest_planes(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p h w"]:
    """What PCM is given: a plane of background, and each cell's strongest class alone.

    Each class is rectified and divided by its own maximum, also one that the image does not have;
    background is what the strongest class of a cell leaves of 1.

    Source: the authors' resnet38_SEAM.py, cam_d_norm.
    """
    maps = maps.relu()
    shares = (maps - EPSILON).relu() / (maps.amax((2, 3), keepdim=True) + EPSILON)
    strongest = shares.amax(1, keepdim=True)
    return torch.cat([1 - strongest, shares * (shares >= strongest)], 1)


def resize_corners(
    maps: Float[Tensor, "n p h w"], size_hw: tuple[int, int]
) -> Float[Tensor, "n p y x"]:
    """Bilinear, corners over corners, as SEAM resizes whatever it resizes."""
    if maps.shape[2:] == size_hw:
        return maps
    return functional.interpolate(maps, size_hw, mode="bilinear", align_corners=True)


def resize_by(images: Float[Tensor, "n p h w"], scale: float) -> Float[Tensor, "n p y x"]:
    """The same to a share of the size, cut to whole pixels, one at least."""
    height, width = (max(int(side * scale), 1) for side in images.shape[2:])
    return resize_corners(images, (height, width))


def _whole(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@torch.no_grad()
def _channels(trunk: nn.Module, reads: Callable[[nn.Module, Tensor], Levels]) -> list[int]:
    """Of the two earlier levels of a new trunk, whose statistics do not change."""
    trunk.eval()
    levels = reads(trunk, torch.zeros(1, 3, 32, 32))
    trunk.train()
    return [level.shape[1] for level in levels[:2]]


class ReadTrunk(nn.Module):
    """A trunk that gives its levels."""

    def __init__(self, trunk: nn.Module, reads: Callable[[nn.Module, Tensor], Levels]):
        super().__init__()
        self.trunk, self.reads = trunk, reads

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two earlier levels, and the features; by such types a traced copy can be stored."""
        return self.reads(self.trunk, images)


def _generator(name: str) -> torch.Generator:
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def load_seam(path: str, classes: Sequence[str] | None = None) -> SeamClassifier:
    """A SEAM from the file that training wrote; see `load_network`."""
    return load_network(
        path, "seam", classes,
        lambda facts: SeamClassifier(facts["trunk"], len(facts["classes"]), facts["stride"]),
    )  # fmt: skip
