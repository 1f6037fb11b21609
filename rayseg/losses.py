"""Losses of the trainers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from torch.nn import functional

BACKGROUND = 0
IGNORE = 255


def multilabel_soft_margin(
    logits: Float[Tensor, "n c"], targets: Float[Tensor, "n c"]
) -> Float[Tensor, ""]:
    """Mean binary cross entropy of every class of every image.

    Args:
        logits: any range.
        targets: 1 where the image has the class, else 0.

    Source: the classifier loss of Ahn et al., CVPR 2019 (IRN), METHODS 1.2.
    """
    return functional.multilabel_soft_margin_loss(logits, targets)


def rib_loss(
    logits: Float[Tensor, "n c"], targets: Float[Tensor, "n c"], margin: float = float("inf")
) -> Float[Tensor, ""]:
    """-sum t_c min(m, y_c), added over the rows: no activation that saturates.

    Args:
        logits: any range.
        targets: 1 where the row has the class, else 0.
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
    labels = _on_grid(labels, logits.shape[2:]).long()  # (n, h, w)
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


def _on_grid(
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
