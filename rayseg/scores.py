"""Scores of masks, from integer counts that add; ratios are made once, at the end.

A count of one image, of one worker or of a whole dataset is the same type, and ``+`` merges them,
so that a score does not depend on how the images were shared out. mIoU is the IoU of the *summed*
confusion matrix (the segmentation measure of PASCAL VOC, Everingham et al., IJCV 2015), never a
mean of per-image IoUs.

Shape letters as in `rayseg.records`, T thresholds, and c+1 counts all labels: 0 background, class
index + 1. "Label" always means the number in a mask; 255 is no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Int64, Integer
from numpy import ndarray

IGNORE = 255
COCO_BOUNDS_PX = (32**2, 96**2)
BANDS = ("small", "medium", "large", "absent")


def _plain(value: Any) -> Any:
    """Arrays and numbers as plain Python, nan as None, ready for JSON."""
    if isinstance(value, ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value


def _check_labels(name: str, labels: ndarray, num_classes: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{name} must hold whole numbers, got {labels.dtype.name}")
    wrong = (labels != IGNORE) & ((labels < 0) | (labels > num_classes))
    if wrong.any():
        raise ValueError(
            f"{name} must hold labels 0 to {num_classes} (num_classes = {num_classes}) "
            f"or {IGNORE}, got {int(labels[wrong][0])}"
        )


def _check_shapes(truth: ndarray, other: ndarray, name: str) -> None:
    if truth.ndim != 2 or truth.shape != other.shape:
        raise ValueError(
            f"truth and {name} must be (h, w) of one size, got {truth.shape} and {other.shape}"
        )


def _ratio(part: ndarray, whole: ndarray, seen: ndarray) -> ndarray:
    """``part / whole``; 0 where a seen label has an empty denominator, nan where it is unseen."""
    ratio = np.where(seen, 0.0, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean(values: Float[ndarray, "... m"]) -> Float[ndarray, ...]:
    """Mean over the last axis without its nans; nan, and no warning, where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    total = np.where(known, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


@dataclass(frozen=True)
class Means:
    """Means over several labels; each in [0, 1], nan where none of the labels was seen.

    Attributes:
        iou: mean of the labels' IoUs.
        precision: mean of the labels' precisions.
        recall: mean of the labels' recalls.
        f1: harmonic mean of the two means before it, **not** the mean of the labels' F1. The
            dissertation's Table 4.1 is made this way (66.9 from 61.9 and 72.7, and so on for all
            six rows), though it does not say so.
    """

    iou: float
    precision: float
    recall: float
    f1: float

    def as_dict(self) -> dict[str, float | None]:
        """The four figures as plain numbers, None for nan."""
        return {name: _plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True, eq=False)
class Overlap:
    """Pixel counts of each label and the ratios made of them.

    Precision, recall and F1 are counted over pixels for each label and then averaged over labels
    ("class-mean"), as for mIoU, with background among them unless other labels are asked for. The
    dissertation (Table 4.1, chapter 4) reports such means beside mIoU without a definition; pooling
    all pixels instead would make precision equal recall, which its figures rule out.

    A label that neither truth nor prediction holds is nan everywhere and left out of means. A label
    that only one of them holds scores 0 everywhere, so that all means are over the same labels.

    Attributes:
        intersection: int64 (..., c+1) pixels where truth and prediction both hold the label.
        truth: int64 (..., c+1) pixels of the label in the truth.
        predicted: int64 (..., c+1) pixels predicted as the label.
    """

    intersection: Int64[ndarray, "... c+1"]
    truth: Int64[ndarray, "... c+1"]
    predicted: Int64[ndarray, "... c+1"]

    @property
    def iou(self) -> Float[ndarray, "... c+1"]:
        """Intersection over union of each label, in [0, 1] or nan."""
        union = self.truth + self.predicted - self.intersection
        return _ratio(self.intersection, union, union > 0)

    @property
    def precision(self) -> Float[ndarray, "... c+1"]:
        """Share of the pixels predicted as a label that are right, in [0, 1] or nan."""
        return _ratio(self.intersection, self.predicted, self.truth + self.predicted > 0)

    @property
    def recall(self) -> Float[ndarray, "... c+1"]:
        """Share of a label's true pixels that were found, in [0, 1] or nan."""
        return _ratio(self.intersection, self.truth, self.truth + self.predicted > 0)

    @property
    def f1(self) -> Float[ndarray, "... c+1"]:
        """Harmonic mean of each label's own precision and recall, in [0, 1] or nan."""
        both = self.truth + self.predicted
        return _ratio(2 * self.intersection, both, both > 0)

    def columns(self, labels: Sequence[int] | None) -> list[int]:
        """The labels asked for, all of them for None; a label that does not exist is an error."""
        count = self.truth.shape[-1]
        wanted = list(range(count)) if labels is None else [int(label) for label in labels]
        if any(not 0 <= label < count for label in wanted):
            raise ValueError(f"labels must lie in 0 to {count - 1} (0 is background), got {wanted}")
        return wanted

    def mean_iou(self, labels: Sequence[int] | None = None) -> Float[ndarray, ...]:
        """Mean IoU over some labels (all for None), nan ones left out."""
        return _mean(self.iou[..., self.columns(labels)])

    def over(self, labels: Sequence[int] | None = None) -> Means:
        """All means over some labels (all for None) of counts of shape (c+1,)."""
        wanted = self.columns(labels)
        iou, precision, recall = (
            float(_mean(ratio[wanted])) for ratio in (self.iou, self.precision, self.recall)
        )
        total = precision + recall
        # nan stays nan: only a true zero would divide by zero
        f1 = 0.0 if total == 0 else 2 * precision * recall / total
        return Means(iou, precision, recall, f1)


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each true label was predicted as each label.

    Attributes:
        counts: int64 (c+1, c+1) pixels, indexed ``[truth, predicted]``.
    """

    counts: Int64[ndarray, "c+1 c+1"]

    def __post_init__(self) -> None:
        counts = self.counts
        if counts.ndim != 2 or len(set(counts.shape)) != 1 or counts.dtype != np.int64:
            raise ValueError(
                f"counts must be int64 (c+1, c+1), got {counts.dtype.name} {counts.shape}"
            )

    @classmethod
    def zeros(cls, num_classes: int) -> Confusion:
        """Nothing counted yet; the start of a sum."""
        return cls(np.zeros((num_classes + 1, num_classes + 1), np.int64))

    @classmethod
    def of(
        cls,
        truth: Integer[ndarray, "h w"],
        predicted: Integer[ndarray, "h w"],
        num_classes: int,
    ) -> Confusion:
        """Counts one image.

        Args:
            truth: true labels, 0 to num_classes, or 255 for pixels to leave out.
            predicted: predicted labels; 255 ("unsure") counts as background, as IRN's
                eval_sem_seg does.
            num_classes: foreground classes of the dataset.

        Raises:
            ValueError: the sizes differ or a label is out of range.
            TypeError: an array does not hold whole numbers.
        """
        _check_shapes(truth, predicted, "predicted")
        _check_labels("truth", truth, num_classes)
        _check_labels("predicted", predicted, num_classes)
        kept = truth != IGNORE
        found = predicted[kept].astype(np.int64)
        found[found == IGNORE] = 0
        side = num_classes + 1
        index = truth[kept].astype(np.int64) * side + found
        return cls(np.bincount(index, minlength=side * side).reshape(side, side))

    def __add__(self, other: Confusion) -> Confusion:
        if self.counts.shape != other.counts.shape:
            raise ValueError(
                f"only counts of equally many classes add, got {self.num_classes} "
                f"and {other.num_classes}"
            )
        return Confusion(self.counts + other.counts)

    @property
    def num_classes(self) -> int:
        """Foreground classes, c."""
        return len(self.counts) - 1

    @property
    def overlap(self) -> Overlap:
        """The counts of each label, of shape (c+1,)."""
        return Overlap(self.counts.diagonal(), self.counts.sum(1), self.counts.sum(0))

    @property
    def present(self) -> tuple[int, ...]:
        """Labels that the truth holds, ascending."""
        return tuple(int(label) for label in np.flatnonzero(self.counts.sum(1)))

    @property
    def iou(self) -> Float[ndarray, " c+1"]:
        """IoU of each label; see `Overlap`."""
        return self.overlap.iou

    @property
    def precision(self) -> Float[ndarray, " c+1"]:
        """Precision of each label; see `Overlap`."""
        return self.overlap.precision

    @property
    def recall(self) -> Float[ndarray, " c+1"]:
        """Recall of each label; see `Overlap`."""
        return self.overlap.recall

    @property
    def f1(self) -> Float[ndarray, " c+1"]:
        """F1 of each label; see `Overlap`."""
        return self.overlap.f1

    @property
    def miou(self) -> float:
        """Mean IoU over all labels with background, those never seen left out (nanmean)."""
        return self.mean_iou()

    def mean_iou(self, labels: Sequence[int] | None = None) -> float:
        """Mean IoU over some labels (all for None)."""
        return float(self.overlap.mean_iou(labels))

    def over(self, labels: Sequence[int] | None = None) -> Means:
        """Mean IoU, precision, recall and F1 over some labels (all for None).

        Example: ``confusion.over(confusion.present)`` for the labels that the truth holds,
        ``confusion.over([0, 8, 10])`` for background and the classes of index 7 and 9.
        """
        return self.overlap.over(labels)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python; nan becomes None."""
        ratios = ("iou", "precision", "recall", "f1")
        return {
            "num_classes": self.num_classes,
            "counts": self.counts.tolist(),
            "present": list(self.present),
            **{name: _plain(getattr(self, name)) for name in ratios},
            "mean": self.over().as_dict(),
            "mean_present": self.over(self.present).as_dict(),
        }


@dataclass(frozen=True, eq=False)
class ThresholdSweep:
    """The confusion at every background threshold, from one pass over the maps.

    At threshold t a pixel is ``argmax([t, maps])`` (IRN's eval_cam): its top class where the top
    value is greater than t, else background, on a tie too. So a pixel's top class, its top value's
    place among the thresholds and its true label say all there is to know of it.

    Attributes:
        thresholds: ascending; compared as float32, the maps' own type.
        counts: int64 (c+1, c+1, T+1) pixels, indexed ``[truth, top label, number of thresholds
            below the top value]``; pixels of images without any class have top label 0, number 0.
    """

    thresholds: tuple[float, ...]
    counts: Int64[ndarray, "c+1 c+1 T+1"]

    def __post_init__(self) -> None:
        steps = np.asarray(self.thresholds, np.float32)
        if steps.ndim != 1 or not steps.size or not (np.diff(steps) > 0).all():
            raise ValueError(f"thresholds must ascend without repeats, got {self.thresholds}")
        side, shape = self.counts.shape[0], self.counts.shape
        if shape != (side, side, len(steps) + 1) or self.counts.dtype != np.int64:
            raise ValueError(
                f"counts must be int64 (c+1, c+1, {len(steps) + 1}), "
                f"got {self.counts.dtype.name} {shape}"
            )

    @classmethod
    def zeros(cls, num_classes: int, thresholds: Sequence[float]) -> ThresholdSweep:
        """Nothing counted yet; the start of a sum."""
        steps = tuple(float(step) for step in thresholds)
        side = num_classes + 1
        return cls(steps, np.zeros((side, side, len(steps) + 1), np.int64))

    @classmethod
    def of(
        cls,
        truth: Integer[ndarray, "h w"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
        num_classes: int,
        thresholds: Sequence[float],
    ) -> ThresholdSweep:
        """Counts one image at every threshold.

        Args:
            truth: true labels, 0 to num_classes, or 255 for pixels to leave out.
            maps: localization maps at the size of the truth, without nan.
            classes: class index of each map; k may be 0.
            num_classes: foreground classes of the dataset.
            thresholds: ascending background values.

        Raises:
            ValueError: shapes, classes, labels or values do not fit.
        """
        sweep = cls.zeros(num_classes, thresholds)
        _check_maps(truth, maps, classes, num_classes)
        kept = truth != IGNORE
        labels = truth[kept].astype(np.int64)
        if not len(classes):
            sweep.counts[:, 0, 0] = np.bincount(labels, minlength=num_classes + 1)
            return sweep
        value, which = _top(maps)
        steps = np.asarray(sweep.thresholds, np.float32)
        below = np.searchsorted(steps, value[kept], side="left")
        shape = (num_classes + 1, len(classes), len(steps) + 1)
        index = (labels * shape[1] + which[kept]) * shape[2] + below
        counts = np.bincount(index, minlength=int(np.prod(shape))).reshape(shape)
        sweep.counts[:, [number + 1 for number in classes]] = counts
        return sweep

    def __add__(self, other: ThresholdSweep) -> ThresholdSweep:
        if self.thresholds != other.thresholds or self.counts.shape != other.counts.shape:
            raise ValueError(
                "only sweeps of one list of thresholds and equally many classes add, got "
                f"{len(self.thresholds)} and {len(other.thresholds)} thresholds, "
                f"{len(self.counts) - 1} and {len(other.counts) - 1} classes"
            )
        return ThresholdSweep(self.thresholds, self.counts + other.counts)

    def confusion(self, index: int) -> Confusion:
        """The confusion at ``thresholds[index]``, index counted from 0."""
        above = self.counts[:, :, range(len(self.thresholds))[index] + 1 :].sum(-1)
        above[:, 0] = self.counts.sum((1, 2)) - above.sum(1)
        return Confusion(above)

    @property
    def overlap(self) -> Overlap:
        """The counts of each label at each threshold, of shape (T, c+1)."""
        above = self.counts[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]  # (c+1, c+1, T)
        truth = self.counts.sum((1, 2))
        intersection = above.diagonal().copy()  # (T, c+1)
        intersection[:, 0] = truth[0] - above[0].sum(0)
        predicted = above.sum(0).T.copy()
        predicted[:, 0] = truth.sum() - predicted.sum(1)
        return Overlap(intersection, np.broadcast_to(truth, predicted.shape), predicted)

    @property
    def miou(self) -> Float[ndarray, " T"]:
        """Mean IoU over all labels with background, at each threshold."""
        return self.mean_iou()

    def mean_iou(self, labels: Sequence[int] | None = None) -> Float[ndarray, " T"]:
        """Mean IoU over some labels (all for None), at each threshold."""
        return self.overlap.mean_iou(labels)

    @property
    def best(self) -> tuple[float, Confusion]:
        """The threshold of the highest mean IoU over all labels, and the confusion there."""
        return self.best_over()

    def best_over(self, labels: Sequence[int] | None = None) -> tuple[float, Confusion]:
        """The (lowest) threshold of the highest mean IoU over some labels, and its confusion.

        Raises:
            ValueError: none of the labels was ever seen, so that no threshold is best.
        """
        scores = self.mean_iou(labels)
        if np.isnan(scores).all():
            raise ValueError("no threshold is best: nothing was counted for these labels")
        index = int(np.nanargmax(scores))
        return self.thresholds[index], self.confusion(index)

    def as_dict(self) -> dict[str, Any]:
        """The curve and the best point as plain Python; nan becomes None."""
        overlap = self.overlap
        curve = {
            "thresholds": list(self.thresholds),
            "miou": _plain(overlap.mean_iou()),
            "precision": _plain(_mean(overlap.precision)),
            "recall": _plain(_mean(overlap.recall)),
        }
        if not self.counts.any():
            return curve
        threshold, confusion = self.best
        return curve | {"best_threshold": threshold, "best": confusion.as_dict()}


def _check_maps(truth: ndarray, maps: ndarray, classes: Sequence[int], num_classes: int) -> None:
    expected = (len(classes), *truth.shape)
    if truth.ndim != 2 or maps.shape != expected or maps.dtype != np.float32:
        raise ValueError(
            f"maps must be float32 {expected} (k = {len(classes)} classes at the truth's size), "
            f"got {maps.dtype.name} {maps.shape}"
        )
    if len(set(classes)) != len(classes) or any(not 0 <= c < num_classes for c in classes):
        raise ValueError(
            f"classes must be different indices from 0 to {num_classes - 1}, got {tuple(classes)}"
        )
    if maps.size and np.isnan(maps.min()):
        raise ValueError("maps must not hold nan")
    _check_labels("truth", truth, num_classes)


def _top(
    maps: Float32[ndarray, "k h w"],
) -> tuple[Float32[ndarray, "h w"], Int[ndarray, "h w"]]:
    """The greatest value of each pixel and the first map that has it.

    A running maximum is several times as fast as ``argmax(axis=0)``, which strides over the maps.
    """
    value = maps[0].copy()
    which = np.zeros(value.shape, np.int64)
    for number in range(1, len(maps)):
        greater = maps[number] > value
        np.copyto(value, maps[number], where=greater)
        which[greater] = number
    return value, which


@dataclass(frozen=True, eq=False)
class SizeCounts:
    """Pixel counts of each label by the size of what was to be found.

    The unit is a *region*: all pixels of one class in one image's true mask. A semantic mask does
    not tell touching objects apart, so two cows are one region. Its size in pixels puts it in a
    band: small below 32^2, medium below 96^2, large from there on; these are COCO's bounds for
    objects (cocodataset.org, detection evaluation; the dissertation's APS, APM and APL, chapter 5).
    What is predicted as the class anywhere in that image counts in the region's band; in an image
    without the class it counts in the band ``absent``, so that the four bands sum to the whole
    confusion.

    Attributes:
        bounds_px: pixels at which medium and large begin. COCO's fit images of about 640x480; give
            others for 128-pixel scenes.
        regions: int64 (4, c+1) images that hold the label, by band; images counted for ``absent``.
        intersection: int64 (4, c+1) pixels, as in `Overlap`.
        truth: int64 (4, c+1) pixels, as in `Overlap`.
        predicted: int64 (4, c+1) pixels, as in `Overlap`.
    """

    bounds_px: tuple[int, int]
    regions: Int64[ndarray, "4 c+1"]
    intersection: Int64[ndarray, "4 c+1"]
    truth: Int64[ndarray, "4 c+1"]
    predicted: Int64[ndarray, "4 c+1"]

    def __post_init__(self) -> None:
        if not 0 < self.bounds_px[0] < self.bounds_px[1]:
            raise ValueError(f"bounds_px must be positive and ascend, got {self.bounds_px}")

    @classmethod
    def zeros(cls, num_classes: int, bounds_px: tuple[int, int] = COCO_BOUNDS_PX) -> SizeCounts:
        """Nothing counted yet; the start of a sum."""
        return cls(bounds_px, *(np.zeros((4, num_classes + 1), np.int64) for _ in range(4)))

    @classmethod
    def of(cls, image: Confusion, bounds_px: tuple[int, int] = COCO_BOUNDS_PX) -> SizeCounts:
        """Counts one image, from **that image's own** confusion (not from a sum)."""
        sizes = cls.zeros(image.num_classes, bounds_px)
        overlap = image.overlap
        band = np.searchsorted(bounds_px, overlap.truth, side="right")
        band[overlap.truth == 0] = BANDS.index("absent")
        label = np.arange(len(band))
        sizes.regions[band, label] = 1
        sizes.intersection[band, label] = overlap.intersection
        sizes.truth[band, label] = overlap.truth
        sizes.predicted[band, label] = overlap.predicted
        return sizes

    def __add__(self, other: SizeCounts) -> SizeCounts:
        if self.bounds_px != other.bounds_px or self.truth.shape != other.truth.shape:
            raise ValueError(
                "only counts of one pair of bounds and equally many classes add, got "
                f"{self.bounds_px} and {other.bounds_px}, "
                f"{self.truth.shape[1] - 1} and {other.truth.shape[1] - 1} classes"
            )
        return SizeCounts(
            self.bounds_px,
            self.regions + other.regions,
            self.intersection + other.intersection,
            self.truth + other.truth,
            self.predicted + other.predicted,
        )

    @property
    def total(self) -> Overlap:
        """All bands together, of shape (c+1,): equal to the summed confusion's."""
        return Overlap(self.intersection.sum(0), self.truth.sum(0), self.predicted.sum(0))

    @property
    def mean_size_px(self) -> Float[ndarray, " c+1"]:
        """Mean size of each label's regions in pixels, nan for a label without any."""
        regions = self.regions[:3].sum(0)
        return _ratio(self.truth.sum(0), regions, regions > 0)

    def band(self, name: str) -> Overlap:
        """The counts of ``small``, ``medium``, ``large`` or ``absent``, of shape (c+1,)."""
        if name not in BANDS:
            raise ValueError(f"a band is one of {', '.join(BANDS)}, got {name!r}")
        row = BANDS.index(name)
        return Overlap(self.intersection[row], self.truth[row], self.predicted[row])

    def over(self, name: str) -> Means:
        """Means of a band over the foreground classes that have a region in it."""
        overlap = self.band(name)
        return overlap.over([int(label) for label in np.flatnonzero(overlap.truth) if label > 0])

    def by_class_size(self, count: int = 10) -> dict[str, Means]:
        """Means over the classes of the smallest and of the largest objects; see `extreme_classes`.

        The counts are those of all bands, so a class's IoU here is its IoU in the whole confusion.

        Source: Lee, dissertation section 3.3.5 and Table 3.5.
        """
        smallest, largest = extreme_classes(self.mean_size_px, count)
        return {"smallest": self.total.over(smallest), "largest": self.total.over(largest)}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain Python; nan becomes None."""
        smallest, largest = extreme_classes(self.mean_size_px)
        return {
            "bounds_px": list(self.bounds_px),
            "regions": dict(zip(BANDS, self.regions.tolist(), strict=True)),
            "mean_size_px": _plain(self.mean_size_px),
            **{name: self.over(name).as_dict() for name in BANDS[:3]},
            "smallest_labels": list(smallest),
            "largest_labels": list(largest),
            **{f"{name}_classes": m.as_dict() for name, m in self.by_class_size().items()},
        }


def extreme_classes(
    mean_size_px: Float[ndarray, " c+1"], count: int = 10
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Labels of the classes with the smallest and with the largest objects on average.

    The dissertation lists COCO's classes by "the average size of the target objects" and takes ten
    from each end; whether by instances or by images it does not say, and we take regions, one an
    image (see `SizeCounts`). Of fewer than 2 * count classes each end is half, so that the ends
    never share a class; the middle one of an odd number is in neither.

    Args:
        mean_size_px: mean size of each label's regions, nan where there are none; entry 0, the
            background, is not looked at.
        count: classes at each end.

    Returns:
        Two tuples of labels (class index + 1), by ascending size.
    """
    order = [int(label) for label in np.argsort(mean_size_px, kind="stable") if label > 0]
    order = [label for label in order if not np.isnan(mean_size_px[label])]
    count = min(count, len(order) // 2)
    return tuple(order[:count]), tuple(order[len(order) - count :])
