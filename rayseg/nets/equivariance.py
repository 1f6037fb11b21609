"""SEAM's losses: maps of an image and of a smaller copy of it must be the same, only smaller.

Wang et al., *Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation*, CVPR 2020, as the authors' train_SEAM.py has them (METHODS 2). Of either look at an
image there are class maps M and, after the pixel correlation module, M' with a plane of background
ahead; both are brought to [0, 1], and to the smaller look's size.

    classes      = mean of the BCE of GAP(M)                           (over both looks)
    pooled       = mean of the lowest quarter of max_c M'_c            (over both looks)
    equivariance = mean |M_1 - M_2|
    cross        = mean of the largest fifth of |M_2 - M'_1|, and the same of |M_1 - M'_2|

In cross the former of each pair has no gradient and keeps the strongest class of a cell alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rayseg.nets.losses import multilabel_soft_margin
from rayseg.nets.seam import EPSILON, resize_corners

Look = tuple[Float[Tensor, "n c h w"], Float[Tensor, "n p h w"]]


def seam_losses(
    first: Look,
    second: Look,
    targets: Float[Tensor, "n c"],
    hardest_share: float = 0.2,
    negative_weight: float = 1.0,
) -> dict[str, Float[Tensor, ""]]:
    """The four losses by their names; SEAM minimises their sum.

    Args:
        first: maps of the images before and after PCM, as `SeamClassifier.look` gives them.
        second: those of smaller copies.
        targets: 0/1, the classes of each image.
        hardest_share: cross averages this share of an image's differences, the largest.
        negative_weight: what the cross entropy of an image without any class is multiplied by.

    Source: Wang et al., CVPR 2020 (SEAM), eq. 7 to 10; pooled is the code's alone, which says that
    it moves the best background threshold.
    """
    size_hw = (second[0].shape[2], second[0].shape[3])
    present = targets[:, :, None, None]
    classes = [
        multilabel_soft_margin(maps.mean((2, 3)), targets, negative_weight)
        for maps, _ in (first, second)
    ]
    pooled = [minimum_pooling(refined[:, 1:] * present) for _, refined in (first, second)]
    maps = [resize_corners(stretch(one[0]), size_hw) * present for one in (first, second)]
    cross = [
        _hardest(_strongest(wanted.detach()) - _among(present, found, size_hw), hardest_share)
        for wanted, (_, found) in zip(reversed(maps), (first, second), strict=True)
    ]
    return {
        "classes": (classes[0] + classes[1]) / 2,
        "pooled": (pooled[0] + pooled[1]) / 2,
        "equivariance": (maps[0] - maps[1]).abs().mean(),
        "cross": cross[0] + cross[1],
    }


def minimum_pooling(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Mean of the lowest quarter of the pixels of each image, by their strongest class.

    Source: the authors' train_SEAM.py, adaptive_min_pooling_loss.
    """
    strongest = maps.max(1).values.flatten(1)
    count = max(strongest.shape[1] // 4, 1)
    return strongest.topk(count, largest=False).values.relu().mean()


def stretch(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Rectified maps, each from its own minimum and maximum to [0, 1].

    Source: the authors' visualization.py, max_norm.
    """
    maps = maps.relu()
    flat = maps.flatten(2)
    lowest, highest = (one.values[..., None, None] for one in (flat.min(2), flat.max(2)))
    return (maps - lowest - EPSILON).relu() / (highest - lowest + EPSILON)


def _strongest(maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n p h w"]:
    """A plane of what the strongest class leaves of 1, and in each cell its strongest class."""
    strongest = maps.amax(1, keepdim=True)
    return torch.cat([1 - strongest, maps * (maps == strongest)], 1)


def _among(
    present: Float[Tensor, "n c 1 1"], refined: Float[Tensor, "n p h w"], size_hw: tuple[int, int]
) -> Float[Tensor, "n p y x"]:
    """Stretched planes of background and of the classes that the image has, 0 of others."""
    counted = functional.pad(present, (0, 0, 0, 0, 1, 0), value=1.0)
    return resize_corners(stretch(refined), size_hw) * counted


def _hardest(difference: Float[Tensor, "n p h w"], share: float) -> Float[Tensor, ""]:
    """Mean of the largest values of each image, of which that share is taken."""
    numbers = difference.abs().flatten(1)
    count = max(int(numbers.shape[1] * share), 1)
    return numbers.topk(count).values.mean()
