"""What IRNet's and AffinityNet's trainings share: crops of masks, pairs of cells, and judging."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from rayseg.labels import Truths
from rayseg.learn.batches import LabelledCrops, labelled_batches
from rayseg.learn.crops import PairCrops
from rayseg.learn.order import DrawOrder
from rayseg.learn.schedules import PolySGD
from rayseg.learn.training import Batch, LearnsFrom, Length, Share, Training, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, check_stride, keep_depthwise_float
from rayseg.nets.inputs import normalise
from rayseg.nets.losses import labels_on_grid
from rayseg.nets.pair_losses import PairLabels, Terms, check_room
from rayseg.nets.taps import grid_of
from rayseg.records import Sample
from rayseg.records.images import ImageError, decode_image
from rayseg.store import read_file, read_manifest


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
    cell: ClassVar[int]
    """Image pixels of a cell of the network's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(epochs=1, iterations=0, radius=2)
        check_stride(self.trunk, self.stride)
        check_room(self.crops.crop // self.cell, self.radius)

    @classmethod
    def as_written(cls) -> Self:
        """Momentum as the text has it; everything else is the code's."""
        return replace(cls(), schedule=PolySGD.as_written())

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
        """How many pairs of true labels are told right at an affinity of a half.

        The mean over pairs of background, of one class and of two, over some images with a true
        mask, evenly spread; each image is looked at whole.
        """
        counts = torch.zeros(7, dtype=torch.int64)
        training = network.training
        network.eval()
        for sample in self._judged(work)[worker.rank :: worker.world]:
            try:
                pixels = decode_image(read_file(sample.path), sample.seen_side).pixels
                truth = Truths(read_manifest(work.manifest), ids=[sample.id]).read(
                    sample.id, pixels.shape[:2]
                )
            except (ImageError, ValueError):
                continue  # the scores name what is wrong with it
            counts += torch.tensor([*self._told_right(network, pixels, truth, worker), 1])
        network.train(training)
        *pairs, images = worker.add(counts.to(worker.device)).tolist()
        shares = [right / of for right, of in zip(pairs[::2], pairs[1::2], strict=True) if of]
        return {"accuracy": sum(shares) / len(shares), "images": images} if shares else {}

    def _told_right(
        self, network: nn.Module, pixels: np.ndarray, truth: np.ndarray, worker: Worker
    ) -> list[int]:
        """Pairs that are told right and all of them, for each kind."""
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(worker.device)
        alike = self.affinities(network(normalise(image))) > 0.5
        small = labels_on_grid(torch.from_numpy(truth)[None], grid_of(truth.shape, self.cell))
        known = PairLabels.of(small.to(worker.device), self.radius)
        kinds = (known.background, known.foreground, known.different)
        right = (alike, alike, ~alike)
        return [
            int(number)
            for kind, told in zip(kinds, right, strict=True)
            for number in ((kind & told).sum(), kind.sum())
        ]

    def _judged(self, work: Work) -> list[Sample]:
        manifest = read_manifest(work.manifest)
        if work.val_split not in manifest.table.column("split").to_pylist():
            return []
        truths = Truths(manifest, work.val_split)
        samples = [s for s in manifest.select(work.val_split).samples() if s.id in truths.ids]
        wanted = self.judge_images
        return samples[:: -(-len(samples) // wanted)] if samples and wanted else []

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> str:
        """The last loss, the number of iterations and of images, and the share of pairs."""
        last = facts["curve"][-1]
        judged = [f", {100 * one['accuracy']:.1f} % of pairs" for one in facts["judged"][-1:]]
        return (
            f"loss {last['loss']:.3f} after {last['iteration']} iterations "
            f"on {facts['images']} images{''.join(judged)}"
        )
