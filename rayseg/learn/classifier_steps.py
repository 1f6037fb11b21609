"""One epoch of a classifier and its evaluation; batches come from whoever has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from rayseg.learn.schedules import HalvedAdam, PolySGD
from rayseg.nets.losses import multilabel_soft_margin

Batch = tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n c"]]


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: PolySGD | HalvedAdam,
    batches: Iterable[Batch],
    epoch: int,
    num_epochs: int,
    steps_per_epoch: int,
) -> Iterator[float]:
    """Trains over the batches and yields the loss of each.

    Args:
        network: in training mode from here on, changed in place.
        optimizer: of the network.
        schedule: sets the learning rates before each step.
        batches: normalised images and 0/1 targets, on the network's device.
        epoch: of the training, counted from 0.
        num_epochs: of the whole training.
        steps_per_epoch: batches of each epoch.

    Raises:
        FloatingPointError: the loss is not finite; the weights are those before that step.
    """
    network.train()
    for step, (images, targets) in enumerate(batches, epoch * steps_per_epoch):
        schedule.set_step(optimizer, step, num_epochs, steps_per_epoch)
        loss = multilabel_soft_margin(network(images), targets)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss must be finite, got {loss.item()} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield loss.item()


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
    def of(cls, logits: Float[ndarray, "n c"], targets: Float[ndarray, "n c"]) -> ClassifierScores:
        """Scores of the logits against 0/1 targets."""
        from sklearn.metrics import (  # noqa: PLC0415  # half a second of every process
            average_precision_score,
        )

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


@torch.no_grad()
def predict_logits(
    network: nn.Module, batches: Iterable[Batch]
) -> tuple[Float[ndarray, "n c"], Float[ndarray, "n c"]]:
    """Logits and targets of all batches, in eval mode; the network's mode is put back."""
    mode = network.training
    network.eval()
    try:
        pairs = [(network(images).float().cpu(), targets.cpu()) for images, targets in batches]
    finally:
        network.train(mode)
    return tuple(torch.cat(side).numpy() for side in zip(*pairs, strict=True))  # type: ignore[return-value]
