"""Steps of a training on stand-ins for networks and batches, without folders."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from rayseg.learn import Length, Worker
from rayseg.learn.loop import Course
from rayseg.learn.state import TrainingState

ALONE = Worker()


@dataclass(frozen=True)
class Told(Worker):
    """A worker of whom it is told what all have together."""

    together: Any = None

    def add(self, tensor):
        return self.together(tensor)


class TwoLayers(nn.Module):
    def __init__(self, inputs=3 * 4 * 4, classes=2):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 8), nn.ReLU())
        self.head = nn.Linear(8, classes)

    def forward(self, images):
        return self.head(self.trunk(images))


def separable_batches():
    """Batches whose classes are bright in the first or the second channel."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.randint(0, 2, (10, 8, 2), generator=generator).float()
    noise = torch.randn(10, 8, 3, 4, 4, generator=generator) / 2
    noise[:, :, :2] += (2 * targets - 1)[..., None, None]
    return list(zip(noise, targets, strict=True))


def course(training, network, steps, epoch=1, worker=ALONE, optimizer=None):
    """The course of a training of so many steps."""
    optimizer = optimizer or training.schedule.optimizer(network)
    work, length = SimpleNamespace(training=training), Length(steps, epoch)
    return Course(work, worker, network, optimizer, length, TrainingState())


def taken(training, network, given, steps, first=0, **options):
    """What the steps from the first to the last say of their losses."""
    one, batches = course(training, network, steps, **options), iter(given)
    return [one.take_step(network, batches, step) for step in range(first, steps)]


def losses_of(*arguments, **options):
    """As `taken`, the whole losses only."""
    return [one["loss"] for one in taken(*arguments, **options)]
