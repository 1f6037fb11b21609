"""The training of SEAM on tags."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from rayseg.learn.classifier import ClassifierTraining, Frozen
from rayseg.learn.jitter import JitteredCrops
from rayseg.learn.schedules import PolySGD
from rayseg.learn.training import Batch
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, freeze_normalisation, freeze_stages
from rayseg.nets.equivariance import seam_losses
from rayseg.nets.seam import SeamClassifier
from rayseg.store import local_copy

LEAST_CELLS = 8
"""Cells a side that the second look must have: of fewer, maps hardly differ from their mean."""


@dataclass(frozen=True)
class SEAMTraining(ClassifierTraining):
    """SEAM and its training.

    The defaults are the authors' train_SEAM.py (METHODS 2): Wide-ResNet-38, for which torchvision
    has no weights, so that `weights` must name a file; SGD whose momentum is the weight decay (see
    `PolySGD`). Frozen statistics freeze the scale and shift of the normalisation too.

    Attributes:
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each feature cell: 8, 16 or 32; some trunks have 8 only.
        freeze: The last stage that does not train: none, stem, stage1 to stage4.
        weights: The trunk's start: none, a torchvision weight set such as IMAGENET1K_V1, a path, or
            classifier for the trunk of the run's own classifier, which must be of the same trunk.
        epochs: Passes over the images; 0 is 8, and more for few images, up to `least_steps`.
        batch_size: Images in each step, over all workers.
        crops: How images are cut and coloured.
        schedule: Settings of the optimiser; the correlation module learns as fast as the head.
        second_scale: Size of the second look at each crop, as a share of the first.
        hardest_share: The cross loss averages this share of an image's differences, the largest.
        dropout: Chance, in [0, 1), that a channel of the features is left out.
        seed: Seed of the head, the order, the crops and the dropout.
    """

    trunk: Trunk = "wide_resnet38"
    stride: Literal[8, 16, 32] = 8
    freeze: Frozen = "stage1"
    epochs: int = 8
    batch_size: int = 8
    crops: JitteredCrops = JitteredCrops(crop=448, long_side=(448, 768))
    schedule: PolySGD = PolySGD(lr=0.01, momentum=5e-4, weight_decay=5e-4)
    second_scale: float = 0.3
    hardest_share: float = 0.2
    dropout: float = 0.5

    passes: ClassVar[int] = 8
    makes: ClassVar[str] = "seam"
    field: ClassVar[str] = "seam_classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.second_scale <= 1 or not 0 < self.hardest_share <= 1:
            raise ValueError(
                "second_scale and hardest_share must lie in (0, 1], got "
                f"{self.second_scale}, {self.hardest_share}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        self._check_second_look()

    def _check_second_look(self) -> None:
        """Refuses a second look of too few cells.

        Raises:
            ValueError: it names the least scale, or where none will do the least crop.
        """
        crop, least = self.crops.crop, LEAST_CELLS * self.stride
        cells = int(crop * self.second_scale) // self.stride
        if cells >= LEAST_CELLS:
            return
        wanted = f"second_scale must be {math.ceil(100 * least / crop) / 100:g} or more"
        if crop < least:
            wanted = f"crops.crop must be {least} pixels or more"
        raise ValueError(
            f"{wanted}, so that the second look at a crop of {crop} pixels has {LEAST_CELLS} cells "
            f"a side at stride {self.stride}; second_scale {self.second_scale:g} leaves {cells}"
        )

    @classmethod
    def as_written(cls) -> Self:
        """The same: the dissertation takes SEAM as it is."""
        return cls()

    def build(self, classes: Sequence[str]) -> SeamClassifier:
        """SEAM before its first step."""
        torch.manual_seed(self.seed)  # the head's and the correlation module's random start
        network = SeamClassifier(
            self.trunk, len(classes), self.stride, local_copy(self.weights), self.frozen_statistics,
            self.dropout,
        )  # fmt: skip
        if self.weights != "none":
            freeze_stages(network.trunk, self.freeze)
        return freeze_normalisation(network) if self.frozen_statistics else network

    def reseed(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Several workers leave out together what one leaves out."""
        super().reseed(network, step, worker)
        if isinstance(network, SeamClassifier):
            network.reseed(self.seed, step, worker.rank, worker.world)

    def losses(self, model: nn.Module, batch: Batch, dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Cross entropy of the classes and what two looks at an image must have in common."""
        images, targets, _ = batch
        with torch.autocast(images.device.type, dtype, dtype != torch.float32):
            first, second = model(images, (1.0, self.second_scale))
        return seam_losses(first, second, targets, self.hardest_share, self.negative_weight)

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, object]:
        """What `load_seam` needs beside the tensors."""
        return {"network": "seam", **super().facts(network, classes)}
