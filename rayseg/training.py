"""Optimiser, schedule, one epoch and evaluation; batches come from whoever has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from rayseg.losses import multilabel_soft_margin

Batch = tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n c"]]


@dataclass(frozen=True)
class PolySGD:
    """Stochastic gradient descent under a polynomial schedule, with a faster head.

    The default is the authors' public code (``official``): its optimiser passes the weight decay
    in the place of the momentum, so that 1e-4 is the momentum that the published numbers were
    trained with (METHODS 0.1). lr 0.1 works because of it; with momentum 0.9 take a tenth.

    Attributes:
        lr: learning rate of the trunk at the start.
        head_factor: the head learns this many times faster.
        momentum: of the gradient.
        weight_decay: of all weights.
        power: lr * (1 - step / steps) ** power.
    """

    lr: float = 0.1
    head_factor: float = 10.0
    momentum: float = 1e-4
    weight_decay: float = 1e-4
    power: float = 0.9

    @classmethod
    def as_written(cls) -> PolySGD:
        """Momentum 0.9, as the field in the authors' code is called, at a learning rate for it."""
        return replace(cls(), lr=0.01, momentum=0.9)

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        """The optimiser over the network's parameters that require a gradient."""
        trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for n, p in trained if "head." not in n], "base_lr": self.lr},
            {
                "params": [p for n, p in trained if "head." in n],
                "base_lr": self.lr * self.head_factor,
            },
        ]
        return torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def set_step(self, optimizer: torch.optim.Optimizer, step: int, num_steps: int) -> None:
        """Sets the learning rates of the step, counted from 0."""
        factor = max(1 - step / num_steps, 0.0) ** self.power
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


def train_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: PolySGD,
    batches: Iterable[Batch],
    first_step: int,
    num_steps: int,
) -> Iterator[float]:
    """Trains over the batches and yields the loss of each.

    Args:
        network: in training mode from here on, changed in place.
        optimizer: of the network.
        schedule: sets the learning rates before each step.
        batches: normalised images and 0/1 targets, on the network's device.
        first_step: steps taken in earlier epochs.
        num_steps: steps of the whole training.

    Raises:
        FloatingPointError: the loss is not finite; the weights are those before that step.
    """
    network.train()
    for step, (images, targets) in enumerate(batches, first_step):
        schedule.set_step(optimizer, step, num_steps)
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
