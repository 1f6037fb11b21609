"""Steps of the training of networks that find objects: detectors and Mask R-CNNs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from rayseg.learn.segmenter_steps import NotFinite, Workers

ObjectBatch = tuple[list[UInt8[Tensor, "3 h w"]], list[dict[str, Tensor]], list[str]]
_ALONE = Workers()


@dataclass(frozen=True)
class DetectorSGD:
    """Stochastic gradient descent as maskrcnn-benchmark trains detectors.

    The learning rate rises linearly, then falls at shares of the training: its 12,000 and 16,000 of
    18,000 iterations are two thirds and eight ninths, so that a training of another length keeps
    its shape. The warm-up is counted in iterations, since what it waits for does not depend on the
    length; it must end before a short training does to have any sense.

    Source: BBAM's public configuration (METHODS 9) over maskrcnn-benchmark's defaults.

    Attributes:
        lr: learning rate of the weights after the warm-up.
        bias_factor: biases learn this many times faster, without weight decay.
        momentum: of the gradient.
        weight_decay: of all but biases.
        warmup_steps: steps of the warm-up; 0 for none.
        warmup_start: the first step's share of the learning rate.
        drops: shares of the training after which the learning rate falls, ascending.
        drop_factor: what it is then multiplied by.
        max_norm: gradients longer than this all together are scaled down to it; 0 for never.
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
        trained = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {
                "params": [p for n, p in trained if not _is_bias(n)],
                "base_lr": self.lr,
            },
            {
                "params": [p for n, p in trained if _is_bias(n)],
                "base_lr": self.lr * self.bias_factor,
                "weight_decay": 0.0,
            },
        ]
        return torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def factor(self, step: int, num_steps: int) -> float:
        """The share of the learning rate at a step, counted from 0."""
        begun = min(step / self.warmup_steps, 1.0) if self.warmup_steps else 1.0
        fallen = sum(step >= round(share * num_steps) for share in self.drops)
        return (self.warmup_start * (1 - begun) + begun) * self.drop_factor**fallen

    def set_step(self, optimizer: torch.optim.Optimizer, step: int, num_steps: int) -> None:
        """Sets the learning rates of the step, counted from 0."""
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * self.factor(step, num_steps)


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"


@dataclass(frozen=True)
class ObjectSteps:
    """How a network that finds objects is trained from one step to the next.

    The network says its losses, each a mean over this worker's share of the batch, and their sum is
    minimised. The shares being of one size, the mean over workers is that over the whole batch
    where a loss is a mean over images. torchvision's draw the anchors and proposals that they look
    at: other draws for two workers than for one, though of equal chances.

    Attributes:
        schedule: sets the learning rates before each step.
        num_steps: of the whole training.
        dtype: of the activations in the lowered parts of the network; weights, boxes and losses
            are float32.
        seed: of what is random in the network.
        rank: of this worker, so that each draws its own.
    """

    schedule: DetectorSGD
    num_steps: int
    dtype: torch.dtype = torch.float32
    seed: int = 0
    rank: int = 0

    def run(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[ObjectBatch],
        first_step: int = 0,
        workers: Workers = _ALONE,
        lowered: Sequence[nn.Module] = (),
    ) -> Iterator[dict[str, float]]:
        """Trains from a step to the last and yields the losses of each, over all workers.

        Args:
            model: images as floats in [0, 1] and targets to a dictionary of losses; changed in
                place. May be wrapped for distributed training, its gradients then being averaged
                over the workers.
            optimizer: of the network.
            batches: images, targets and ids on the network's device; one a step.
            first_step: steps taken already.
            workers: who else trains.
            lowered: parts of the model that compute in `dtype`, and answer in float32.

        Yields:
            ``loss`` and the parts that it is the sum of, by their names.

        Raises:
            NotFinite: on all workers at once.
        """
        for step in range(first_step, self.num_steps):
            self.schedule.set_step(optimizer, step, self.num_steps)
            torch.manual_seed(_draw_seed(self.seed, step, self.rank))
            images, targets, ids = next(batches)
            planes = [image.float() / 255 for image in images]
            with lower_precision(lowered, self.dtype):
                parts: dict[str, Tensor] = model(planes, targets)
            own = torch.stack(list(parts.values()))  # (parts,)
            means = workers.add(own.detach().float()) / workers.number
            value = float(means.sum())
            if not np.isfinite(value):
                raise NotFinite(step, value, ids)
            optimizer.zero_grad(set_to_none=True)
            own.sum().backward()
            if self.schedule.max_norm:
                nn.utils.clip_grad_norm_(model.parameters(), self.schedule.max_norm)
            optimizer.step()
            yield {"loss": value} | dict(zip(parts, means.tolist(), strict=True))


def _draw_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])


@contextmanager
def lower_precision(modules: Sequence[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Modules compute in that type within, and answer in float32; float32 changes nothing.

    Anchors take the type of the features that they are laid over, and bf16 knows no odd number of
    pixels above 256: what leaves these modules must be float32 again.
    """
    if dtype == torch.float32:
        yield
        return
    entered: list[torch.autocast] = []

    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        device = next(module.parameters()).device.type
        entered.append(torch.autocast(device, dtype))
        entered[-1].__enter__()

    def leave(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Any:
        entered.pop().__exit__(None, None, None)
        return _float(outputs)

    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        yield


def _float(outputs: Any) -> Any:
    if isinstance(outputs, Tensor):
        return outputs.float() if outputs.is_floating_point() else outputs
    if isinstance(outputs, dict):
        return type(outputs)((name, _float(one)) for name, one in outputs.items())
    if isinstance(outputs, list | tuple):
        return type(outputs)(_float(one) for one in outputs)
    return outputs
