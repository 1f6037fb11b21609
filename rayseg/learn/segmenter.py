"""The training of a segmenter on masks, pseudo or true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from rayseg.learn.batches import LabelledCrops, labelled_batches
from rayseg.learn.crops import SegmentationCrops
from rayseg.learn.deeplab import DeepLabTraining
from rayseg.learn.order import DrawOrder
from rayseg.learn.schedules import SegmenterSGD
from rayseg.learn.training import COMPARED_AS, Batch, LearnsFrom, Share, Work
from rayseg.learn.worker import Worker
from rayseg.nets.losses import segmentation_loss
from rayseg.records import Sample

PASSES = 29
"""Over the images: 30,000 batches of ten, as the authors took, of VOC's 10,582 images."""


@dataclass(frozen=True)
class SegmenterTraining(DeepLabTraining):
    """A segmenter and its training.

    The defaults are what the dissertation's author used for AdvCAM and RIB (official); the preset
    ``as_written`` is DeepLab-v2 with the "default settings" that the text names, which are those of
    deeplab-pytorch. They differ in the loss, the steps, the scales and the batches of a step
    (METHODS 10), and the loss is worth points.

    Attributes:
        input_scales: The network sees the image at these and takes the maximum; 1.0 for one.
        weights: Where the trunk starts: none, a torchvision weight set such as IMAGENET1K_V1, a
            path, or classifier for the trunk of the run's own.
        batch_norm: Batch normalisation of the trunk: frozen keeps statistics, scale and shift of
            the weights; trained learns them; auto freezes them where there are weights.
        iterations: Number of training steps; 0 is as many as show each image 29 times, between
            `least_steps` and `most_steps`.
        least_steps: Steps that few images get at least, where `iterations` is 0.
        most_steps: Steps that many images get at most, where `iterations` is 0.
        batch_size: Images in each step, over all workers; no more than there are.
        accumulate: Batches that a step is cut into, to save memory.
        loss: Cross entropy over pixels, or balanced: background and foreground weigh the same.
        crops: How images are cut.
        schedule: Settings of the optimiser.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which it is judged every save_every steps and at
            the end; 0 for none.
        seed: Seed of the head, the order and the crops.
    """

    iterations: int = field(default=0, metadata={COMPARED_AS: 30_000})
    input_scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    batch_size: int = 10
    accumulate: int = 1
    loss: Literal["cross_entropy", "balanced"] = "balanced"
    crops: SegmentationCrops = SegmentationCrops(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0))
    schedule: SegmenterSGD = SegmenterSGD()
    least_steps: int = field(default=2_000, metadata={"new": True})
    most_steps: int = field(default=30_000, metadata={"new": True})

    makes: ClassVar[str] = "segmenter"
    field: ClassVar[str] = "segmenter"
    learns_from: ClassVar[LearnsFrom] = "masks"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(accumulate=1, least_steps=1, most_steps=self.least_steps)
        if self.input_scales[:1] != (1.0,) or min(self.input_scales) <= 0:
            raise ValueError(
                f"input_scales must be positive and begin with 1, got {self.input_scales}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must divide by accumulate, got {self.batch_size}, {self.accumulate}"
            )

    def _check_least(self, **least: int) -> None:
        super()._check_least(**least | {"iterations": 0})

    @classmethod
    def as_written(cls) -> SegmenterTraining:
        """DeepLab-v2 as deeplab-pytorch trains it."""
        return replace(
            cls(), loss="cross_entropy", iterations=20_000, accumulate=2, crops=SegmentationCrops()
        )

    @property
    def scales(self) -> tuple[float, ...]:
        """The network's own input scales."""
        return self.input_scales

    @property
    def parts(self) -> int:
        """Batches whose gradients make one step; their losses are averaged."""
        return self.accumulate

    def fitted(self, num_images: int, workers: int = 1) -> Self:
        """Batches of no more images than there are, and steps as the images ask for."""
        share = 2 if self.network == "deeplab_v3" else 1
        batch = self.batch_of(num_images, self.accumulate * workers * share)
        shown = -(-num_images * PASSES // batch)
        steps = self.iterations or min(max(shown, self.least_steps), self.most_steps)
        return replace(self, batch_size=batch, iterations=steps)

    def order(self, num_images: int, first_step: int, rank: int, world: int) -> DrawOrder:
        """A worker's draws from a step on."""
        return DrawOrder(
            num_images, self.batch_size // self.accumulate, first_step * self.accumulate,
            self.iterations * self.accumulate, self.seed, rank, world,
        )  # fmt: skip

    def check(self, num_images: int, workers: int) -> None:
        """Refuses batches that the workers cannot share, or too small for deeplab_v3."""
        self.order(num_images, 0, 0, workers)
        self._check_share(self.batch_size // self.accumulate // workers)

    def batches(
        self, work: Work, samples: Sequence[Sample], first_step: int, worker: Worker
    ) -> Iterator[Batch]:
        """Crops of images and of their labels."""
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
        """The sum over the network's outputs, for DeepLab-v2 those of its scales and their maximum.

        Each is a mean over the pixels (or, balanced, the images) of all workers' shares together,
        so that the number of workers changes nothing but rounding, unless the network itself looks
        at its share of a batch: trained batch normalisation and dropout do.
        """
        images, labels, _ = batch
        with torch.autocast(images.device.type, dtype, dtype != torch.float32):
            outputs = model(images)
        balanced = self.loss == "balanced"
        terms = [segmentation_loss(logits, labels, balanced) for logits in outputs]
        sums, counts = (torch.stack(side) for side in zip(*terms, strict=True))
        return {"loss": Share(sums, counts)}
