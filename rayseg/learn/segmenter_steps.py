"""Steps of a segmenter's training; batches come from whoever has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from rayseg.learn.schedules import SegmenterSGD
from rayseg.nets.losses import segmentation_loss

LabelledBatch = tuple[Float[Tensor, "n 3 s s"], UInt8[Tensor, "n s s"], list[str]]


@dataclass(frozen=True)
class Workers:
    """Those who train together, each on its share of every batch.

    Attributes:
        number: of them.
        add: sums a tensor over all of them.
    """

    number: int = 1
    add: Callable[[Tensor], Tensor] = lambda tensor: tensor


class NotFinite(FloatingPointError):
    """The loss is not a finite number.

    Attributes:
        step: at which it is not, counted from 0.
        value: of the loss.
        ids: this worker's images of the batch.
    """

    def __init__(self, step: int, value: float, ids: list[str]):
        super().__init__(f"loss must be finite, got {value} at iteration {step + 1} on {ids}")
        self.step, self.value, self.ids = step, value, ids


@dataclass(frozen=True)
class SegmenterSteps:
    """How a segmenter is trained from one step to the next.

    The loss of a batch is the sum over the network's outputs, for DeepLab-v2 those of three input
    scales and their maximum. Each is a mean over the pixels (or, balanced, the images) of all
    workers' shares together, so that the number of workers changes nothing but rounding, unless the
    network itself looks at its share of a batch: trained batch normalisation and dropout do. With
    several batches a step their losses are averaged, as deeplab-pytorch does.

    Attributes:
        schedule: sets the learning rates before each step.
        num_steps: of the whole training.
        accumulate: batches whose gradients make one step.
        balanced: background and foreground weigh the same; see `segmentation_loss`.
        dtype: of the network's activations; its weights and the loss are float32.
        seed: of what is random in the network, such as dropout.
    """

    schedule: SegmenterSGD
    num_steps: int
    accumulate: int = 1
    balanced: bool = False
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def run(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[LabelledBatch],
        first_step: int = 0,
        workers: Workers = Workers(),
    ) -> Iterator[float]:
        """Trains from a step to the last and yields the loss of each, over all workers.

        Args:
            model: images to a list of logits; changed in place. May be wrapped for distributed
                training, its gradients then being averaged over the workers.
            optimizer: of the network.
            batches: normalised images, labels and ids on the network's device; `accumulate` of them
                make a step.
            first_step: steps taken already.
            workers: who else trains.

        Raises:
            NotFinite: on all workers at once.
        """
        for step in range(first_step, self.num_steps):
            self.schedule.set_step(optimizer, step, self.num_steps)
            torch.manual_seed(self.seed * 1_000_003 + step)
            optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for part in range(self.accumulate):
                images, labels, ids = next(batches)
                with _gathering(model, part, self.accumulate):
                    share, value = self._loss(model, images, labels, workers)
                    if not torch.isfinite(torch.tensor(value)):
                        raise NotFinite(step, value, ids)
                    (share / self.accumulate).backward()
                total += value / self.accumulate
            optimizer.step()
            yield total

    def _loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, workers: Workers
    ) -> tuple[Tensor, float]:
        """What this worker differentiates, and the loss over all workers."""
        with torch.autocast(images.device.type, self.dtype, self.dtype != torch.float32):
            outputs = model(images)
        terms = [segmentation_loss(logits, labels, self.balanced) for logits in outputs]
        sums = torch.stack([term for term, _ in terms])
        counts = torch.stack([count for _, count in terms]).to(sums)
        whole_sums, whole_counts = workers.add(torch.stack([sums.detach(), counts]))
        means = sums / whole_counts.clamp(min=1)
        value = float((whole_sums / whole_counts.clamp(min=1)).sum())
        return means.sum() * workers.number, value


def _gathering(model: nn.Module, part: int, parts: int) -> AbstractContextManager[None]:
    """Gradients travel between workers with a step's last batch only."""
    if part < parts - 1 and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()
