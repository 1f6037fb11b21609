"""What every method shares that asks a detector: objects in, one coarse map an object out.

A method looks at the candidates that predict an object (positives.py) and says which part of the
image they need. It works on a lean copy of the detector and leaves the one that it is given alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from rayseg.attribution.classes.base import seeded
from rayseg.attribution.objects.positives import (
    Answers,
    Target,
    Unperturbed,
    jittered_boxes,
    overlaps,
    pick_positives,
)
from rayseg.nets.detection import Detector, InputFit
from rayseg.nets.inputs import Precision
from rayseg.records.bounds import check_choices, check_least
from rayseg.records.boxes import box_problem

MISSED = "missed"
"""Status of an object that no candidate predicts."""


@dataclass(frozen=True)
class Objects:
    """The objects of one image that are asked about.

    Attributes:
        boxes_xyxy: float (o, 4) in image pixels.
        classes: int64 (o,) class indices of the detector.
        candidates: what each box was predicted from, (o, 4) or (o,), as `Detections` have it
            (Eq. 5.1); None for given boxes (Eq. 5.3).
    """

    boxes_xyxy: Float[Tensor, "o 4"]
    classes: Int[Tensor, " o"]
    candidates: Tensor | None = None

    def __post_init__(self) -> None:
        number = len(self.boxes_xyxy)
        if self.boxes_xyxy.shape != (number, 4) or not self.boxes_xyxy.is_floating_point():
            raise ValueError(
                f"boxes_xyxy must be float (o, 4), got {self.boxes_xyxy.dtype} "
                f"{tuple(self.boxes_xyxy.shape)}"
            )
        if self.classes.shape != (number,) or self.classes.dtype != torch.int64:
            raise ValueError(
                f"classes must be int64 ({number},), one a box, got {self.classes.dtype} "
                f"{tuple(self.classes.shape)}"
            )
        if self.candidates is not None and len(self.candidates) != number:
            raise ValueError(f"candidates must be {number}, one a box, got {len(self.candidates)}")


@dataclass(frozen=True)
class ObjectMap:
    """Which part of the image an object's prediction needs.

    Attributes:
        grid: float32 (y, x) in [0, 1] whose corners lie on the image's corners.
        status: ok, missed (no candidate predicts the object; zeros, as the public code writes), or
            a reason in one line (zeros).
        positives: candidates that predict the object.
        box_loss: what showing only the map changes in the box head's answer; NaN where the head
            says no number and does not count.
        class_loss: ... in the class head's.
        steps: optimisation steps taken.
        curve: float (steps, 2), both losses before each step; None where they are not asked for.
    """

    grid: Float[Tensor, "y x"]
    status: str
    positives: int
    box_loss: float
    class_loss: float
    steps: int
    curve: Float[Tensor, "steps 2"] | None = None


@dataclass(frozen=True)
class BoxAttribution(ABC):
    """A method that maps (detector, image, objects) to one map an object.

    Attributes:
        num_jitters: Proposals drawn around a given box (code: 1000).
        jitter: Each coordinate of a proposal is moved by up to this share of the box's side (0.3).
        iou_levels: The predicted box overlaps the given one by more than the first of these that
            enough candidates exceed, or the last (code: 0.9, 0.85, 0.8; text: 0.8).
        max_positives: Number of positives that are kept, the first drawn; a level counts where more
            exceed it (code: 100). 0 keeps all above the last level (text).
        iou: How boxes are compared: int first cuts their fractions off (code); exact does not.
        precision: Number format of the network; auto takes bf16 where the device is faster in it.
        max_pixels: Input pixels in one batch; 0 chooses by device. It changes maps by rounding
            only.
        seed: Seed of what is random, with the image's id and the object's box and class.
    """

    num_jitters: int = 1000
    jitter: float = 0.3
    iou_levels: tuple[float, ...] = (0.9, 0.85, 0.8)
    max_positives: int = 100
    iou: Literal["int", "exact"] = "int"
    precision: Precision = "auto"
    max_pixels: int = 0
    seed: int = 0

    network_kind: ClassVar[str] = "detector"
    rounding_only: ClassVar[tuple[str, ...]] = ("max_pixels",)
    """Fields that change results by no more than rounding."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, num_jitters=1, max_positives=0, max_pixels=0)
        if not 0 <= self.jitter < 0.5:
            raise ValueError(f"jitter must lie in [0, 0.5), got {self.jitter}")
        levels = self.iou_levels
        if not levels or not all(0 <= level < 1 for level in levels):
            raise ValueError(f"iou_levels must lie in [0, 1) and be at least one, got {levels}")
        if list(levels) != sorted(levels, reverse=True):
            raise ValueError(f"iou_levels must descend, got {levels}")

    @classmethod
    def official(cls) -> Self:
        """The values and order of operations of the authors' public code."""
        return cls()

    @classmethod
    @abstractmethod
    def as_written(cls) -> Self:
        """The dissertation's equations to the letter."""

    def check(self, detector: Detector) -> None:
        """Refuses settings that no image of this detector can be served with; here there are none.

        Raises:
            ValueError: both sides are said.
        """
        del detector

    def prepare(self, network: Detector, device: torch.device | None = None) -> Detector:
        """The copy to work on, on that device; make it once where many images follow."""
        return network.lean(device or network.mean.device, self.precision)

    def __call__(
        self,
        detector: Detector,
        image: UInt8[Tensor, "h w 3"],
        boxes_xyxy: Float[Tensor, "o 4"],
        classes: Int[Tensor, " o"],
        image_id: str = "",
    ) -> Float[Tensor, "o h w"]:
        """Maps of the objects of one image, at the image's size.

        Args:
            detector: any, or what `prepare` made of it; left as it was.
            image: RGB, 0 to 255, a tensor or an array.
            boxes_xyxy: in image pixels, a tensor, an array or a list.
            classes: class index of each box.
            image_id: what is random follows from it and the method's seed.

        Returns:
            Float32 in [0, 1], one map a box in their order; zeros for a box that the detector
            misses.

        Raises:
            ValueError: settings that the detector cannot serve, an image of another shape or type,
                a class that the detector lacks, or a box that names no pixels of the image.
        """
        # an array may be read-only or run backwards, which torch does not take
        pixels = image if isinstance(image, Tensor) else torch.as_tensor(image.copy())
        boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float32).reshape(-1, 4)
        objects = Objects(boxes, torch.as_tensor(classes, dtype=torch.int64))
        (found,) = self.run(detector, pixels[None], [objects], [image_id])
        for one in found:
            if one.status not in ("ok", MISSED):
                raise ValueError(one.status)
        maps = [enlarge_grid(one.grid, (pixels.shape[0], pixels.shape[1])) for one in found]
        return torch.stack(maps) if maps else torch.zeros(0, *pixels.shape[:2])

    def run(
        self,
        detector: Detector,
        images: UInt8[Tensor, "n h w 3"],
        objects: Sequence[Objects],
        ids: Sequence[str],
    ) -> list[list[ObjectMap]]:
        """Maps of the objects of images of one size.

        An object's map follows from its image, its box and its class alone: neither its place in
        the list nor the other objects and images matter, and two equal objects get maps that are
        equal up to rounding.

        Args:
            objects: of each image; it may have none.
        """
        self.check(detector)
        check_input(detector, images, objects, ids)
        lean = detector if _is_frozen(detector) else self.prepare(detector)
        if not any(len(own.classes) for own in objects):
            return [[] for _ in objects]
        fit, inputs = lean.fit((images.shape[1], images.shape[2])), lean.encode(images)
        rows = [
            list(self.find_targets(lean, inputs, i, fit, own, name))
            for i, (own, name) in enumerate(zip(objects, ids, strict=True))
        ]
        predicted = [
            one for row in rows for one in row if isinstance(one, Target) and len(one.probabilities)
        ]
        maps = iter(self.explain(lean, inputs, fit, predicted) if predicted else [])
        return [
            [
                next(maps)
                if isinstance(one, Target) and len(one.probabilities)
                else self._nothing(one, fit)
                for one in row
            ]
            for row in rows
        ]

    @abstractmethod
    def explain(
        self,
        detector: Detector,
        inputs: Float[Tensor, "n 3 y x"],
        fit: InputFit,
        targets: Sequence[Target],
    ) -> list[ObjectMap]:
        """Maps of objects that have at least one positive, in their order."""

    @abstractmethod
    def grid_hw(self, share: float, content_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the grid of an object."""

    def find_targets(
        self,
        detector: Detector,
        inputs: Float[Tensor, "n 3 y x"],
        image: int,
        fit: InputFit,
        objects: Objects,
        image_id: str,
    ) -> Iterator[Target | str]:
        """Each object of one image as the detector predicts it, or why there is none."""
        image_boxes = objects.boxes_xyxy.detach().cpu()
        view = Unperturbed(detector, inputs[image : image + 1])
        real = torch.promote_types(inputs.dtype, torch.float32)
        boxes = _clip(fit.to_input(image_boxes.to(inputs.device, real)), fit.content_hw)
        given = None
        if objects.candidates is not None and len(boxes):
            given = view.ask(objects.candidates.to(inputs.device), objects.classes.to(boxes.device))
        for i, (box, class_index) in enumerate(zip(boxes, objects.classes.tolist(), strict=True)):
            given_box = image_boxes[i].float()
            problem = box_problem(given_box.numpy(), fit.image_hw)
            if problem:
                yield problem
                continue
            name = f"{image_id}/{class_index}/{given_box.tolist()}"
            if given is None:
                generator = seeded(self.seed, name)
                answers = self._positives(view, box, class_index, fit, generator, detector)
            else:
                answers = given[slice(i, i + 1)]
            sides = box[2:] - box[:2]
            yield Target(
                image,
                name,
                box,
                float(sides.prod()) / (fit.content_hw[0] * fit.content_hw[1]),
                class_index,
                answers.candidates,
                answers.probabilities,
                answers.deltas,
                answers.boxes_xyxy,
            )

    def _positives(
        self,
        view: Unperturbed,
        box_xyxy: Float[Tensor, " 4"],
        class_index: int,
        fit: InputFit,
        generator: torch.Generator,
        detector: Detector,
    ) -> Answers:
        proposals = jittered_boxes(
            box_xyxy, fit.content_hw, self.num_jitters, self.jitter, generator
        )
        answers = view.ask_around(proposals, class_index)
        if answers.candidates.ndim == 1:  # anchors lie row by row; the first would be all on top
            order = torch.randperm(len(answers.candidates), generator=generator)
            answers = answers[order.to(box_xyxy.device)]
        right = answers.winners == class_index
        right &= answers.probabilities >= detector.score_threshold
        ious = overlaps(answers.boxes_xyxy, box_xyxy, self.iou)
        return answers[pick_positives(right, ious, self.iou_levels, self.max_positives)]

    def _nothing(self, target: Target | str, fit: InputFit) -> ObjectMap:
        if isinstance(target, str):
            return ObjectMap(torch.zeros(1, 1), target, 0, 0.0, 0.0, 0)
        grid = torch.zeros(self.grid_hw(target.share, fit.content_hw))
        return ObjectMap(grid, MISSED, 0, 0.0, 0.0, 0)


def enlarge_grid(grid: Float[Tensor, "y x"], size_hw: tuple[int, int]) -> Float[Tensor, "h w"]:
    """A grid at the size of its image: bilinear, corners on corners."""
    enlarged = functional.interpolate(
        grid[None, None], size_hw, mode="bilinear", align_corners=True
    )
    return enlarged[0, 0]


def check_input(
    detector: Detector, images: Tensor, objects: Sequence[Objects], ids: Sequence[str]
) -> None:
    """Refuses images of another shape or type and classes that the detector lacks."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 (n, h, w, 3), got {images.dtype} {tuple(images.shape)}"
        )
    if len(objects) != len(images):
        raise ValueError(f"objects must be those of {len(images)} images, got {len(objects)}")
    if len(ids) != len(images):
        raise ValueError(f"ids must name {len(images)} images, got {len(ids)}")
    last = detector.num_classes - 1
    wrong = [c for own in objects for c in own.classes.tolist() if not 0 <= c <= last]
    if wrong:
        raise ValueError(f"classes must lie in 0..{last}, got {wrong[0]}")


def _is_frozen(detector: Detector) -> bool:
    return not detector.training and not any(one.requires_grad for one in detector.parameters())


def _clip(boxes_xyxy: Float[Tensor, "o 4"], content_hw: tuple[int, int]) -> Float[Tensor, "o 4"]:
    height, width = content_hw
    corner = boxes_xyxy.new_tensor([width, height, width, height])
    return boxes_xyxy.clamp(min=0).minimum(corner)
