"""Optimisers with their schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

Rule = Literal["sgd", "adam"]


class Schedule(ABC):
    """An optimiser and how fast it learns at each step."""

    @abstractmethod
    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the network's parameters that require a gradient."""

    @abstractmethod
    def factor(self, step: int, num_steps: int, steps_per_epoch: int = 1) -> float:
        """The share of the learning rates at a step, counted from 0 over the whole training."""

    def set_step(
        self, optimizer: torch.optim.Optimizer, step: int, num_steps: int, steps_per_epoch: int = 1
    ) -> None:
        """Sets the learning rates of the step, counted from 0 over the whole training."""
        factor = self.factor(step, num_steps, steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor


@dataclass(frozen=True)
class PolySGD(Schedule):
    """Stochastic gradient descent under a polynomial schedule, with a faster head.

    The default is the authors' public code (``official``): its optimiser passes the weight decay
    in the place of the momentum, so that 1e-4 is the momentum that the published numbers were
    trained with (METHODS 0.1). lr 0.1 works because of it; with momentum 0.9 take a tenth. The
    dissertation says nothing of either, so that no training's ``as_written`` changes them.

    Attributes:
        lr: Learning rate of the trunk at the start.
        head_factor: The head learns this many times faster.
        momentum: Momentum of the gradient.
        weight_decay: Weight decay of all weights.
        power: Exponent of the rate's decay, lr * (1 - step / steps) ** power.
        rule: How steps follow from gradients: sgd, or adam with torch's betas in place of the
            momentum, which learns faster from random weights.
    """

    lr: float = 0.1
    head_factor: float = 10.0
    momentum: float = 1e-4
    weight_decay: float = 1e-4
    power: float = 0.9
    rule: Rule = field(default="sgd", metadata={"new": True})

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the network's parameters that require a gradient."""
        groups = _trunk_and_head(network, self.lr, self.head_factor)
        return _ruled(self.rule, groups, self.lr, self.momentum, self.weight_decay)

    def factor(self, step: int, num_steps: int, steps_per_epoch: int = 1) -> float:
        """The share of the learning rates at a step, counted from 0 over the whole training."""
        del steps_per_epoch  # the polynomial looks at the end only
        return max(1 - step / num_steps, 0.0) ** self.power


@dataclass(frozen=True)
class HalvedAdam(Schedule):
    """Adam whose learning rate is halved every few epochs.

    Source: Lee et al., CVPR 2019 (FickleNet), recalled (METHODS 7): there is no public code, and
    the dissertation gives no constants.

    Attributes:
        lr: Learning rate of the trunk at the start.
        head_factor: The head learns this many times faster.
        every: Epochs between two halvings.
        weight_decay: Weight decay of all weights, added to the gradient.
    """

    lr: float = 1e-3
    head_factor: float = 1.0
    every: int = 10
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check_pace(self.lr, self.every, "epochs")

    def optimizer(self, network: nn.Module) -> torch.optim.Adam:
        """The optimiser over the network's parameters that require a gradient."""
        groups = _trunk_and_head(network, self.lr, self.head_factor)
        return torch.optim.Adam(groups, lr=self.lr, weight_decay=self.weight_decay)

    def factor(self, step: int, num_steps: int, steps_per_epoch: int = 1) -> float:
        """The share of the learning rates at a step, counted from 0 over the whole training."""
        del num_steps  # halving does not look at the end
        return 0.5 ** (step // steps_per_epoch // self.every)


@dataclass(frozen=True)
class ThreeGroupSGD(Schedule):
    """Stochastic gradient descent as DeepLab is trained, in three groups.

    The trunk's convolutions learn at lr; the head's weights at lr * head_factor; its biases at
    lr * bias_factor without weight decay. Batch normalisation of the trunk learns at lr where it
    is trained at all.

    Attributes:
        lr: Learning rate of the trunk at the start.
        head_factor: The head's weights learn this many times faster.
        bias_factor: The head's biases learn this many times faster.
        momentum: Momentum of the gradient.
        weight_decay: Weight decay of all but the head's biases.
        rule: How steps follow from gradients: sgd, or adam with torch's betas in place of the
            momentum, which learns faster from random weights.
    """

    lr: float = 2.5e-4
    head_factor: float = 10.0
    bias_factor: float = 20.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    rule: Rule = field(default="sgd", metadata={"new": True})

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser over the network's parameters that require a gradient."""

        def kind(name: str) -> str:
            if not name.startswith("head."):
                return "trunk"
            return "bias" if name.endswith(".bias") else "weight"

        factors = {"trunk": 1.0, "weight": self.head_factor, "bias": self.bias_factor}
        groups = _groups(network, kind, self.lr, factors)
        return _ruled(self.rule, groups, self.lr, self.momentum, self.weight_decay)


@dataclass(frozen=True)
class SegmenterSGD(ThreeGroupSGD):
    """Stochastic gradient descent as DeepLab-v2 is trained.

    Source: Chen et al., TPAMI 2018 (DeepLab-v2), in the values of deeplab-pytorch (METHODS 10). Its
    schedule counts from 1, so that the first nine of its steps are at lr; ours the first ten.

    Attributes:
        power: Exponent of the rate's decay, lr * (1 - step / steps) ** power.
        every: Steps between two changes of the learning rate.
    """

    power: float = 0.9
    every: int = 10

    def __post_init__(self) -> None:
        _check_pace(self.lr, self.every, "steps")

    def factor(self, step: int, num_steps: int, steps_per_epoch: int = 1) -> float:
        """The share of the learning rates at a step, counted from 0 over the whole training."""
        del steps_per_epoch  # the polynomial looks at the end only
        return (1 - (step - step % self.every) / num_steps) ** self.power


@dataclass(frozen=True)
class StepSGD(ThreeGroupSGD):
    """Stochastic gradient descent as DSRG is trained.

    Source: METHODS 8. The factors of the head are DeepLab's, recalled, whose code has them on fc8
    alone; here the whole head starts at random and has them.

    Attributes:
        drop_factor: Factor of the learning rate at each drop.
        every: Steps between two drops of the learning rate.
    """

    lr: float = 5e-4
    drop_factor: float = 0.33
    every: int = 1000

    def __post_init__(self) -> None:
        _check_pace(self.lr, self.every, "steps")

    def factor(self, step: int, num_steps: int, steps_per_epoch: int = 1) -> float:
        """The share of the learning rates at a step, counted from 0 over the whole training."""
        del num_steps, steps_per_epoch  # drops are counted in steps
        return self.drop_factor ** (step // self.every)


@dataclass(frozen=True)
class DetectorSGD(Schedule):
    """Stochastic gradient descent as maskrcnn-benchmark trains detectors.

    The learning rate rises linearly, then falls at shares of the training: its 12,000 and 16,000 of
    18,000 iterations are two thirds and eight ninths, so that a training of another length keeps
    its shape. The warm-up is counted in iterations, since what it waits for does not depend on the
    length; it must end before a short training does to have any sense.

    Source: BBAM's public configuration (METHODS 9) over maskrcnn-benchmark's defaults.

    Attributes:
        lr: Learning rate of the weights after the warm-up.
        bias_factor: Biases learn this many times faster, without weight decay.
        momentum: Momentum of the gradient.
        weight_decay: Weight decay of all but biases.
        warmup_steps: Number of warm-up steps; 0 for none.
        warmup_start: Share of the learning rate that the first step has.
        drops: Shares of the training after which the learning rate falls, ascending.
        drop_factor: Factor of the learning rate at each drop.
        max_norm: Gradients longer than this all together are scaled down to it; 0 never does.
    """

    lr: float = 0.01
    bias_factor: float = 2.0
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 500
    warmup_start: float = 1 / 3
    drops: tuple[float, ...] = (2 / 3, 8 / 9)
    drop_factor: float = 0.1
    max_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        if self.warmup_steps < 0 or not 0 <= self.warmup_start <= 1:
            raise ValueError(
                "warmup_steps must be 0 or more and warmup_start lie in [0, 1], got "
                f"{self.warmup_steps}, {self.warmup_start}"
            )
        if list(self.drops) != sorted(self.drops) or not all(0 < one < 1 for one in self.drops):
            raise ValueError(f"drops must ascend between 0 and 1, got {self.drops}")
        if self.max_norm < 0:
            raise ValueError(f"max_norm must be 0 or more, got {self.max_norm}")

    def optimizer(self, network: nn.Module) -> torch.optim.SGD:
        """The optimiser over the network's parameters that require a gradient."""

        def kind(name: str) -> str:
            return "bias" if name.rpartition(".")[2] == "bias" else "weight"

        groups = _groups(network, kind, self.lr, {"weight": 1.0, "bias": self.bias_factor})
        return torch.optim.SGD(groups, self.lr, self.momentum, weight_decay=self.weight_decay)

    def factor(self, step: int, num_steps: int, steps_per_epoch: int = 1) -> float:
        """The share of the learning rates at a step, counted from 0 over the whole training."""
        del steps_per_epoch  # shares of the training say when it falls
        begun = min(step / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        fallen = sum(step >= round(share * num_steps) for share in self.drops)
        return (self.warmup_start * (1 - begun) + begun) * self.drop_factor**fallen


def _ruled(
    rule: Rule, groups: list[dict[str, Any]], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    if rule == "adam":
        return torch.optim.Adam(groups, lr, weight_decay=weight_decay)
    return torch.optim.SGD(groups, lr, momentum, weight_decay=weight_decay)


def _trunk_and_head(network: nn.Module, lr: float, head_factor: float) -> list[dict[str, Any]]:
    factors = {"trunk": 1.0, "head": head_factor}
    return _groups(network, _part, lr, factors)


def _part(name: str) -> str:
    own = name.removeprefix("module.").partition(".")[0]  # torch wraps a distributed one
    return "head" if own.endswith("head") else "trunk"


def _groups(
    network: nn.Module, kind: Callable[[str], str], lr: float, factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The trained parameters by their kind; those of kind ``bias`` have no weight decay."""
    trained = [(kind(name), p) for name, p in network.named_parameters() if p.requires_grad]
    return [
        {"params": [p for own, p in trained if own == one], "base_lr": lr * factor}
        | ({"weight_decay": 0.0} if one == "bias" else {})
        for one, factor in factors.items()
        if any(own == one for own, _ in trained)
    ]


def _check_pace(lr: float, every: int, unit: str) -> None:
    if lr <= 0:
        raise ValueError(f"lr must be positive, got {lr}")
    if every < 1:
        raise ValueError(f"every must be 1 or more {unit}, got {every}")
