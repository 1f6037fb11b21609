"""Pixel counts of each label, the ratios made of them, and the means of those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int64, Integer
from numpy import ndarray

from rayseg.records import IGNORE


def plain(value: Any) -> Any:
    """Arrays and numbers as plain Python, nan as None, ready for JSON."""
    if isinstance(value, ndarray):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(value)
    return int(value) if isinstance(value, np.integer) else value


def check_labels(name: str, labels: ndarray, num_classes: int) -> None:
    """Raises where an array holds anything but labels of that many classes or 255."""
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


def ratio_of(part: ndarray, whole: ndarray, seen: ndarray) -> ndarray:
    """``part / whole``; 0 where a seen label has an empty denominator, nan where it is unseen."""
    ratio = np.where(seen, 0.0, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def mean_of(values: Float[ndarray, "... m"]) -> Float[ndarray, ...]:
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
        return {name: plain(value) for name, value in vars(self).items()}


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
        return ratio_of(self.intersection, union, union > 0)

    @property
    def precision(self) -> Float[ndarray, "... c+1"]:
        """Share of the pixels predicted as a label that are right, in [0, 1] or nan."""
        return ratio_of(self.intersection, self.predicted, self.truth + self.predicted > 0)

    @property
    def recall(self) -> Float[ndarray, "... c+1"]:
        """Share of a label's true pixels that were found, in [0, 1] or nan."""
        return ratio_of(self.intersection, self.truth, self.truth + self.predicted > 0)

    @property
    def f1(self) -> Float[ndarray, "... c+1"]:
        """Harmonic mean of each label's own precision and recall, in [0, 1] or nan."""
        both = self.truth + self.predicted
        return ratio_of(2 * self.intersection, both, both > 0)

    def columns(self, labels: Sequence[int] | None) -> list[int]:
        """The labels asked for, all of them for None; a label that does not exist is an error."""
        count = self.truth.shape[-1]
        wanted = list(range(count)) if labels is None else [int(label) for label in labels]
        if any(not 0 <= label < count for label in wanted):
            raise ValueError(f"labels must lie in 0 to {count - 1} (0 is background), got {wanted}")
        return wanted

    def mean_iou(self, labels: Sequence[int] | None = None) -> Float[ndarray, ...]:
        """Mean IoU over some labels (all for None), nan ones left out."""
        return mean_of(self.iou[..., self.columns(labels)])

    def over(self, labels: Sequence[int] | None = None) -> Means:
        """All means over some labels (all for None) of counts of shape (c+1,)."""
        wanted = self.columns(labels)
        iou, precision, recall = (
            float(mean_of(ratio[wanted])) for ratio in (self.iou, self.precision, self.recall)
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
    def zeros(cls, num_classes: int) -> Self:
        """Nothing counted yet; the start of a sum."""
        return cls(np.zeros((num_classes + 1, num_classes + 1), np.int64))

    @classmethod
    def of(
        cls, truth: Integer[ndarray, "h w"], predicted: Integer[ndarray, "h w"], num_classes: int
    ) -> Self:
        """Counts one image.

        Args:
            truth: true labels, 0 to num_classes, or 255 for pixels to leave out.
            predicted: predicted labels; 255 ("unsure") counts as background, as IRN's
                eval_sem_seg does.

        Raises:
            ValueError: the sizes differ or a label is out of range.
            TypeError: an array does not hold whole numbers.
        """
        _check_shapes(truth, predicted, "predicted")
        check_labels("truth", truth, num_classes)
        check_labels("predicted", predicted, num_classes)
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

    def mean_iou(self, labels: Sequence[int] | None = None) -> float:
        """Mean IoU over some labels (all for None)."""
        return float(self.overlap.mean_iou(labels))

    def over(self, labels: Sequence[int] | None = None) -> Means:
        """Mean IoU, precision, recall and F1 over some labels (all for None).

        Example: ``confusion.over(confusion.present)`` for the labels that the truth holds,
        ``confusion.over([0, 8, 10])`` for background and the classes of index 7 and 9.
        """
        return self.overlap.over(labels)
