"""Networks and how they are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rayseg.loading import Crops
from rayseg.toml import check_literals
from rayseg.training import PolySGD

Trunk = Literal["mobilenet_v2", "resnet18", "resnet34", "resnet50", "resnet101", "vgg16"]


@dataclass(frozen=True)
class ClassifierConfig:
    """The CAM classifier and its training.

    Attributes:
        trunk: mobilenet_v2, resnet18, resnet34, resnet50, resnet101 or vgg16.
        stride: image pixels a feature cell: 8, 16 or 32.
        weights: none, a torchvision weight set such as IMAGENET1K_V1, or a path.
        batch_norm: frozen keeps the statistics of the weights; trained learns them; auto freezes
            them where there are weights.
        freeze: the last stage that does not train: none, stem, stage1 to stage4.
        epochs: passes over the images.
        batch_size: images of a step, over all workers.
        crops: how images are cut.
        schedule: the optimiser.
        seed: of the head, the order and the crops.
    """

    trunk: Trunk = "resnet50"
    stride: Literal[8, 16, 32] = 16
    weights: str = "IMAGENET1K_V1"
    batch_norm: Literal["auto", "frozen", "trained"] = "auto"
    freeze: Literal["none", "stem", "stage1", "stage2", "stage3", "stage4"] = "stem"
    epochs: int = 5
    batch_size: int = 16
    crops: Crops = Crops()
    schedule: PolySGD = PolySGD()
    seed: int = 0

    def __post_init__(self) -> None:
        check_literals(self)
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be 1 or more, got {self.epochs}, {self.batch_size}"
            )

    @classmethod
    def as_written(cls) -> ClassifierConfig:
        """Momentum as the text has it; everything else is the code's."""
        return cls(schedule=PolySGD.as_written())

    @property
    def frozen_statistics(self) -> bool:
        """Whether batch normalisation keeps its statistics."""
        return self.weights != "none" if self.batch_norm == "auto" else self.batch_norm == "frozen"
