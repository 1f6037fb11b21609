"""What IRNet's and AffinityNet's trainings share: crops of masks, pairs of cells, and judging."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from rayseg.learn.batches import LabelledCrops, labelled_batches
from rayseg.learn.crops import PairCrops
from rayseg.learn.judging import judged_images
from rayseg.learn.order import DrawOrder
from rayseg.learn.schedules import PolySGD
from rayseg.learn.training import Batch, LearnsFrom, Length, Share, Training, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, check_stride, keep_depthwise_float
from rayseg.nets.losses import labels_on_grid
from rayseg.nets.pair_losses import PairLabels, Terms, check_room
from rayseg.nets.taps import grid_of
from rayseg.records import Sample


@dataclass(frozen=True)
class PairTraining(Training):
    """A network that tells whether near cells are of one class, and how it is trained.

    Attributes:
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each cell of the trunk's features: 8, 16 or 32; some have 8 only.
        radius: Distance in cells that no pair reaches.
        epochs: Passes over the images.
        iterations: Steps after which the training ends before its epochs do; 0 is no limit.
        crops: How images are cut.
    """

    trunk: Trunk = "resnet50"
    stride: Literal[8, 16, 32] = 16
    radius: int = 5
    epochs: int = 3
    iterations: int = 0
    crops: PairCrops = PairCrops()
    schedule: PolySGD = PolySGD()

    learns_from: ClassVar[LearnsFrom] = "masks"
    # two sides that agree on no pixel of an image leave such a mask
    expects_unlabelled: ClassVar[bool] = True
    cell: ClassVar[int]
    """Image pixels of a cell of the network's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(epochs=1, iterations=0, radius=2)
        check_stride(self.trunk, self.stride)
        check_room(self.crops.crop // self.cell, self.radius)

    @classmethod
    def as_written(cls) -> Self:
        """The same: where the dissertation is silent, the code's values stand."""
        return cls()

    def length(self, num_images: int) -> Length:
        """All epochs, of whole batches only, or fewer steps where they are limited."""
        epoch = max(num_images // self.batch_size, 1)
        steps = self.epochs * epoch
        return Length(min(steps, self.iterations or steps), epoch)

    def order(self, num_images: int, first_step: int, rank: int, world: int) -> DrawOrder:
        """A worker's draws from a step on."""
        return DrawOrder(
            num_images, self.batch_size, first_step, self.length(num_images).steps, self.seed,
            rank, world,
        )  # fmt: skip

    def check(self, num_images: int, workers: int) -> None:
        """Refuses batches that the workers cannot share."""
        self.order(num_images, 0, 0, workers)

    def place_on(self, device: torch.device, network: nn.Module) -> nn.Module:
        """Channels last on a GPU; on a CPU depthwise convolutions stay in float32."""
        network = network.to(device)
        if device.type == "cpu":
            keep_depthwise_float(network)
            return network
        return network.to(memory_format=torch.channels_last)

    def batches(
        self, work: Work, samples: Sequence[Sample], first_step: int, worker: Worker
    ) -> Iterator[Batch]:
        """Crops of images and of their masks."""
        crops = LabelledCrops(samples, work.labels, self.crops, self.seed)
        order = self.order(len(samples), first_step, worker.rank, worker.world)
        for images, labels, ids in labelled_batches(crops, order, work.loader_workers):
            yield (
                images.to(worker.device, non_blocking=True).contiguous(
                    memory_format=torch.channels_last
                ),
                labels.to(worker.device, non_blocking=True),
                list(ids),
            )

    def losses(self, model: nn.Module, batch: Batch, dtype: torch.dtype) -> Mapping[str, Share]:
        """Each loss a mean over the pairs of its kind of all workers' shares together."""
        images, labels, _ = batch
        with torch.autocast(images.device.type, dtype, dtype != torch.float32):
            outputs = model(images)
        terms = self.terms(outputs, labels)
        return {name: Share(total[None], count[None]) for name, (total, count) in terms.items()}

    @abstractmethod
    def terms(self, outputs: Any, labels: Integer[Tensor, "n h w"]) -> Terms:
        """The losses of what the network gives for crops of such labels."""

    @abstractmethod
    def affinities(self, outputs: Any) -> Float[Tensor, "n p s"]:
        """Of pairs of cells, from what the network gives; in float32."""

    @torch.no_grad()
    def judge(self, network: nn.Module, work: Work, worker: Worker, last: bool) -> dict[str, Any]:
        """The share of pairs that an affinity of a half parts as true labels do.

        Alike and different pairs weigh the same, as in the loss, so that a network that has learnt
        nothing has a half. Over some images with a true mask, evenly spread; of each the upper left
        of a crop's size, as the network saw it in training.
        """
        counts = torch.zeros(7, dtype=torch.int64)
        training = network.training
        network.eval()
        for pixels, truth in judged_images(work, worker):
            counts += torch.tensor([*self._correct_pairs(network, pixels, truth, worker), 1])
        network.train(training)
        *pairs, images = worker.add(counts.to(worker.device)).tolist()
        background, foreground, different = (
            [right / of] if of else [] for right, of in zip(pairs[::2], pairs[1::2], strict=True)
        )
        sides = [sum(side) / len(side) for side in (background + foreground, different) if side]
        return {"accuracy": sum(sides) / len(sides), "images": images} if sides else {}

    def _correct_pairs(
        self, network: nn.Module, pixels: np.ndarray, truth: np.ndarray, worker: Worker
    ) -> list[int]:
        """Pairs that are parted correctly and all of them, for each kind."""
        image, labels = self.crops.corner(pixels), self.crops.corner_labels(truth)
        alike = self.affinities(network(torch.from_numpy(image)[None].to(worker.device))) > 0.5
        small = labels_on_grid(torch.from_numpy(labels)[None], grid_of(labels.shape, self.cell))
        known = PairLabels.of(small.to(worker.device), self.radius)
        kinds = (known.background, known.foreground, known.different)
        right = (alike, alike, ~alike)
        return [
            int(number)
            for kind, told in zip(kinds, right, strict=True)
            for number in ((kind & told).sum(), kind.sum())
        ]

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> str:
        """The last loss, the number of iterations and of images, and the share of pairs."""
        last = facts["curve"][-1]
        judged = [f", {100 * one['accuracy']:.1f} % of pairs" for one in facts["judged"][-1:]]
        return (
            f"loss {last['loss']:.3f} after {last['iteration']} iterations "
            f"on {facts['images']} images{''.join(judged)}"
        )
