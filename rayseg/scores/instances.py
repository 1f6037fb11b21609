"""Scores of single objects that are found: average precision, average best overlap.

Average precision is that of pycocotools: its matching and its mean over 101 recalls. Boxes and
masks are judged alike, each by its own overlap. Of masks only the pixels count that the truth does
not ignore, as VOC's does borders: the others are cut from truths and guesses before they meet.

Source: Lin et al., Microsoft COCO, ECCV 2014, and cocodataset.org, detection evaluation; ABO:
Pont-Tuset and Van Gool, ICCV 2015, as in the dissertation's Table 5.1.
"""

import contextlib
import copy
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from pycocotools import mask as codec
from pycocotools.cocoeval import COCOeval

from rayseg.records.boxes import box_areas, clip_boxes
from rayseg.records.rle import as_rle, cut_mask, encode_mask, mask_area, mask_ious
from rayseg.scores.counts import mean_of, plain
from rayseg.scores.sizes import COCO_BOUNDS_PX

IOU_THRESHOLDS = (0.25, *np.linspace(0.5, 0.95, 10).tolist())
MAX_GUESSES = 100
"""The likeliest guesses of one class in one image that count."""
_AREAS = ("all", "small", "medium", "large")
_NO_BOUND = 1e10


@dataclass(frozen=True, eq=False)
class ObjectTruths:
    """What one image truly holds.

    Attributes:
        size_hw: height and width of the image.
        boxes_xyxy: (o, 4) in pixels.
        classes: (o,) class indices.
        ignored: (o,) objects that are neither hit nor missed: difficult ones and crowds. However
            many guesses find one, none of them counts, as in VOC and COCO.
        crowd: (o,) those that hold many objects: a guess overlaps one as far as it lies inside.
        masks: COCO's run-length counts of each object; () where none is known.
        counted: counts of the pixels that masks are judged by; empty where that is all.
    """

    size_hw: tuple[int, int]
    boxes_xyxy: Float[ndarray, "o 4"]
    classes: Int[ndarray, " o"]
    ignored: Bool[ndarray, " o"]
    crowd: Bool[ndarray, " o"]
    masks: tuple[bytes, ...] = ()
    counted: bytes = b""

    def __post_init__(self) -> None:
        _check_number(self, ("classes", "ignored", "crowd"))


@dataclass(frozen=True, eq=False)
class ObjectGuesses:
    """The objects that a source finds in one image.

    Attributes:
        boxes_xyxy: (o, 4) in pixels.
        classes: (o,) class indices.
        scores: (o,) of any scale; more is surer.
        masks: COCO's run-length counts of each object; () where only boxes are judged.
    """

    boxes_xyxy: Float[ndarray, "o 4"]
    classes: Int[ndarray, " o"]
    scores: Float[ndarray, " o"]
    masks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        _check_number(self, ("classes", "scores"))


def _check_number(one: ObjectTruths | ObjectGuesses, names: tuple[str, ...]) -> None:
    number = len(one.boxes_xyxy)
    for name in names:
        if len(getattr(one, name)) != number:
            raise ValueError(f"{name} must be {number}, one a box, got {len(getattr(one, name))}")
    if len(one.masks) not in (0, number):
        raise ValueError(f"masks must be {number}, one a box, or none, got {len(one.masks)}")


@dataclass(frozen=True, eq=False)
class PrecisionScores:
    """Average precision by threshold, class and size; every mean is over classes with a truth.

    Attributes:
        table: float (t, c, 4) in [0, 1] by `IOU_THRESHOLDS`, class and size: all, small, medium,
            large; nan where the class has no truth of that size.
        bounds_px: areas at which medium and large begin.
    """

    table: Float[ndarray, "t c 4"]
    bounds_px: tuple[int, int] = COCO_BOUNDS_PX

    @property
    def ap(self) -> float:
        """Mean over the thresholds .5, .55 to .95, as COCO's AP."""
        return self._over("all")

    @property
    def by_class(self) -> Float[ndarray, " c"]:
        """AP of each class, nan without truth."""
        return self.table[1:, :, 0].mean(0)

    @property
    def by_class_50(self) -> Float[ndarray, " c"]:
        """AP of each class at threshold .5, nan without truth."""
        return self.table[_place_of(0.5), :, 0]

    def at(self, threshold: float) -> float:
        """AP at one of `IOU_THRESHOLDS`."""
        return float(mean_of(self.table[_place_of(threshold), :, 0]))

    def _over(self, area: str) -> float:
        return float(mean_of(self.table[1:, :, _AREAS.index(area)].mean(0)))

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python; nan becomes None."""
        figures = {
            "ap": self.ap,
            **{f"ap{round(100 * t)}": self.at(t) for t in (0.25, 0.5, 0.7, 0.75)},
            **{area: self._over(area) for area in _AREAS[1:]},
            "ap_by_class": self.by_class,
            "ap50_by_class": self.by_class_50,
        }
        return {name: plain(value) for name, value in figures.items()} | {
            "bounds_px": list(self.bounds_px)
        }


def _place_of(threshold: float) -> int:
    near = np.isclose(IOU_THRESHOLDS, threshold)
    if not near.any():
        raise ValueError(f"threshold must be one of {IOU_THRESHOLDS}, got {threshold}")
    return int(near.argmax())


def average_precision(
    truths: Mapping[str, ObjectTruths],
    guesses: Mapping[str, ObjectGuesses],
    num_classes: int,
    kind: Literal["boxes", "masks"],
    bounds_px: tuple[int, int] = COCO_BOUNDS_PX,
) -> PrecisionScores:
    """AP of all images together.

    An object's size is the area of its mask where it has one, for boxes as well, as in COCO; a
    guess's is that of what is judged. A truth without a pixel in its image is ignored, as nobody
    can find it.

    COCOeval would ignore crowds only, and lets one guess alone go with any other object that is
    ignored; here difficult objects are ignored too, and take as many guesses as come, as in VOC.

    Args:
        truths: by id; an image that `guesses` lacks was guessed to be empty.
        bounds_px: areas at which medium and large begin.

    Raises:
        ValueError: a guess is of no image of `truths`, a class index is too large, or masks are
            asked for where a truth or a guess has none.
    """
    _check(truths, guesses, num_classes, kind)
    if kind == "masks":
        truths, guesses = _counted_only(truths, guesses)
    evaluation = COCOeval(iouType="bbox" if kind == "boxes" else "segm")
    settings = evaluation.params
    settings.imgIds = list(range(len(truths)))
    settings.catIds = list(range(num_classes))
    settings.iouThrs = np.array(IOU_THRESHOLDS)
    settings.maxDets = [MAX_GUESSES]
    edges = (0, *bounds_px, _NO_BOUND)
    settings.areaRng = [[0, _NO_BOUND], *([low, high] for low, high in pairwise(edges))]
    settings.areaRngLbl = list(_AREAS)
    _fill(evaluation, truths, guesses, kind)
    evaluation.evalImgs = [
        evaluation.evaluateImg(image, category, span, MAX_GUESSES)
        for category in settings.catIds
        for span in settings.areaRng
        for image in settings.imgIds
    ]
    evaluation._paramsEval = copy.deepcopy(settings)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0]  # (t, r, c, 4)
    return PrecisionScores(np.where(precision < 0, np.nan, precision).mean(1), bounds_px)


def _check(
    truths: Mapping[str, ObjectTruths],
    guesses: Mapping[str, ObjectGuesses],
    num_classes: int,
    kind: str,
) -> None:
    strange = set(guesses).difference(truths)
    if strange:
        raise ValueError(
            f"guesses must be of the {len(truths)} images with truth, got {min(strange)!r}"
        )
    for what, part in (("truths", truths), ("guesses", guesses)):
        for id_, one in part.items():
            if len(one.classes) and not 0 <= one.classes.min() <= one.classes.max() < num_classes:
                raise ValueError(
                    f"classes of {what} must be 0..{num_classes - 1}, got "
                    f"{one.classes.tolist()} for {id_!r}"
                )
            if kind == "masks" and (len(one.masks) < len(one.classes)):
                raise ValueError(
                    f"{what} must have {len(one.classes)} masks for {id_!r}, got {len(one.masks)}"
                )
            if kind == "masks" and what == "truths" and not all(one.masks):
                raise ValueError(f"truths must have a mask of each object, {id_!r} lacks one")


def _counted_only(
    truths: Mapping[str, ObjectTruths], guesses: Mapping[str, ObjectGuesses]
) -> tuple[dict[str, ObjectTruths], dict[str, ObjectGuesses]]:
    """Both with the masks' pixels that count."""
    return (
        {id_: replace(one, masks=_cut(one.masks, one)) for id_, one in truths.items()},
        {id_: replace(one, masks=_cut(one.masks, truths[id_])) for id_, one in guesses.items()},
    )


def _cut(masks: tuple[bytes, ...], truth: ObjectTruths) -> tuple[bytes, ...]:
    if not truth.counted:
        return masks
    return tuple(cut_mask(mask, truth.counted, truth.size_hw) for mask in masks)


def _fill(
    evaluation: COCOeval,
    truths: Mapping[str, ObjectTruths],
    guesses: Mapping[str, ObjectGuesses],
    kind: Literal["boxes", "masks"],
) -> None:
    """Gives COCOeval its objects and their overlaps, by image and class."""
    evaluation._gts, evaluation._dts = defaultdict(list), defaultdict(list)
    evaluation.ious = {}
    number = 0  # COCOeval takes object 0 for none
    for image, id_ in enumerate(sorted(truths)):
        truth = truths[id_]
        guess = guesses.get(id_, _NOTHING)
        for category in sorted({*truth.classes.tolist(), *guess.classes.tolist()}):
            true = np.flatnonzero(truth.classes == category)
            found = np.flatnonzero(guess.classes == category)
            found = found[np.argsort(-guess.scores[found], kind="stable")][:MAX_GUESSES]
            evaluation._gts[image, category] = _true_entries(truth, true, kind, number)
            evaluation._dts[image, category] = _guessed_entries(guess, found, truth, kind, number)
            evaluation.ious[image, category] = _overlaps(truth, true, guess, found, kind)
            number += len(true) + len(found)


_NOTHING = ObjectGuesses(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0))


def _true_entries(
    truth: ObjectTruths, places: Int[ndarray, " o"], kind: str, first: int
) -> list[dict[str, Any]]:
    areas = [_true_area(truth, i) for i in places]
    inside = box_areas(clip_boxes(truth.boxes_xyxy[places], truth.size_hw))
    empty = np.array(areas) == 0 if kind == "masks" else inside == 0
    ignored = truth.ignored[places] | truth.crowd[places] | empty
    # Its key iscrowd decides there only whether many guesses may go with one truth.
    return [
        {"id": first + 1 + i, "area": area, "ignore": int(out), "iscrowd": int(out)}
        for i, (area, out) in enumerate(zip(areas, ignored, strict=True))
    ]


def _true_area(truth: ObjectTruths, place: int) -> float:
    if truth.masks and truth.masks[place]:
        return mask_area(truth.masks[place], truth.size_hw)
    return float(box_areas(truth.boxes_xyxy[place : place + 1])[0])


def _guessed_entries(
    guess: ObjectGuesses, places: Int[ndarray, " o"], truth: ObjectTruths, kind: str, first: int
) -> list[dict[str, Any]]:
    areas = (
        [mask_area(guess.masks[i], truth.size_hw) for i in places]
        if kind == "masks"
        else box_areas(guess.boxes_xyxy[places]).tolist()
    )
    return [
        {"id": first + 1 + i, "area": area, "score": float(guess.scores[place])}
        for i, (place, area) in enumerate(zip(places, areas, strict=True))
    ]


def _overlaps(
    truth: ObjectTruths,
    true: Int[ndarray, " o"],
    guess: ObjectGuesses,
    found: Int[ndarray, " m"],
    kind: str,
) -> Float[ndarray, "m o"]:
    """Overlap of every guess with every truth, by crowd's rule where one is a crowd."""
    if not len(true) or not len(found):
        return np.zeros((len(found), len(true)))
    crowd = truth.crowd[true].astype(int).tolist()
    if kind == "boxes":
        sides = (_xywh(guess.boxes_xyxy[found]), _xywh(truth.boxes_xyxy[true]))
        return np.nan_to_num(codec.iou(*sides, crowd))
    empty = encode_mask(np.zeros(truth.size_hw, bool))
    found_masks = [as_rle(guess.masks[i] or empty, truth.size_hw) for i in found]
    true_masks = [as_rle(truth.masks[i], truth.size_hw) for i in true]
    return np.nan_to_num(codec.iou(found_masks, true_masks, crowd))


def _xywh(boxes_xyxy: Float[ndarray, "o 4"]) -> Float[ndarray, "o 4"]:
    boxes = boxes_xyxy.astype(np.float64)
    return np.concatenate([boxes[:, :2], np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)], 1)


# ------------------------------------------------------------------------------- best overlap


def average_best_overlap(
    truths: Mapping[str, ObjectTruths], guesses: Mapping[str, ObjectGuesses], num_classes: int
) -> float | None:
    """Mean over the true objects of the best mask IoU with any guess of the class, of any score.

    The mean is taken over the objects of each class, then over the classes that have some. Objects
    that are ignored are left out.

    Args:
        guesses: by id; an image that it lacks has no guess, so that its objects have overlap 0.

    Returns:
        A number in [0, 1]; None where there is no true object.

    Raises:
        ValueError: as `average_precision` of masks.
    """
    _check(truths, guesses, num_classes, "masks")
    truths, guesses = _counted_only(truths, guesses)
    best: dict[int, list[float]] = defaultdict(list)
    for id_, truth in truths.items():
        for category, value in _best_of(truth, guesses.get(id_, _NOTHING)):
            best[category].append(value)
    return float(np.mean([np.mean(values) for values in best.values()])) if best else None


def _best_of(truth: ObjectTruths, guess: ObjectGuesses) -> Iterator[tuple[int, float]]:
    """Class and best overlap of each object of an image that counts."""
    counted = np.flatnonzero(~(truth.ignored | truth.crowd))
    for category in np.unique(truth.classes[counted]).tolist():
        true = counted[truth.classes[counted] == category]
        found = np.flatnonzero(guess.classes == category)
        found_masks, true_masks = (
            [part.masks[i] for i in places] for part, places in ((guess, found), (truth, true))
        )
        ious = mask_ious(found_masks, true_masks, truth.size_hw)
        yield from ((category, float(best)) for best in ious.max(0, initial=0))
