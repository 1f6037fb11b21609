"""The training of the CAM classifier on tags."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from rayseg.labels import GivenTags
from rayseg.learn.batches import TaggedCrops, evaluation_batches, training_batches
from rayseg.learn.classifier_scores import ClassifierScores, chance_precision, predict_logits
from rayseg.learn.crops import Crops
from rayseg.learn.order import EpochOrder
from rayseg.learn.schedules import PolySGD
from rayseg.learn.training import COMPARED_AS, Batch, LearnsFrom, Length, Training, Work
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, freeze_stages, keep_depthwise_float
from rayseg.nets.classifier import CamClassifier
from rayseg.nets.inputs import Precision, choose_dtype
from rayseg.nets.losses import multilabel_soft_margin
from rayseg.records import Sample
from rayseg.records.progress import read_progress
from rayseg.store import Folder, local_copy, read_manifest

Frozen = Literal["none", "stem", "stage1", "stage2", "stage3", "stage4"]
NEW: Mapping[str, bool] = {"new": True}
"""Of fields that folders of earlier versions lack; at their defaults they are left out of what a
folder is compared by."""
LONGEST = 500
"""Steps between two checkpoints where `save_every` says no number."""
MANY = 20
"""Images on which a mean average precision must be better than chance; on fewer it says little."""


@dataclass(frozen=True)
class ClassifierTraining(Training):
    """The CAM classifier and its training.

    Attributes:
        trunk: Network that makes the features.
        stride: Image pixels of each feature cell: 8, 16 or 32; some trunks have 8 only.
        weights: The trunk's start: none, a torchvision weight set such as IMAGENET1K_V1, or a path.
        batch_norm: Batch normalisation of the trunk: frozen keeps the statistics of the weights;
            trained learns them; auto freezes them where there are weights.
        freeze: The last stage that does not train: none, stem, stage1 to stage4.
        epochs: Passes over the images; 0 is 5, and more for few images, up to `least_steps`.
        iterations: Steps after which the training ends before its epochs do; 0 is no limit.
        least_steps: Steps that few images get at least, where `epochs` is 0.
        batch_size: Images in each step, over all workers; no more than there are.
        crops: How images are cut.
        schedule: Settings of the optimiser.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints beside those at the ends of epochs; 0 is 500.
        negative_weight: Weight in the loss of images that are known to show none of the classes.
        judge_images: Images of the val split, or of the training split where that has none, on
            which the network is judged after each epoch; 0 for none.
        seed: Seed of the head, the order and the crops.
    """

    trunk: Trunk = "resnet50"
    stride: Literal[8, 16, 32] = 16
    freeze: Frozen = "stem"
    epochs: int = dataclasses.field(default=0, metadata={COMPARED_AS: 5})
    batch_size: int = 16
    crops: Crops = Crops()
    schedule: PolySGD = PolySGD()
    iterations: int = dataclasses.field(default=0, metadata=NEW)
    precision: Precision = dataclasses.field(default="fp32", metadata=NEW)
    log_every: int = dataclasses.field(default=20, metadata=NEW)
    save_every: int = dataclasses.field(default=0, metadata=NEW)
    judge_images: int = dataclasses.field(default=1000, metadata=NEW)
    negative_weight: float = dataclasses.field(default=1.0, metadata=NEW)
    least_steps: int = dataclasses.field(default=200, metadata=NEW)

    makes: ClassVar[str] = "classifier"
    field: ClassVar[str] = "classifier"
    learns_from: ClassVar[LearnsFrom] = "tags"
    passes: ClassVar[int] = 5
    """Over the images, where no number of epochs is asked for."""

    def __post_init__(self) -> None:
        if not 0 <= self.negative_weight < float("inf"):
            raise ValueError(f"negative_weight must be 0 or more, got {self.negative_weight}")
        super().__post_init__()

    def _check_least(self, **least: int) -> None:
        zero = dict.fromkeys(("save_every", "iterations", "epochs"), 0)
        super()._check_least(**least | zero | {"least_steps": 1})

    @classmethod
    def as_written(cls) -> Self:
        """The same: where the dissertation is silent, as it is here, the code's values stand."""
        return cls()

    @property
    def wrapping(self) -> dict[str, Any]:
        """As torch's defaults are."""
        return {}

    def given_labels(self, manifest: Folder, split: str) -> GivenTags:
        """Which images have tags."""
        return GivenTags(manifest, split)

    def fitted(self, num_images: int, workers: int = 1) -> Self:
        """Batches of no more images than there are, and epochs enough for the least steps."""
        batch = self.batch_of(num_images, workers)
        epoch = max(num_images // batch, 1)
        epochs = self.epochs or max(self.passes, -(-self.least_steps // epoch))
        return replace(self, batch_size=batch, epochs=epochs)

    def length(self, num_images: int) -> Length:
        """All epochs, of whole batches only, or fewer steps where they are limited."""
        fit = self.fitted(num_images)
        epoch = max(num_images // fit.batch_size, 1)
        steps = fit.epochs * epoch
        return Length(min(steps, fit.iterations or steps), epoch)

    def saves_after(self, iteration: int, length: Length) -> bool:
        """After each epoch, and in long ones now and then."""
        every = self.save_every or LONGEST
        return iteration % every == 0 or self.judges_after(iteration, length)

    def judges_after(self, iteration: int, length: Length) -> bool:
        """After each epoch."""
        return iteration % length.epoch == 0

    def check(self, num_images: int, workers: int) -> None:
        """Refuses batches that the workers cannot share, or that the images do not fill."""
        EpochOrder(num_images, self.batch_size, 0, self.seed, 0, workers)

    def build(self, classes: Sequence[str]) -> CamClassifier:
        """The classifier before its first step."""
        torch.manual_seed(self.seed)  # the head's random start
        network = CamClassifier(
            self.trunk, len(classes), self.stride, local_copy(self.weights), self.frozen_statistics
        )
        if self.weights != "none":
            freeze_stages(network.trunk, self.freeze)
        return network

    def place_on(self, device: torch.device, network: nn.Module) -> nn.Module:
        """On a CPU depthwise convolutions stay in float32."""
        if device.type == "cpu":
            keep_depthwise_float(network)
        return network.to(device)

    def batches(
        self, work: Work, samples: Sequence[Sample], first_step: int, worker: Worker
    ) -> Iterator[Batch]:
        """Crops and 0/1 targets, epoch after epoch."""
        crops = TaggedCrops(samples, len(work.classes), self.crops, self.seed)
        start, first = divmod(first_step, self.length(len(samples)).epoch)
        for epoch in count(start):
            order = EpochOrder(
                len(samples), self.batch_size, epoch, self.seed, worker.rank, worker.world,
                first if epoch == start else 0,
            )  # fmt: skip
            yield from _on_device(training_batches(crops, order, work.loader_workers), worker)

    def losses(self, model: nn.Module, batch: Batch, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Binary cross entropy of every class."""
        images, targets, _ = batch
        logits = _logits(model, images, dtype)
        return {"loss": multilabel_soft_margin(logits, targets, self.negative_weight)}

    def judge(self, network: nn.Module, work: Work, worker: Worker, last: bool) -> dict[str, Any]:
        """Mean average precision and F1 on the val split's tags, else on the training split's.

        Raises:
            FloatingPointError: a logit is no number.
        """
        split, samples = self._judged(work)
        if not samples:
            return {}
        crops = TaggedCrops(samples, len(work.classes), self.crops, self.seed)
        shares = evaluation_batches(
            crops, self.batch_size, work.loader_workers, worker.rank, worker.world
        )
        dtype = choose_dtype(self.precision, worker.device)
        given = ((images, targets) for images, targets, _ in _on_device(shares, worker))
        none = np.zeros((0, len(work.classes)), np.float32)
        own = (none, none)
        if worker.rank < len(samples):
            own = predict_logits(network, given, lambda images: _logits(network, images, dtype))
        whole = np.empty((2, len(samples), len(work.classes)), np.float32)
        for rank, share in enumerate(worker.gather(own)):
            whole[:, rank :: worker.world] = share
        if not np.isfinite(whole[0]).all():
            raise FloatingPointError(f"logits of the {split} split are not all finite")
        scores = ClassifierScores.of(*whole)
        return {
            "map": scores.mean_average_precision,
            "f1": scores.f1,
            "judged_on": split,
            "images": len(samples),
        } | ({"chance": chance_precision(whole[1])} if last else {})

    def _judged(self, work: Work) -> tuple[str, list[Sample]]:
        manifest = read_manifest(work.manifest)
        for split in (work.val_split, work.train_split):
            if split in manifest.table.column("split").to_pylist():
                tagged = [s for s in manifest.select(split).samples() if s.tags or s.negative]
                if any(one.tags for one in tagged):
                    return split, tagged[: self.judge_images]
        return work.train_split, []

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, object]:
        """Trunk, stride and classes."""
        return {"trunk": self.trunk, "stride": self.stride, "classes": list(classes)}

    def failing(self, facts: Mapping[str, Any]) -> str:
        """That it ranks images no better than chance does."""
        last: Mapping[str, Any] = next(iter((facts.get("judged") or [])[-1:]), {})
        chance = last.get("chance")
        if chance is None or last["images"] < MANY or last["map"] > chance:
            return ""
        return (
            f"mAP {last['map']:.3f} on {last['images']} images of {last['judged_on']} is no better "
            f"than chance, which reaches {chance:.3f}; try another --{self.field_flag}.schedule.lr "
            f"(a tenth of {self.schedule.lr:g} where the loss has risen, "
            f"more --{self.field_flag}.epochs where it still falls)"
        )

    @classmethod
    def summary(cls, facts: Mapping[str, Any]) -> str:
        """The last loss, what it was judged at, and how long it was trained."""
        progress = read_progress(facts)
        judged = "".join(
            f", mAP {one['map']:.3f}, F1 {one['f1']:.3f} on {one['judged_on']}"
            for one in progress.judged[-1:]
        )
        length = f"{progress.epochs} epochs" if progress.epochs else f"{progress.steps} iterations"
        return f"loss {progress.curve[-1]['loss']:.3f}{judged} after {length}"


def _logits(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    with torch.autocast(images.device.type, dtype, dtype != torch.float32):
        logits: Tensor = model(images)
    return logits.float()


def _on_device(batches: Any, worker: Worker) -> Iterator[Batch]:
    for images, targets, ids in batches:
        yield (
            images.to(worker.device, non_blocking=True).contiguous(
                memory_format=torch.channels_last
            ),
            targets.to(worker.device, non_blocking=True),
            ids,
        )
