"""The training of a detector on boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from rayseg.labels import GivenBoxes
from rayseg.learn.objects import JUDGED, ObjectTraining, guesses_of
from rayseg.learn.training import LearnsFrom
from rayseg.nets.backbones import freeze_normalisation
from rayseg.nets.detectors import DetectorDesign, Learning, build_detector, taken_from
from rayseg.nets.detectors.one_stage import OneStage
from rayseg.nets.detectors.two_stage import FasterRCNN
from rayseg.scores import ObjectGuesses, ObjectTruths, average_precision
from rayseg.store import Folder, local_copy


@dataclass(frozen=True)
class DetectorTraining(ObjectTraining):
    """A detector and its training.

    Attributes:
        first_level: First level of the pyramid; 2 is at stride 4, as published. Detectors of one
            stage begin at 3.
        kind: Detector to train: faster_rcnn, or of one stage retinanet or fcos. BBAM trained its
            RetinaNet at lr 0.005 in batches of 8, on images of 800 only.
        keep_empty: Images without an object are trained on as well.
    """

    kind: Literal["faster_rcnn", "retinanet", "fcos"] = "faster_rcnn"
    keep_empty: bool = False
    first_level: Literal[2, 3, 4] = 2

    makes: ClassVar[str] = "detector"
    field: ClassVar[str] = "detector"
    learns_from: ClassVar[LearnsFrom] = "boxes"
    with_masks: ClassVar[bool] = False
    judges_all_at_last: ClassVar[bool] = True  # no job predicts by it and scores that

    def given_labels(self, manifest: Folder, split: str) -> GivenBoxes:
        """The boxes of the images."""
        return GivenBoxes(manifest, split, self.keep_empty)

    def build(self, classes: Sequence[str]) -> FasterRCNN | OneStage:
        """The detector before its first step."""
        torch.manual_seed(self.seed)  # the heads' random start
        network = build_detector(
            taken_from(self, DetectorDesign, classes=tuple(classes)),
            taken_from(self, Learning, weights=local_copy(self.weights)),
        )
        return freeze_normalisation(network) if self.frozen_statistics else network

    def guess(self, network: nn.Module, images: UInt8[Tensor, "1 h w 3"]) -> ObjectGuesses:
        """The boxes that the detector finds in one image."""
        assert isinstance(network, FasterRCNN | OneStage)
        found = network.detect(images)[0]
        return guesses_of(found.boxes_xyxy, found.classes, found.scores)

    def figures(
        self, truths: dict[str, ObjectTruths], guesses: dict[str, ObjectGuesses], num_classes: int
    ) -> dict[str, Any]:
        """Average precisions of boxes."""
        boxes = average_precision(truths, guesses, num_classes, "boxes").as_dict()
        return {name: boxes[name] for name in JUDGED}
