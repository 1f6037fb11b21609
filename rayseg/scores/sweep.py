"""The scores of localization maps at every background threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float32, Int, Int64, Integer
from numpy import ndarray

from rayseg.records import IGNORE
from rayseg.scores.counts import Confusion, Overlap, check_labels, mean_of, plain


def thresholds_every(step: float) -> list[float]:
    """Background thresholds from 0 to below 1, as far apart as `step`."""
    return np.arange(0, 1, step).round(6).tolist()


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
    def zeros(cls, num_classes: int, thresholds: Sequence[float]) -> Self:
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
            thresholds: ascending background values.
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

    def mean_iou(self, labels: Sequence[int] | None = None) -> Float[ndarray, " T"]:
        """Mean IoU over some labels (all for None), at each threshold."""
        return self.overlap.mean_iou(labels)

    def best(self, labels: Sequence[int] | None = None) -> float | None:
        """The lowest threshold of the highest mean IoU over some labels (all for None).

        None where none of the labels was ever seen, so that no threshold is best.
        """
        scores = self.mean_iou(labels)
        return None if np.isnan(scores).all() else self.thresholds[int(np.nanargmax(scores))]

    def as_dict(self, labels: Sequence[int] | None = None) -> dict[str, Any]:
        """The curves as plain Python, nan as None; ``miou_over`` is the one over some labels."""
        overlap = self.overlap
        curves = {
            "thresholds": list(self.thresholds),
            "miou": plain(overlap.mean_iou()),
            "precision": plain(mean_of(overlap.precision)),
            "recall": plain(mean_of(overlap.recall)),
        }
        return curves if labels is None else curves | {"miou_over": plain(overlap.mean_iou(labels))}


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
    check_labels("truth", truth, num_classes)


def _top(maps: Float32[ndarray, "k h w"]) -> tuple[Float32[ndarray, "h w"], Int[ndarray, "h w"]]:
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
