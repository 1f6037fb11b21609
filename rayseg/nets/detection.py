"""What a detector is to those who ask it: boxes and classes for candidates that they name.

A *candidate* is what a detector predicts one object from: a proposal of a two-stage detector (a box
in input pixels, float (m, 4)), an anchor or point of a one-stage detector (its number, int64 (m,)).
*Input pixels* count in the network's input, in which the image lies resized at the upper left.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rayseg.nets.inputs import Precision


@dataclass(frozen=True)
class InputFit:
    """How images of one size lie in a detector's input: resized, at its upper left.

    Attributes:
        image_hw: height and width of the images.
        content_hw: rows and columns of the input that hold the image.
        input_hw: rows and columns of the input with its padding.
    """

    image_hw: tuple[int, int]
    content_hw: tuple[int, int]
    input_hw: tuple[int, int]

    def to_input(self, boxes_xyxy: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
        """Boxes in image pixels as boxes in input pixels."""
        return boxes_xyxy * self._scale(boxes_xyxy)

    def to_image(self, boxes_xyxy: Float[Tensor, "m 4"]) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels as boxes in image pixels, clipped to the image."""
        height, width = self.image_hw
        corner = boxes_xyxy.new_tensor([width, height, width, height])
        return (boxes_xyxy / self._scale(boxes_xyxy)).clamp(min=0).minimum(corner)

    def _scale(self, like: Tensor) -> Float[Tensor, " 4"]:
        y, x = (c / i for c, i in zip(self.content_hw, self.image_hw, strict=True))
        return like.new_tensor([x, y, x, y])


@dataclass(frozen=True)
class Window:
    """A rectangle of a detector's input, in input pixels.

    Attributes:
        top: first row.
        left: first column.
        height: rows.
        width: columns.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Reading:
    """What both heads say of m candidates.

    Attributes:
        probabilities: float (m, c) of the foreground classes, in [0, 1].
        background: float (m,) probability that competes with them; 0 where a detector has none.
        deltas: float (m, c, 4), raw output of the box head for each class; (m, 1, 4) where one
            box serves all classes. Their unit is the detector's own: 10 dx/w and 5 log for a Faster
            R-CNN, whose size BBAM's lambda presumes, cells and logarithms for a YOLOX.
        boxes_xyxy: float (m, c, 4) or (m, 1, 4), the boxes that they make, in input pixels, clipped
            to the input.
    """

    probabilities: Float[Tensor, "m c"]
    background: Float[Tensor, " m"]
    deltas: Float[Tensor, "m r 4"]
    boxes_xyxy: Float[Tensor, "m r 4"]

    @property
    def winners(self) -> Int[Tensor, " m"]:
        """The most likely class index of each candidate, -1 for background."""
        best, index = self.probabilities.max(1)
        return torch.where(self.background > best, -1, index)

    def of(
        self, classes: Int[Tensor, " m"]
    ) -> tuple[Float[Tensor, " m"], Float[Tensor, "m 4"], Float[Tensor, "m 4"]]:
        """Probability, deltas and box of each candidate for the class that is asked of it."""
        rows = torch.arange(len(classes), device=classes.device)
        column = classes if self.deltas.shape[1] > 1 else torch.zeros_like(classes)
        return (
            self.probabilities[rows, classes],
            self.deltas[rows, column],
            self.boxes_xyxy[rows, column],
        )


@dataclass(frozen=True)
class Detections:
    """Objects that a detector finds in one image, the likeliest first.

    Attributes:
        boxes_xyxy: float (o, 4) in image pixels.
        classes: int64 (o,) class indices.
        scores: float (o,) in [0, 1].
        candidates: what each was predicted from, (o, 4) or (o,), for the image's whole input.
    """

    boxes_xyxy: Float[Tensor, "o 4"]
    classes: Int[Tensor, " o"]
    scores: Float[Tensor, " o"]
    candidates: Tensor


class Detector(nn.Module, ABC):
    """A detector with a box head and a class head; all that BBAM asks of one.

    Attributes:
        num_classes: number of foreground classes c.
        score_threshold: a candidate below this predicts nothing; 0 where background competes.
        window_stride: places and sizes of windows are multiples of it; 0 where the network takes
            whole inputs only.
        feature_layer: name of the module that gives the trunk's last map, called once in a `read`;
            empty where there is none. Only Grad-CAM asks for it.
        mean: buffer (3, 1, 1), the mean colour of the training images as input values; it hides.
    """

    num_classes: int
    score_threshold: float
    window_stride: int
    feature_layer: str = ""
    mean: Tensor

    @abstractmethod
    def fit(self, image_hw: tuple[int, int]) -> InputFit:
        """How images of that size are fed."""

    @abstractmethod
    def encode(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 y x"]:
        """RGB images of one size, 0 to 255, as input; on the detector's device, in its type."""

    @abstractmethod
    def candidates(self, proposals: Float[Tensor, "m 4"], input_hw: tuple[int, int]) -> Tensor:
        """What may predict an object: the proposals, or all anchors where none are taken.

        Args:
            proposals: boxes in input pixels.
            input_hw: rows and columns of the input.
        """

    @abstractmethod
    def in_window(self, candidates: Tensor, input_hw: tuple[int, int], window: Window) -> Tensor:
        """The same candidates in an input that is only that window of the whole.

        Raises:
            ValueError: the detector takes no windows, or the window does not fit its stride.
        """

    @abstractmethod
    def read(
        self, inputs: Float[Tensor, "n 3 y x"], owner: Int[Tensor, " m"], candidates: Tensor
    ) -> Reading:
        """What the heads say of candidates; differentiable with respect to the inputs.

        Neither proposals are made nor overlapping boxes suppressed, and the answer for a candidate
        depends on its own input only.

        Args:
            inputs: what `encode` gave, perturbed or not, or windows of it.
            owner: index into `inputs` of each candidate.
            candidates: as `candidates`, `in_window` or `detect` gave them.
        """

    @abstractmethod
    def detect(
        self, images: UInt8[Tensor, "n h w 3"], min_score: float = 0.05, max_objects: int = 100
    ) -> list[Detections]:
        """Finds the objects of images of one size, overlapping ones suppressed."""

    @abstractmethod
    def lean(self, device: torch.device, precision: Precision) -> Self:
        """A frozen copy for reading: the same numbers up to rounding, only sooner.

        Batch normalisation is folded, no weight has a gradient, and the network is in `eval` mode.
        """
