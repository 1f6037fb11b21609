"""The training of FickleNet's classifier on tags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from rayseg.learn.classifier import ClassifierTraining, Frozen
from rayseg.learn.crops import Crops
from rayseg.learn.schedules import HalvedAdam
from rayseg.learn.worker import Worker
from rayseg.nets.backbones import Trunk, freeze_stages
from rayseg.nets.ficklenet import FickleClassifier, fickle_facts
from rayseg.store import local_copy


@dataclass(frozen=True)
class FickleNetTraining(ClassifierTraining):
    """FickleNet's classifier and its training.

    Recalled from the paper (METHODS 7; there is no public code): VGG-16 without its last pooling
    and with a dilated last block, crops of 321 to maps of 41x41, a kernel of 9, the drop rate,
    batches of 10 and the optimiser. Ours, without a source: the number of epochs, that the
    stem trains too, and the range of sizes that crops are cut from.

    Attributes:
        trunk: Network that makes the features, named as one of the classifiers.
        stride: Image pixels of each feature cell: 8, 16 or 32; some trunks have 8 only.
        dilated: The trunk's last stages are dilated where they lost their stride.
        kernel: Side of the head's windows in cells, an odd number.
        drop_rate: Chance, in [0, 1), that a hidden unit of a window is left out.
        selection: Closed or expanded (Figure 3.2b): the same numbers, the second far slower.
        freeze: The last stage that does not train: none, stem, stage1 to stage4.
        epochs: Passes over the images; 0 is 20, and more for few images, up to `least_steps`.
        batch_size: Images in each step, over all workers.
        crops: How images are cut.
        schedule: Settings of the optimiser.
        seed: Seed of the head, the order, the crops and the selections.
    """

    trunk: Trunk = "vgg16"
    stride: Literal[8, 16, 32] = 8
    freeze: Frozen = "none"
    epochs: int = 20
    batch_size: int = 10
    crops: Crops = Crops(crop=321)
    schedule: HalvedAdam = HalvedAdam()  # type: ignore[assignment]
    dilated: bool = True
    kernel: int = 9
    drop_rate: float = 0.9
    selection: Literal["closed", "expanded"] = "closed"

    passes: ClassVar[int] = 20
    makes: ClassVar[str] = "ficklenet"
    field: ClassVar[str] = "ficklenet_classifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 3 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and 3 or more, got {self.kernel}")
        if not 0 <= self.drop_rate < 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {self.drop_rate}")

    @classmethod
    def as_written(cls) -> Self:
        """The same: the dissertation gives no constants."""
        return cls()

    def build(self, classes: Sequence[str]) -> FickleClassifier:  # type: ignore[override]
        """FickleNet's classifier before its first step."""
        torch.manual_seed(self.seed)  # the head's random start
        network = FickleClassifier(
            self.trunk, len(classes), self.stride, local_copy(self.weights), self.frozen_statistics,
            self.kernel, self.drop_rate, self.dilated, self.selection,
        )  # fmt: skip
        if self.weights != "none":
            freeze_stages(network.trunk, self.freeze)
        return network

    def reseed(self, network: nn.Module, step: int, worker: Worker) -> None:
        """Several workers select together what one selects."""
        super().reseed(network, step, worker)
        if isinstance(network, FickleClassifier):
            network.reseed(self.seed, step, worker.rank, worker.world)

    def facts(self, network: nn.Module, classes: Sequence[str]) -> Mapping[str, object]:
        """What `load_ficklenet` needs beside the tensors."""
        assert isinstance(network, FickleClassifier)
        return fickle_facts(network, self.trunk, classes)
