"""What a trial of a sweep makes of images: integers that add, and figures from their sum.

A trial is one setting of a method or refiner. What can be read off one trajectory or one map, such
as every number of steps, every background threshold, is counted for all its values at once.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from numpy import ndarray
from numpy.typing import NDArray

from rayseg.attribution import (
    RIB,
    AdvCAM,
    Attribution,
    BoxAttribution,
    Localization,
    Objects,
    enlarge_grid,
)
from rayseg.labels import Truths, enlarge
from rayseg.nets.detection import Detector
from rayseg.records import IGNORE, Seeds
from rayseg.records.boxes import box_problem
from rayseg.scores import Confusion, ThresholdSweep, mask_iou
from rayseg.stages.box_masks import BoxRefiner
from rayseg.stages.masks import Refiner
from rayseg.stages.rows import Row
from rayseg.stages.true_objects import TrueObjects
from rayseg.store import MAP_STRIDE

IOU_UNITS = 10**9
"""IoUs are added as whole numbers, so that a sum does not depend on its order."""

Figures = list[dict[str, float]]
CountArray = NDArray[np.int64]
"""Whole numbers, of a shape that is the trial's own."""


@dataclass(frozen=True)
class TrialImage:
    """An image as trials count it.

    Attributes:
        id: of the image.
        pixels: RGB.
        classes: class indices of its tags.
        truth: labels 0, class index + 1 or 255; where only objects are known 0, and 255 for pixels
            that no IoU of theirs counts.
        seeds: stored maps, for trials of a refiner; else None.
        boxes_xyxy: of its objects with a known mask.
        box_classes: class index of each.
        masks: true mask of each.
    """

    id: str
    pixels: UInt8[ndarray, "h w 3"]
    classes: tuple[int, ...]
    truth: UInt8[ndarray, "h w"]
    seeds: Seeds | None = None
    boxes_xyxy: Float[ndarray, "o 4"] = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    box_classes: tuple[int, ...] = ()
    masks: tuple[Bool[ndarray, "h w"], ...] = ()


class Trial(Protocol):
    """Counts of images that add, and what they come to."""

    def zeros(self) -> CountArray:
        """Nothing counted yet."""

    def count(self, image: TrialImage) -> CountArray:
        """Of one image."""

    def figures(self, counts: CountArray) -> Figures:
        """The metric, with each value that was read off; one entry for each."""


class SeedTrial:
    """Trials of a method that makes maps of classes: mean IoU at the best background threshold.

    Args:
        method: the setting; with a trajectory it is run at its largest number of steps.
        steps: numbers of steps that are scored; empty scores the method as it is.
        over: labels of the mean; empty for all that the truth or the labels hold.
    """

    def __init__(
        self,
        method: Attribution,
        network: torch.nn.Module,
        steps: Sequence[int],
        thresholds: Sequence[float],
        num_classes: int,
        over: Sequence[int] = (),
    ):
        self.method, self.network, self.steps = method, network, tuple(steps)
        self.thresholds, self.num_classes, self.over = tuple(thresholds), num_classes, list(over)

    def zeros(self) -> Int64[ndarray, "t c+1 c+1 T+1"]:
        """A sweep for each number of steps."""
        one = ThresholdSweep.zeros(self.num_classes, self.thresholds).counts
        return np.zeros((max(len(self.steps), 1), *one.shape), np.int64)

    def count(self, image: TrialImage) -> Int64[ndarray, "t c+1 c+1 T+1"]:
        """Sweeps of one image; where its maps come to no number they count as no maps."""
        return np.stack([self._sweep(image, one) for one in self._localizations(image)])

    def figures(self, counts: Int64[ndarray, "t c+1 c+1 T+1"]) -> Figures:
        """``miou`` at its best ``background_threshold``, for each of ``num_steps``."""
        found: Figures = []
        for steps, own in zip(self.steps or (None,), counts, strict=True):
            sweep = ThresholdSweep(self.thresholds, own)
            curve = np.nan_to_num(sweep.mean_iou(self.over or None))
            best = int(curve.argmax())
            read: dict[str, float] = {} if steps is None else {"num_steps": steps}
            found.append(
                read | {"background_threshold": self.thresholds[best], "miou": float(curve[best])}
            )
        return found

    def _localizations(self, image: TrialImage) -> Iterator[Localization | None]:
        """For each number of steps; None where there is none."""
        pixels, number = torch.from_numpy(image.pixels.copy()), max(len(self.steps), 1)
        if not image.classes:
            yield from itertools.repeat(None, number)
            return
        if not isinstance(self.method, AdvCAM | RIB) or not self.steps:
            alone = partial(self.method.run, self.network, pixels[None], [image.classes])
            yield from _while_finite(lambda: alone(MAP_STRIDE, [image.id]))
            return
        course = partial(self.method.course, self.network, pixels, image.classes)
        found = list(_while_finite(lambda: course(image.id, MAP_STRIDE)))
        first = 0 if self.method.add_last else 1
        for steps in self.steps:  # an image that ended early stays where it ended
            yield found[min(steps - first, len(found) - 1)]

    def _sweep(self, image: TrialImage, found: Localization | None) -> CountArray:
        maps, classes = np.zeros((0, *image.truth.shape), np.float32), image.classes[:0]
        if found is not None and bool(found.maps.isfinite().all()):
            small = found.maps.float().cpu().numpy().clip(0, 1)
            maps = enlarge(Seeds(image.id, image.classes, small, image.truth.shape))
            classes = image.classes
        return ThresholdSweep.of(
            image.truth, maps, classes, self.num_classes, self.thresholds
        ).counts


def _while_finite(make: Callable[[], Iterable[Localization]]) -> Iterator[Localization | None]:
    """What is made, and None in place of the first that has no number."""
    try:
        yield from make()
    except FloatingPointError:
        yield None


class MaskTrial:
    """Trials of a refiner of stored maps: mean IoU of its masks, ignored pixels as background."""

    def __init__(self, refiner: Refiner, num_classes: int, over: Sequence[int] = ()):
        self.refiner, self.num_classes, self.over = refiner, num_classes, list(over)

    def zeros(self) -> Int64[ndarray, "c+1 c+1"]:
        """A confusion."""
        return Confusion.zeros(self.num_classes).counts

    def count(self, image: TrialImage) -> Int64[ndarray, "c+1 c+1"]:
        """The confusion of one image."""
        if image.seeds is None:
            raise ValueError(f"image {image.id!r} must come with stored maps, got none")
        labels = self.refiner(image.pixels, enlarge(image.seeds), image.seeds.classes)
        return Confusion.of(image.truth, labels, self.num_classes).counts

    def figures(self, counts: Int64[ndarray, "c+1 c+1"]) -> Figures:
        """``miou``."""
        mean = Confusion(counts).mean_iou(self.over or None)
        return [{"miou": float(np.nan_to_num(mean))}]


class ObjectTrial:
    """Trials of a method that makes maps of objects in boxes: mean IoU of the objects' masks.

    Args:
        number_of: class index of the run to that of the detector.
        refiners: maps to masks, one for each value that is read off.
        read: the values that each refiner has, such as ``{"box_crf.foreground": 0.8}``.
    """

    def __init__(
        self,
        method: BoxAttribution,
        detector: Detector,
        number_of: Sequence[int | None],
        refiners: Sequence[BoxRefiner],
        read: Sequence[Mapping[str, float]],
    ):
        self.method, self.detector, self.number_of = method, detector, number_of
        self.refiners, self.read = refiners, read

    def zeros(self) -> Int64[ndarray, "t 2"]:
        """Sum of IoUs and number of objects for each refiner."""
        return np.zeros((len(self.refiners), 2), np.int64)

    def count(self, image: TrialImage) -> Int64[ndarray, "t 2"]:
        """Of the objects whose class the detector knows; one that it misses counts by its box.

        Pixels whose truth is 255, VOC's borders, are left out of both masks.
        """
        known = [i for i, c in enumerate(image.box_classes) if self.number_of[c] is not None]
        counts = self.zeros()
        if not known:
            return counts
        boxes = image.boxes_xyxy[known]
        classes = torch.tensor([self.number_of[image.box_classes[i]] for i in known])
        (made,) = self.method.run(
            self.detector,
            torch.from_numpy(image.pixels.copy())[None],
            [Objects(torch.from_numpy(boxes), classes)],
            [image.id],
        )
        counted = image.truth != IGNORE
        making = [refiner.on(image.pixels) for refiner in self.refiners]
        for one, box, place in zip(made, boxes, known, strict=True):
            map_ = enlarge_grid(one.grid, image.truth.shape).numpy()
            for t, refine in enumerate(making):
                iou = mask_iou(refine(map_, box).foreground, image.masks[place], counted)
                counts[t] += (round(iou * IOU_UNITS), 1)
        return counts

    def figures(self, counts: Int64[ndarray, "t 2"]) -> Figures:
        """``object_iou`` for each value that was read off."""
        means = counts[:, 0] / IOU_UNITS / counts[:, 1].clip(1)
        pairs = zip(self.read, means.tolist(), strict=True)
        return [{**read, "object_iou": mean} for read, mean in pairs]


def lengthened(method: Any, steps: Sequence[int]) -> Any:
    """A method that takes as many steps as any of these, all of which can be read off it.

    RIB's rate decays over its steps, so that a shorter run is no part of a longer one; here it
    decays over the longest, and so it does in what is read off.
    """
    if not steps:
        return method
    longest = replace(method, num_steps=max(steps))
    if isinstance(longest, RIB) and longest.power and not longest.decay_steps:
        return replace(longest, decay_steps=max(steps))
    return longest


def tagged_image(row: Row, truths: Truths, seeds: Seeds | None = None) -> TrialImage:
    """A decoded row with its true labels."""
    pixels = _pixels(row)
    truth = truths.read(row["id"], pixels.shape[:2])
    return TrialImage(row["id"], pixels, tuple(row["classes"]), truth, seeds)


def boxed_image(row: Row, truths: TrueObjects) -> TrialImage:
    """A decoded row with the true masks of its objects, as far as they are known.

    Raises:
        ValueError: the row has no pixels or its truth cannot be used; a reason is given.
    """
    pixels = _pixels(row)
    size_hw = (pixels.shape[0], pixels.shape[1])
    boxes = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
    counted = truths.counted(row["id"], size_hw)
    masks = {
        place: mask
        for place, mask in truths.masks(row["id"], size_hw).items()
        if mask[counted].any() and not box_problem(boxes[place], size_hw)
    }
    return TrialImage(
        row["id"],
        pixels,
        tuple(row["classes"]),
        np.where(counted, np.uint8(0), np.uint8(IGNORE)),
        boxes_xyxy=boxes[list(masks)],
        box_classes=tuple(row["box_classes"][place] for place in masks),
        masks=tuple(masks.values()),
    )


def _pixels(row: Row) -> UInt8[ndarray, "h w 3"]:
    if row["status"] == "error":
        raise ValueError(row["error"])
    return np.frombuffer(row["pixels"], np.uint8).reshape(row["height"], row["width"], 3)
