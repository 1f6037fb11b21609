"""Losses of the trainers."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


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
