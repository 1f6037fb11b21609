"""What the trainings of segmenters share, whatever labels they learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from rayseg.labels import Truths
from rayseg.learn.training import Length, Training, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, check_stride, freeze_normalisation, keep_depthwise_float
from rayseg.nets.deeplab import Segmenter, segmenter_facts
from rayseg.nets.prediction import Prediction
from rayseg.records import Sample
from rayseg.records.images import ImageError, decode_image
from rayseg.scores import Confusion
from rayseg.store import local_copy, read_file, read_manifest


@dataclass(frozen=True)
class DeepLabTraining(Training):
    """A segmenter on any trunk, and how it is built, judged and stored.

    Attributes:
        network: Head of the segmenter: deeplab_v2 (summed ASPP), deeplab_v2_fc (fc6 to fc8 in each
            branch, as on VGG-16) or deeplab_v3 (torchvision's head).
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each cell of the logits: 8 or 16.
        iterations: Number of training steps.
    """

    network: Literal["deeplab_v2", "deeplab_v2_fc", "deeplab_v3"] = "deeplab_v2"
    trunk: Trunk = "resnet101"
    stride: Literal[8, 16] = 8
    iterations: int = 30_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_least(iterations=1)
        check_stride(self.trunk, self.stride)

    def _check_share(self, images: int) -> None:
        if self.network == "deeplab_v3" and images < 2:
            raise ValueError(
                "deeplab_v3 must have 2 or more images a batch and worker for its batch "
                f"normalisation, got {images}"
            )

    @property
    def scales(self) -> tuple[float, ...]:
        """The network's own input scales."""
        return (1.0,)

    @property
    def width(self) -> int:
        """Channels inside the head of deeplab_v2_fc."""
        return 1024

    def length(self, num_images: int) -> Length:
        """So many iterations, whatever the images."""
        return Length(self.iterations, max(num_images // self.batch_size, 1))

    def build(self, classes: Sequence[str]) -> Segmenter:
        """The segmenter before its first step."""
        torch.manual_seed(self.seed)  # the head's random start
        network = Segmenter(
            self.network, self.trunk, len(classes) + 1, self.stride, local_copy(self.weights),
            self.scales, self.frozen_statistics, self.width,
        )  # fmt: skip
        if self.frozen_statistics:
            freeze_normalisation(network.trunk)
        return network

    def reseed(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Dropout follows from the step."""
        del network, worker
        torch.manual_seed(self.seed * 1_000_003 + step)

    def place_on(self, device: torch.device, network: nn.Module) -> nn.Module:
        """Channels last on a GPU; on a CPU that costs a copy of every gradient."""
        network = network.to(device)
        if device.type == "cpu":
            keep_depthwise_float(network)
            return network
        return network.to(memory_format=torch.channels_last)

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
                pixels = decode_image(read_file(sample.path), sample.seen_side).pixels
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
