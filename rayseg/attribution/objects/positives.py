"""Which candidates predict an object: jittered boxes, asked and sifted, with what they answered.

BBAM looks at many predictions of an object at once (dissertation 5.3.3): each coordinate of its box
is moved by up to 30 % of the box's side, and the boxes that the detector brings back to the object,
with the right class, are its positives. A detector without proposals is asked for all its anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rayseg.nets.detection import Detector, Reading

READ_AT_ONCE = 1000
"""Candidates in one reading of an image; what is pooled from them takes 50 KB each."""


@dataclass(frozen=True)
class Target:
    """An object as the detector predicts it, from m candidates, in input pixels.

    Attributes:
        image: index of its image.
        name: tells it from all others of a data set; what is random follows from it and the seed.
        box_xyxy: float (4,) the object's box, inside the image.
        share: the box's area over the image's.
        class_index: the object's class.
        candidates: (m, 4) or (m,), what predicts it.
        probabilities: float (m,) of its class, p_c.
        deltas: float (m, 4) of the box head for its class, t_c.
        boxes_xyxy: float (m, 4) the predicted boxes.
    """

    image: int
    name: str
    box_xyxy: Float[Tensor, " 4"]
    share: float
    class_index: int
    candidates: Tensor
    probabilities: Float[Tensor, " m"]
    deltas: Float[Tensor, "m 4"]
    boxes_xyxy: Float[Tensor, "m 4"]


@dataclass(frozen=True)
class Answers:
    """What a detector says of m candidates, each asked for a class of its own.

    Attributes:
        candidates: (m, 4) or (m,).
        winners: the most likely class of each, -1 for background.
        probabilities: of the class asked for.
        deltas: for the class asked for.
        boxes_xyxy: for the class asked for, in input pixels.
    """

    candidates: Tensor
    winners: Int[Tensor, " m"]
    probabilities: Float[Tensor, " m"]
    deltas: Float[Tensor, "m 4"]
    boxes_xyxy: Float[Tensor, "m 4"]

    def __getitem__(self, rows: Tensor | slice) -> Answers:
        return Answers(
            self.candidates[rows],
            self.winners[rows],
            self.probabilities[rows],
            self.deltas[rows],
            self.boxes_xyxy[rows],
        )


class Unperturbed:
    """A detector looking at one image as it is."""

    def __init__(self, detector: Detector, inputs: Float[Tensor, "1 3 y x"]):
        self.detector, self.inputs = detector, inputs
        self._of_anchors: Reading | None = None

    @property
    def input_hw(self) -> tuple[int, int]:
        """Rows and columns of the input."""
        return self.inputs.shape[2], self.inputs.shape[3]

    def ask(self, candidates: Tensor, classes: Int[Tensor, " m"]) -> Answers:
        """What the heads say of candidates."""
        parts = zip(candidates.split(READ_AT_ONCE), classes.split(READ_AT_ONCE), strict=True)
        answers = [_answers(self._read(some), some, asked) for some, asked in parts]
        return Answers(
            candidates,
            torch.cat([one.winners for one in answers]),
            torch.cat([one.probabilities for one in answers]),
            torch.cat([one.deltas for one in answers]),
            torch.cat([one.boxes_xyxy for one in answers]),
        )

    def ask_around(self, proposals: Float[Tensor, "m 4"], class_index: int) -> Answers:
        """What the heads say of proposals, or of all anchors where the detector takes none."""
        candidates = self.detector.candidates(proposals, self.input_hw)
        classes = torch.full((len(candidates),), class_index, device=self.inputs.device)
        if candidates.ndim == 2:
            return self.ask(candidates, classes)
        if self._of_anchors is None:  # the anchors are the same for all objects
            self._of_anchors = self._read(candidates)
        return _answers(self._of_anchors, candidates, classes)

    def _read(self, candidates: Tensor) -> Reading:
        owner = torch.zeros(len(candidates), dtype=torch.int64, device=self.inputs.device)
        with torch.no_grad():
            return self.detector.read(self.inputs, owner, candidates)


def _answers(reading: Reading, candidates: Tensor, classes: Int[Tensor, " m"]) -> Answers:
    return Answers(candidates, reading.winners, *reading.of(classes))


def jittered_boxes(
    box_xyxy: Float[Tensor, " 4"],
    content_hw: tuple[int, int],
    number: int,
    amount: float,
    generator: torch.Generator,
) -> Float[Tensor, "m 4"]:
    """Boxes of which each coordinate is moved by up to `amount` of the box's side.

    As in the public code, a coordinate is held back only on its outer side: the upper left corner
    stays at 0 or more, the lower right one inside the image.

    Args:
        box_xyxy: in input pixels, inside the image.
        amount: below 0.5, so that no box turns over.
        generator: on the CPU; `number` x 4 numbers are drawn.
    """
    draws = torch.rand(number, 4, generator=generator, dtype=torch.float64)
    sides = (box_xyxy[2:] - box_xyxy[:2]).repeat(2)
    moved = box_xyxy + (2 * draws - 1).to(box_xyxy) * amount * sides  # (m, 4)
    height, width = content_hw
    return torch.cat(
        [moved[:, :2].clamp(min=0), moved[:, 2:].minimum(box_xyxy.new_tensor([width, height]))], 1
    )


def overlaps(
    boxes_xyxy: Float[Tensor, "m 4"],
    box_xyxy: Float[Tensor, " 4"],
    coordinates: Literal["int", "exact"],
) -> Float[Tensor, " m"]:
    """Intersection over union of boxes with one box; 0 where both are empty.

    Args:
        boxes_xyxy: in the same pixels as `box_xyxy`.
        coordinates: int cuts the fractions off first, as the public code does.
    """
    if coordinates == "int":
        boxes_xyxy, box_xyxy = boxes_xyxy.trunc(), box_xyxy.trunc()
    low = torch.maximum(boxes_xyxy[:, :2], box_xyxy[:2])
    high = torch.minimum(boxes_xyxy[:, 2:], box_xyxy[2:])
    shared = (high - low).clamp(min=0).prod(1)
    areas = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(1)
    union = areas + (box_xyxy[2:] - box_xyxy[:2]).prod() - shared
    return torch.where(union > 0, shared / union, 0)


def pick_positives(
    right: Bool[Tensor, " m"], ious: Float[Tensor, " m"], levels: Sequence[float], limit: int
) -> Int[Tensor, " p"]:
    """Positions of the positives, ascending.

    The first level that more than `limit` candidates exceed gives the first `limit` of them; where
    none does, all above the last level are taken.

    Args:
        ious: overlap of each candidate's predicted box with the object's.
        levels: of overlap, the strictest first.
        limit: of positives; 0 takes all above the last level.
    """
    hits = right
    for level in levels:
        hits = right & (ious > level)
        if limit and int(hits.sum()) > limit:
            return hits.nonzero()[:limit, 0]
    return hits.nonzero()[:, 0]
