"""Losses of the trainers."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor
from torch.nn import functional

from rayseg.records import BACKGROUND, IGNORE


def multilabel_soft_margin(
    logits: Float[Tensor, "n c"], targets: Float[Tensor, "n c"], negative_weight: float = 1.0
) -> Float[Tensor, ""]:
    """Mean binary cross entropy of every class of every image.

    Args:
        negative_weight: what the cross entropy of an image without any class is multiplied by.

    Source: the classifier loss of Ahn et al., CVPR 2019 (IRN), METHODS 1.2.
    """
    if negative_weight == 1:
        return functional.multilabel_soft_margin_loss(logits, targets)
    losses = functional.multilabel_soft_margin_loss(logits, targets, reduction="none")
    return torch.where(targets.any(1), losses, losses * negative_weight).mean()


def rib_loss(
    logits: Float[Tensor, "n c"], targets: Float[Tensor, "n c"], margin: float = float("inf")
) -> Float[Tensor, ""]:
    """-sum t_c min(m, y_c), added over the rows: no activation that saturates.

    Args:
        margin: m; a logit above it has no gradient. Infinity leaves the minimum out, as the public
            code does.

    Source: Lee et al., NeurIPS 2021 (RIB), dissertation 3.4.3.
    """
    return -(logits.clamp(max=margin) * targets).sum()


def activated_bce(
    logits: Float[Tensor, "n c"],
    targets: Float[Tensor, "n c"],
    activation: Literal["sigmoid", "tanh", "softsign"],
) -> Float[Tensor, ""]:
    """Binary cross entropy of activations that saturate on both sides, added over rows and classes.

    Tanh and softsign are brought to (0, 1) by a -> (a + 1) / 2. Half of one plus tanh(y) is the
    sigmoid of 2 y. Half of one plus softsign(y) is (1 + 2 relu(y)) / (2 + 2 |y|), of which the
    logarithm is put so that no rounded 0 comes into it.

    Source: dissertation Table 3.9a.
    """
    if activation == "softsign":
        wrong = torch.where(targets > 0, -logits, logits)
        right = (-wrong).clamp(min=0)
        rise = torch.where(wrong >= 0, wrong, 0.0).log1p()
        losses = torch.where(wrong >= 0, rise, right.log1p() - (2 * right).log1p()) + math.log(2)
        return losses.sum()
    slope = 2 if activation == "tanh" else 1
    return functional.binary_cross_entropy_with_logits(slope * logits, targets, reduction="sum")


def segmentation_loss(
    logits: Float[Tensor, "n l h w"], labels: Integer[Tensor, "n y x"], balanced: bool = False
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Cross entropy of pixels as a sum and what to divide it by; both add over batches and workers.

    Args:
        logits: any range; bf16 and fp16 are computed in float32.
        labels: 0 background, 255 not counted; brought to the logits' grid by nearest.
        balanced: background and foreground weigh the same in every image, however many pixels they
            have.

    Returns:
        The sum over all counted pixels and their number; balanced, the sum over images of the mean
        over background pixels plus the mean over foreground pixels, a part without pixels being 0,
        and the number of images.

    Source: Chen et al., TPAMI 2018 (DeepLab); balanced, the seeding loss of Huang et al., CVPR 2018
    (DSRG), with which AdvCAM's and RIB's segmenters were trained (METHODS 8 and 10).
    """
    labels = labels_on_grid(labels, logits.shape[2:]).long()  # (n, h, w)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    if not balanced:
        return losses.sum(), (labels != IGNORE).sum()
    background = labels == BACKGROUND
    foreground = ~background & (labels != IGNORE)
    means = [
        (losses * part).sum((1, 2)) / part.sum((1, 2)).clamp(min=1)
        for part in (background, foreground)
    ]
    return torch.stack(means).sum(), torch.tensor(len(labels), device=logits.device)


def grown_seeds(
    logits: Float[Tensor, "m h w"],
    foreground: Bool[Tensor, "m h w"],
    background: Bool[Tensor, "m h w"],
    sure_foreground: float = 0.9,
    sure_background: float = 0.1,
) -> tuple[Bool[Tensor, "m h w"], Bool[Tensor, "m h w"]]:
    """Pixels to learn from: the seeds, and those of which the network is sure by itself.

    A pixel joins foreground where its probability is above `sure_foreground`, background where it
    is below `sure_background`, but never against a seed of the other side. Of all these a pixel is
    kept if one of its eight neighbours is on the same side; it need not reach a seed, and a seed
    that is alone is dropped.

    Args:
        logits: of foreground, any range; no gradient is taken of them.

    Returns:
        The grown foreground and background; no pixel is of both.

    Source: Lee et al., CVPR 2021 (BBAM), dissertation 5.4.1; the authors'
    maskrcnn_benchmark/modeling/roi_heads/mask_head/loss.py (METHODS 9).
    """
    probabilities = logits.detach().sigmoid()
    grown = (foreground | (probabilities > sure_foreground)) & ~background
    receded = (background | (probabilities < sure_background)) & ~foreground
    return grown & _has_neighbour(grown), receded & _has_neighbour(receded)


def _has_neighbour(marks: Bool[Tensor, "m h w"]) -> Bool[Tensor, "m h w"]:
    """Whether one of the eight pixels around is marked."""
    around = marks.new_ones(1, 1, 3, 3, dtype=torch.float32)
    around[..., 1, 1] = 0
    return functional.conv2d(marks[:, None].float(), around, padding=1)[:, 0] > 0.5


def balanced_mask_loss(
    logits: Float[Tensor, "m h w"],
    foreground: Bool[Tensor, "m h w"],
    background: Bool[Tensor, "m h w"],
    balanced: bool = True,
) -> Float[Tensor, ""]:
    """Binary cross entropy of the pixels of either side; what is of neither is not counted.

    Args:
        logits: of foreground, any range; bf16 and fp16 are computed in float32.
        foreground: pixels to be 1.
        background: pixels to be 0.
        balanced: half the mean over the foreground plus half the mean over the background of all m
            masks together, as BBAM has it; 0 where either is empty, as in the authors' code. Else
            the mean over all counted pixels, which is the loss of Mask R-CNN where all are
            counted; 0 where none is.

    Source: Lee et al., CVPR 2021 (BBAM), the authors' mask_head/loss.py; He et al., ICCV 2017 (Mask
    R-CNN).
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.binary_cross_entropy_with_logits(
        logits, foreground.to(logits.dtype), reduction="none"
    )
    sums = torch.stack([(losses * side).sum() for side in (foreground, background)])
    counts = torch.stack([foreground.sum(), background.sum()])
    if not balanced:
        return sums.sum() / counts.sum().clamp(min=1)
    return (sums / counts.clamp(min=1)).mean() * (counts > 0).all()


def labels_on_grid(
    labels: Integer[Tensor, "n y x"], size_hw: tuple[int, ...]
) -> Integer[Tensor, "n h w"]:
    """The label under the centre of each cell: PIL's nearest, torch's ``nearest-exact``.

    In whole numbers, since both round a centre that lies between two pixels now up, now down.
    """
    rows, columns = (
        (2 * torch.arange(cells, device=labels.device) + 1) * pixels // (2 * cells)
        for pixels, cells in zip(labels.shape[1:], size_hw, strict=True)
    )
    return labels[:, rows][:, :, columns]
