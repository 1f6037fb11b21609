"""The scores of masks by the size of what was to be found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray

from rayseg.scores.counts import Confusion, Means, Overlap, plain, ratio_of

COCO_BOUNDS_PX = (32**2, 96**2)
BANDS = ("small", "medium", "large", "absent")


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
    def zeros(cls, num_classes: int, bounds_px: tuple[int, int] = COCO_BOUNDS_PX) -> Self:
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
        return ratio_of(self.truth.sum(0), regions, regions > 0)

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
            "mean_size_px": plain(self.mean_size_px),
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
