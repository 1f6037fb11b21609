"""The training of a Mask R-CNN on masks of objects, pseudo or true."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from rayseg.labels import TrueInstances
from rayseg.learn.objects import JUDGED, ObjectTraining, guesses_of
from rayseg.learn.schedules import DetectorSGD
from rayseg.learn.training import LearnsFrom
from rayseg.nets.backbones import freeze_normalisation
from rayseg.nets.detectors import taken_from
from rayseg.nets.detectors.design import MaskLearning, MaskRCNNDesign
from rayseg.nets.detectors.mask_rcnn import MaskRCNN
from rayseg.records.rle import encode_mask
from rayseg.scores import ObjectGuesses, ObjectTruths, average_precision
from rayseg.store import local_copy


@dataclass(frozen=True)
class MaskRCNNTraining(ObjectTraining):
    """A Mask R-CNN and its training on masks that leave pixels in doubt.

    True masks leave no doubt: on them nothing is grown and the mask loss is plain, whatever is
    set here, since what pseudo masks are held against is the ordinary Mask R-CNN.

    Attributes:
        anchors: Sides of the anchors in input pixels, one for each level of the pyramid.
        min_sides: The shorter side of a training image is resized to one of these, drawn for each.
        test_side: The shorter side of any other image is resized to this, in pixels.
        max_side: No longer side is resized beyond this, in pixels, whatever the shorter side's is.
        iterations: Number of training steps.
        batch_size: Images in each step, over all workers.
        schedule: Settings of the optimiser.
        grow: Pixels in doubt become foreground or background where the network is sure of them.
        sure_foreground: Probability above which a pixel is surely foreground.
        sure_background: Probability below which a pixel is surely background.
        mask_loss: Foreground and background weigh the same if balanced; plain weighs pixels.
    """

    anchors: tuple[int, ...] = (21, 42, 84, 168, 332)
    min_sides: tuple[int, ...] = (416, 440, 464, 488, 512)
    test_side: int = 512
    max_side: int = 800
    iterations: int = 20_005
    batch_size: int = 8
    schedule: DetectorSGD = DetectorSGD(lr=0.008, drops=(16_000 / 20_005,))
    grow: bool = True
    sure_foreground: float = 0.9
    sure_background: float = 0.1
    mask_loss: Literal["balanced", "plain"] = "balanced"

    makes: ClassVar[str] = "mask_rcnn"
    field: ClassVar[str] = "mask_rcnn"
    learns_from: ClassVar[LearnsFrom] = "objects"
    with_masks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sure_background <= self.sure_foreground <= 1:
            raise ValueError(
                "sure_background and sure_foreground must ascend in [0, 1], got "
                f"{self.sure_background}, {self.sure_foreground}"
            )

    def suited_to(self, labels: Any) -> Self:
        """On true masks, which leave nothing in doubt, it is the ordinary Mask R-CNN."""
        exact = isinstance(labels, TrueInstances)
        return replace(self, grow=False, mask_loss="plain") if exact else self

    def build(self, classes: Sequence[str]) -> MaskRCNN:
        """The Mask R-CNN before its first step."""
        torch.manual_seed(self.seed)  # the heads' random start
        network = MaskRCNN(
            taken_from(self, MaskRCNNDesign, classes=tuple(classes)),
            taken_from(self, MaskLearning, weights=local_copy(self.weights)),
        )
        return freeze_normalisation(network) if self.frozen_statistics else network

    def guess(self, network: nn.Module, images: UInt8[Tensor, "1 h w 3"]) -> ObjectGuesses:
        """The objects that the network finds in one image, with their masks."""
        assert isinstance(network, MaskRCNN)
        boxes, classes, scores, masks = network.predict(images)[0]
        coded = tuple(encode_mask(mask) for mask in masks.cpu().numpy())
        return guesses_of(boxes, classes, scores, coded)

    def figures(
        self, truths: dict[str, ObjectTruths], guesses: dict[str, ObjectGuesses], num_classes: int
    ) -> dict[str, Any]:
        """Average precisions of boxes, and of masks where all of these objects have a true one."""
        boxes = average_precision(truths, guesses, num_classes, "boxes").as_dict()
        found = {f"box_{name}": boxes[name] for name in JUDGED}
        if all(one.masks and all(one.masks) for one in truths.values() if len(one.classes)):
            masks = average_precision(truths, guesses, num_classes, "masks").as_dict()
            found |= {name: masks[name] for name in JUDGED}
        return found
