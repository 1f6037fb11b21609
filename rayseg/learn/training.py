"""What a training is: the contract that one loop trains every network by.

A training is a frozen dataclass, one file a network. Its fields are the settings that a user gives;
its methods say what is special of the network, and nothing of checkpoints, workers or failures,
which are the loop's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from rayseg.learn.schedules import PolySGD, Schedule
from rayseg.learn.worker import Worker
from rayseg.nets.inputs import Precision
from rayseg.records import Sample
from rayseg.records.bounds import check_least
from rayseg.store import Folder, read_manifest
from rayseg.toml import check_literals

Batch = tuple[Any, Any, list[str]]
"""What goes into the network, what it is held against, both on its device, and the images' ids."""
COMPARED_AS = "compared_as"
"""Of a field that fits itself to the data by default: what folders of earlier versions say there,
and what it is on as many images as its default was made for."""
LearnsFrom = Literal["tags", "boxes", "masks", "objects", "cues"]
"""Tags and boxes are the manifest's own; masks, masks of objects and cues have names in the run."""


@dataclass(frozen=True)
class Length:
    """How long a training is.

    Attributes:
        steps: of the whole training.
        epoch: steps of one pass over the images.
    """

    steps: int
    epoch: int


@dataclass(frozen=True)
class Share:
    """This worker's part of a mean over all workers' images, or of several that are added.

    Attributes:
        sums: what is divided, differentiable.
        counts: by what, once both are added over the workers.
    """

    sums: Float[Tensor, " k"]
    counts: Tensor


@dataclass(frozen=True)
class Work:
    """What each worker of a training gets; picklable.

    Attributes:
        run: the run's folder.
        folder: of the network.
        training: the network and how it is trained.
        labels: what it learns from: its `LabelSource`, `ObjectLabels` or `GivenTags`.
        ids: of the images to train on, in the order that draws count in.
        classes: of the run.
        train_split: the images' split.
        val_split: the images that checkpoints are judged on.
        loader_workers: processes that decode ahead for each worker.
    """

    run: str
    folder: str
    training: Training
    labels: Any
    ids: list[str]
    classes: tuple[str, ...]
    train_split: str = "train"
    val_split: str = "val"
    loader_workers: int = 0

    @property
    def manifest(self) -> Folder:
        """Of the run."""
        return Folder(self.run) / "manifest"

    def samples(self) -> list[Sample]:
        """The images to train on, in their order."""
        chosen = read_manifest(self.manifest).select(ids=self.ids)
        by_id = {sample.id: sample for sample in chosen.samples()}
        return [by_id[id_] for id_ in self.ids]


@dataclass(frozen=True)
class Training(ABC):
    """A network and how it is trained.

    Attributes:
        weights: Where the trunk starts: none, a torchvision weight set such as IMAGENET1K_V1, a
            path, or classifier for the trunk of the run's own classifier.
        batch_norm: Batch normalisation of the trunk: frozen keeps statistics, scale and shift of
            the weights; trained learns them; auto freezes them where there are weights.
        batch_size: Images in each step, over all workers.
        schedule: Settings of the optimiser.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which it is judged every save_every steps and at
            the end; 0 for none.
        seed: Seed of the head, the order and whatever is drawn.
    """

    weights: str = "IMAGENET1K_V1"
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    batch_size: int = 16
    schedule: Schedule = PolySGD()
    precision: Precision = "auto"
    log_every: int = 20
    save_every: int = 500
    judge_images: int = 100
    seed: int = 0

    makes: ClassVar[str]
    """The kind of network: its name in TRAININGS, in a folder's identity, and of its file."""
    field: ClassVar[str]
    """The field of a job's configuration that holds it."""
    learns_from: ClassVar[LearnsFrom]
    expects_unlabelled: ClassVar[bool] = False
    """Whether masks of which no pixel counts are nothing unusual in what it learns from."""

    def __post_init__(self) -> None:
        check_literals(self)
        self._check_least(batch_size=1, log_every=1, save_every=1, judge_images=0)

    def _check_least(self, **least: int) -> None:
        check_least(self, **least)

    @property
    def frozen_statistics(self) -> bool:
        """Whether batch normalisation keeps its statistics."""
        return self.weights != "none" if self.batch_norm == "auto" else self.batch_norm == "frozen"

    @property
    def parts(self) -> int:
        """Batches whose gradients make one step."""
        return 1

    @property
    def wrapping(self) -> dict[str, Any]:
        """Options of torch's DistributedDataParallel."""
        return {"broadcast_buffers": not self.frozen_statistics}

    def given_labels(self, manifest: Folder, split: str) -> Any:
        """What it learns from of a manifest itself; None where the labels have names."""
        del manifest, split

    def steps(self, num_images: int) -> int:
        """Of the whole training on so many images."""
        return self.fitted(num_images).length(num_images).steps

    def fitted(self, num_images: int, workers: int = 1) -> Self:
        """The training as it is on so many images, which may be few for what is asked for."""
        del num_images, workers
        return self

    def batch_of(self, num_images: int, unit: int) -> int:
        """The images in a step, of so many in all: whole units, and no more than there are."""
        return max(min(self.batch_size, num_images) // unit * unit, unit)

    def shortened(self, steps: int, num_images: int) -> Self:
        """No more than so many steps on so many images, for measuring how long one takes."""
        del num_images
        iterations = min(getattr(self, "iterations", 0) or steps, steps)
        judged = min(self.judge_images, 2)
        return replace(self, iterations=iterations, judge_images=judged)  # type: ignore[call-arg]

    def suited_to(self, labels: Any) -> Self:
        """The training on such labels, which may leave nothing to some of its settings."""
        del labels
        return self

    def reading(self, labels: Any) -> Any:
        """The labels as this training reads them."""
        return labels

    @abstractmethod
    def length(self, num_images: int) -> Length:
        """How long the training on so many images is."""

    def saves_after(self, iteration: int, length: Length) -> bool:
        """Whether there is a checkpoint; after the last step always, ten in a short one."""
        tenth = min(self.save_every, -(-length.steps // 10))
        return iteration % self.save_every == 0 or iteration % tenth == 0

    def judges_after(self, iteration: int, length: Length) -> bool:
        """Whether that checkpoint is judged; the last always is."""
        del length
        return iteration % self.save_every == 0

    @abstractmethod
    def check(self, num_images: int, workers: int) -> None:
        """Refuses what every worker would fail at."""

    @property
    def remark(self) -> str:
        """What whoever starts it should know of its settings; mostly nothing."""
        return ""

    @abstractmethod
    def build(self, classes: Sequence[str]) -> nn.Module:
        """The network before its first step; the same on every worker."""

    def place_on(self, device: torch.device, network: nn.Module) -> nn.Module:
        """The network as it trains on a device."""
        return network.to(device)

    def reseed(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Sets what is drawn in a step, which so follows from seed, step and worker alone."""
        del network
        state = np.random.SeedSequence([self.seed, step, worker.rank]).generate_state(1, np.uint64)
        torch.manual_seed(int(state[0]))

    @abstractmethod
    def batches(
        self, work: Work, samples: Sequence[Sample], first_step: int, worker: Worker
    ) -> Iterator[Batch]:
        """This worker's share of the batches from a step on, `parts` of them a step."""

    @abstractmethod
    def losses(
        self, model: nn.Module, batch: Batch, dtype: torch.dtype
    ) -> Mapping[str, Tensor | Share]:
        """What is added and minimised, by its names.

        Args:
            model: the network, perhaps wrapped for distributed training.
            batch: this worker's share of one.
            dtype: of the activations; weights and losses are float32.

        Returns:
            Means over this worker's share, all shares being of one size; or a `Share` where what
            they are means over differs.
        """

    def limit_gradients(self, model: nn.Module) -> None:
        """Changes the gradients of a step before it is taken."""
        del model

    def finish(self, network: nn.Module, work: Work, worker: Worker) -> None:
        """Gives the network what it has besides weights, once no step follows; on all workers.

        Args:
            network: not wrapped, in training mode; changed in place, the same on all workers.
        """
        del network, work, worker

    @abstractmethod
    def judge(self, network: nn.Module, work: Work, worker: Worker, last: bool) -> dict[str, Any]:
        """Figures on images of the val split, the same on all workers; empty without any.

        Args:
            network: not wrapped; its mode is put back.
            last: whether no step follows.
        """

    def stored(self, network: nn.Module) -> nn.Module:
        """The network as its file holds it, without what only its training needs."""
        return network

    @abstractmethod
    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, object]:
        """What is stored beside the weights, so that the network can be built again."""

    @property
    def field_flag(self) -> str:
        """Its field as a flag has it, without dashes in front."""
        return self.field.replace("_", "-")

    def failing(self, facts: Mapping[str, Any]) -> str:
        """Why what was learnt is good for nothing, and what to change; empty where it is.

        Args:
            facts: of the finished training.
        """
        del facts
        return ""

    @classmethod
    @abstractmethod
    def summary(cls, facts: Mapping[str, Any]) -> str:
        """What a job prints of a finished training."""
