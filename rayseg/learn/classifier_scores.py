"""How well a classifier finds the classes of images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

TaggedBatch = tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n c"]]


@dataclass(frozen=True)
class ClassifierScores:
    """How well a classifier finds the classes of images.

    Attributes:
        mean_average_precision: mean over the classes that occur, in [0, 1].
        f1: of all decisions at logit 0 pooled (micro F1), in [0, 1].
    """

    mean_average_precision: float
    f1: float

    @classmethod
    def of(cls, logits: Float[ndarray, "n c"], targets: Float[ndarray, "n c"]) -> Self:
        """Scores of the logits against 0/1 targets."""
        from sklearn.metrics import average_precision_score  # noqa: PLC0415  # half a second of every process

        occurring = targets.any(0)
        precisions = [
            average_precision_score(targets[:, c], logits[:, c]) for c in np.flatnonzero(occurring)
        ]
        chosen = logits > 0
        agreed = float((chosen * targets).sum())
        total = float(chosen.sum() + targets.sum())
        return cls(
            float(np.mean(precisions)) if precisions else float("nan"),
            2 * agreed / total if total else float("nan"),
        )


def chance_precision(
    targets: Float[ndarray, "n c"], share: float = 0.95, draws: int = 200
) -> float | None:
    """What the mean average precision of images in random order stays below, nearly always.

    Args:
        targets: 0 or 1, whether an image shows a class.
        share: of random orders that stay below.
        draws: number of orders that are drawn, from a seed of their own.

    Returns:
        In [0, 1]; None where no class tells images apart, being in none or in all.
    """
    rng, number = np.random.default_rng(0), len(targets)
    found = []
    for positives in targets.astype(bool).sum(0):
        if positives:
            order = rng.random((draws, number)).argsort(1)[:, :positives]
            ranks = np.sort(order, axis=1) + 1  # (draws, positives)
            found.append((np.arange(1, positives + 1) / ranks).mean(1))
    if not {*targets.astype(bool).sum(0).tolist()} - {0, number}:
        return None
    return float(np.quantile(np.mean(found, axis=0), share))


@torch.no_grad()
def predict_logits(
    network: nn.Module,
    batches: Iterable[TaggedBatch],
    forward: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Float[ndarray, "n c"], Float[ndarray, "n c"]]:
    """Logits and targets of all batches, in eval mode; the network's mode is put back.

    Args:
        forward: the network's logits of images; None calls it.
    """
    mode, ask = network.training, forward or network
    network.eval()
    try:
        pairs = [(ask(images).float().cpu(), targets.cpu()) for images, targets in batches]
    finally:
        network.train(mode)
    return tuple(torch.cat(side).numpy() for side in zip(*pairs, strict=True))  # type: ignore[return-value]
