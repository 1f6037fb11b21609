"""The training of a segmenter on masks, pseudo or true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn

from rayseg.labels import Truths
from rayseg.learn.batches import LabelledCrops, labelled_batches
from rayseg.learn.crops import SegmentationCrops
from rayseg.learn.order import DrawOrder
from rayseg.learn.schedules import SegmenterSGD
from rayseg.learn.training import Batch, LearnsFrom, Length, Share, Training, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, check_stride, freeze_normalisation, keep_depthwise_float
from rayseg.nets.deeplab import Segmenter, segmenter_facts
from rayseg.nets.losses import segmentation_loss
from rayseg.nets.prediction import Prediction
from rayseg.records import Sample
from rayseg.records.images import ImageError, decode_image
from rayseg.scores import Confusion
from rayseg.store import local_copy, read_file, read_manifest


@dataclass(frozen=True)
class SegmenterTraining(Training):
    """A segmenter and its training.

    The defaults are what the dissertation's author used for AdvCAM and RIB (official); the preset
    ``as_written`` is DeepLab-v2 with the "default settings" that the text names, which are those of
    deeplab-pytorch. They differ in the loss, the steps, the scales and the batches of a step
    (METHODS 10), and the loss is worth points.

    Attributes:
        network: Segmenter to train: deeplab_v2 (summed ASPP) or deeplab_v3 (torchvision's head).
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each cell of the logits: 8 or 16.
        input_scales: The network sees the image at these and takes the maximum; (1.0,) for one.
        weights: Where the trunk starts: none, a torchvision weight set such as IMAGENET1K_V1, a
            path, or classifier for the trunk of the run's own.
        batch_norm: Batch normalisation of the trunk: frozen keeps statistics, scale and shift of
            the weights; trained learns them; auto freezes them where there are weights.
        iterations: Number of training steps.
        batch_size: Images in each step, over all workers.
        accumulate: Batches that a step is cut into, to save memory.
        loss: Cross entropy over pixels, or balanced: background and foreground weigh the same.
        crops: How images are cut.
        schedule: Settings of the optimiser.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which each checkpoint is judged; 0 for none.
        seed: Seed of the head, the order and the crops.
    """

    network: Literal["deeplab_v2", "deeplab_v3"] = "deeplab_v2"
    trunk: Trunk = "resnet101"
    stride: Literal[8, 16] = 8
    input_scales: tuple[float, ...] = (1.0, 0.75, 0.5)
    iterations: int = 30_000
    batch_size: int = 10
    accumulate: int = 1
    loss: Literal["cross_entropy", "balanced"] = "balanced"
    crops: SegmentationCrops = SegmentationCrops(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0))
    schedule: SegmenterSGD = SegmenterSGD()

    makes: ClassVar[str] = "segmenter"
    field: ClassVar[str] = "segmenter"
    learns_from: ClassVar[LearnsFrom] = "masks"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(iterations=1, accumulate=1)
        if self.input_scales[:1] != (1.0,) or min(self.input_scales) <= 0:
            raise ValueError(
                f"input_scales must be positive and begin with 1, got {self.input_scales}"
            )
        check_stride(self.trunk, self.stride)
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size must divide by accumulate, got {self.batch_size}, {self.accumulate}"
            )

    @classmethod
    def as_written(cls) -> SegmenterTraining:
        """DeepLab-v2 as deeplab-pytorch trains it."""
        return replace(
            cls(), loss="cross_entropy", iterations=20_000, accumulate=2, crops=SegmentationCrops()
        )

    @property
    def parts(self) -> int:
        """Batches whose gradients make one step; their losses are averaged."""
        return self.accumulate

    def length(self, num_images: int) -> Length:
        """So many iterations, whatever the images."""
        return Length(self.iterations, max(num_images // self.batch_size, 1))

    def order(self, num_images: int, first_step: int, rank: int, world: int) -> DrawOrder:
        """A worker's draws from a step on."""
        return DrawOrder(
            num_images, self.batch_size // self.accumulate, first_step * self.accumulate,
            self.iterations * self.accumulate, self.seed, rank, world,
        )  # fmt: skip

    def check(self, num_images: int, workers: int) -> None:
        """Refuses batches that the workers cannot share, or too small for deeplab_v3."""
        self.order(num_images, 0, 0, workers)
        share = self.batch_size // self.accumulate // workers
        if self.network == "deeplab_v3" and share < 2:
            raise ValueError(
                "deeplab_v3 must have 2 or more images a batch and worker for its batch "
                f"normalisation, got {share}"
            )

    def build(self, classes: Sequence[str]) -> Segmenter:
        """The segmenter before its first step."""
        torch.manual_seed(self.seed)  # the head's random start
        network = Segmenter(
            self.network, self.trunk, len(classes) + 1, self.stride, local_copy(self.weights),
            self.input_scales, self.frozen_statistics,
        )  # fmt: skip
        if self.frozen_statistics:
            freeze_normalisation(network.trunk)
        return network

    def place_on(self, device: torch.device, network: nn.Module) -> nn.Module:
        """Channels last on a GPU; on a CPU that costs a copy of every gradient."""
        network = network.to(device)
        if device.type == "cpu":
            keep_depthwise_float(network)
            return network
        return network.to(memory_format=torch.channels_last)

    def reseed(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Dropout follows from the step."""
        torch.manual_seed(self.seed * 1_000_003 + step)

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

    def judge(self, network: nn.Module, work: Work, worker: Worker, last: bool) -> dict[str, Any]:
        """The mean IoU over the labels of some images, evenly spread over those with a truth."""
        samples, truths = self._judged(work)
        if not samples:
            return {}
        prediction = Prediction(precision=self.precision)
        assert isinstance(network, Segmenter)
        lean = prediction.prepare(network, worker.device)
        total, number = Confusion.zeros(len(work.classes)), 0
        for sample in samples[worker.rank :: worker.world]:
            try:
                pixels = decode_image(read_file(sample.path)).pixels
                truth = truths.read(sample.id, pixels.shape[:2])
            except (ImageError, ValueError):
                continue  # the scores name what is wrong with it
            images = torch.from_numpy(pixels[None].copy()).to(worker.device)
            labels = prediction(lean, images)[0].argmax(0).to(torch.uint8).cpu().numpy()
            total, number = total + Confusion.of(truth, labels, len(work.classes)), number + 1
        counts = torch.tensor([number, *total.counts.ravel().tolist()], device=worker.device)
        number, *flat = worker.add(counts).tolist()
        whole = Confusion(np.array(flat, np.int64).reshape(total.counts.shape))
        miou = whole.over(whole.present).as_dict()["iou"]
        return {"miou": miou, "images": number} if miou is not None else {}

    def _judged(self, work: Work) -> tuple[list[Sample], Truths]:
        manifest = read_manifest(work.manifest)
        truths = Truths(manifest)
        if work.val_split not in manifest.table.column("split").to_pylist():
            return [], truths
        samples = [s for s in manifest.select(work.val_split).samples() if s.id in truths.ids]
        wanted = self.judge_images
        return samples[:: -(-len(samples) // wanted)] if samples and wanted else [], truths

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, object]:
        """What `load_segmenter` needs beside the tensors."""
        assert isinstance(network, Segmenter)
        return segmenter_facts(network, classes)

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> str:
        """The last loss, the number of iterations and of images, and the last mean IoU."""
        last = facts["curve"][-1]
        judged = [f", val mIoU {100 * one['miou']:.1f}" for one in facts["judged"][-1:]]
        return (
            f"loss {last['loss']:.3f} after {last['iteration']} iterations "
            f"on {facts['images']} images{''.join(judged)}"
        )
