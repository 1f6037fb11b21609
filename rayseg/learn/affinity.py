"""The training of AffinityNet on masks with ignored pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from rayseg.learn.classifier import Frozen
from rayseg.learn.crops import PairCrops
from rayseg.learn.pairs import PairTraining
from rayseg.learn.schedules import PolySGD
from rayseg.nets.affinity import CELL, AffinityNet, FeatureDistance, affinity_facts
from rayseg.nets.backbones import freeze_stages
from rayseg.nets.pair_losses import (
    PairLabels,
    Terms,
    affinities_of_features,
    affinity_terms,
    distance_terms,
    distances_of_features,
    small_labels,
)
from rayseg.store import local_copy


@dataclass(frozen=True)
class AffinityTraining(PairTraining):
    """AffinityNet and its training.

    Source: Ahn and Kwak, CVPR 2018 (PSA); train_aff.py (METHODS 2). The authors' trunk is
    wide_resnet38, whose weights are a file that you name; resnet50 has torchvision's. They average
    probabilities over a cell where labels are counted here.

    Attributes:
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each cell of the trunk's features: 8, 16 or 32; some have 8 only.
        weights: The trunk's start: none, a torchvision weight set such as IMAGENET1K_V1, a path, or
            classifier for the trunk of the run's own.
        batch_norm: Batch normalisation of the trunk: frozen keeps statistics, scale and shift of
            the weights; trained learns them; auto freezes them where there are weights.
        freeze: The last stage that does not train: none, stem, stage1 to stage4.
        radius: Distance in cells of eight pixels that no pair reaches.
        distance: Two features differ by the mean over their channels, as in the code, or by the
            sum, as in Eq. 2.5.
        cell_label: A cell has the label of most of its pixels (majority), or that of its centre.
        epochs: Passes over the images.
        iterations: Steps after which the training ends before its epochs do; 0 is no limit.
        batch_size: Images in each step, over all workers.
        crops: How images are cut.
        schedule: Settings of the optimiser.
        precision: Number format of the activations; auto is bf16 where the device is fast in it.
        log_every: Steps between two entries of the loss curve.
        save_every: Steps between two checkpoints, the most that a lost worker costs.
        judge_images: Images of the val split on which it is judged every save_every steps and at
            the end; 0 for none.
        seed: Seed of the head, the order and the crops.
    """

    stride: Literal[8, 16, 32] = 8
    epochs: int = 8
    batch_size: int = 8
    crops: PairCrops = PairCrops(448, (1.0, 1.0), jitter=(0.3, 0.3, 0.3, 0.1))
    schedule: PolySGD = PolySGD(momentum=5e-4, weight_decay=5e-4)
    freeze: Frozen = "stage1"
    distance: FeatureDistance = "mean"
    cell_label: Literal["majority", "nearest"] = "majority"

    makes: ClassVar[str] = "affinity"
    field: ClassVar[str] = "affinity_network"
    cell: ClassVar[int] = CELL

    @classmethod
    def as_written(cls) -> Self:
        """The sum of Eq. 2.5; where the dissertation is silent, the code's values stand."""
        return replace(cls(), distance="sum")

    def build(self, classes: Sequence[str]) -> AffinityNet:
        """AffinityNet before its first step."""
        torch.manual_seed(self.seed)  # the head's random start
        network = AffinityNet(
            self.trunk, self.stride, local_copy(self.weights), self.frozen_statistics,
            self.distance,
        )  # fmt: skip
        if self.weights != "none":
            freeze_stages(network.trunk, self.freeze)
        return network

    def terms(self, outputs: Tensor, labels: Integer[Tensor, "n h w"]) -> Terms:
        """Losses of affinities."""
        known = PairLabels.of(small_labels(labels, CELL, self.cell_label), self.radius)
        if self.distance == "sum":
            return distance_terms(
                distances_of_features(outputs.float(), self.radius, self.distance), known
            )
        return affinity_terms(self.affinities(outputs), known)

    def affinities(self, outputs: Tensor) -> Float[Tensor, "n p s"]:
        """exp(-distance of features) of two cells."""
        return affinities_of_features(outputs.float(), self.radius, self.distance)

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, Any]:
        """What `load_affinity` needs beside the tensors."""
        assert isinstance(network, AffinityNet)
        return affinity_facts(network, classes)
