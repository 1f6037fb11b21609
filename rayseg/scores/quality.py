"""Signs of poor masks that need no true masks: counts of each class, and warnings in words.

Counts are integers of the images that are tagged with a class; they add, and shares are made of
their sums. What the signs are worth was measured on photos with true masks, whose figures are in
docs/results.md: a class is warned of where its counts are like those of classes whose masks were
poor (true IoU under 30 %).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from jaxtyping import Int64, UInt8
from numpy import ndarray

LEAST_IMAGES = 3
"""Images with a mask below which nothing is said of a class."""
WIDE = 0.6
"""Share of its images that a class covers from which its masks are too wide.

No class of the VOC images that were measured truly covers more than 40 % of its images.
"""
UNRECOGNISED = 0.7
"""Share of its images in which the classifier denies a class, from which its masks are poor."""
LACKING = 0.25
"""Share of its masks that lack a class from which it is warned of; each of them is wrong."""
MAX_LINES = 5
"""Warnings that are shown one by one."""


@dataclass(frozen=True, eq=False)
class TagCounts:
    """Counts of each class over the images that have its tag and a mask.

    Undecided pixels (255) belong to no class, and to the image all the same.

    Attributes:
        images: int64 (c,) images.
        lacking: int64 (c,) those of them whose mask has no pixel of the class.
        pixels: int64 (c,) pixels of the images.
        covered: int64 (c,) those of them that have the class.
    """

    images: Int64[ndarray, " c"]
    lacking: Int64[ndarray, " c"]
    pixels: Int64[ndarray, " c"]
    covered: Int64[ndarray, " c"]

    @classmethod
    def zeros(cls, num_classes: int) -> Self:
        """Nothing counted yet; the start of a sum."""
        return cls(*(np.zeros(num_classes, np.int64) for _ in fields(cls)))

    @classmethod
    def of(cls, labels: UInt8[ndarray, "h w"], tags: Sequence[int], num_classes: int) -> Self:
        """Counts one image.

        Args:
            labels: 0 background, class index + 1, 255 undecided.
            tags: class indices of the image.
        """
        counts = cls.zeros(num_classes)
        own = sorted(set(tags))
        found = np.bincount(labels.ravel(), minlength=256)[[tag + 1 for tag in own]]
        counts.images[own] = 1
        counts.lacking[own] = found == 0
        counts.pixels[own] = labels.size
        counts.covered[own] = found
        return counts

    def __add__(self, other: TagCounts) -> TagCounts:
        if len(self.images) != len(other.images):
            raise ValueError(
                f"only counts of equally many classes add, got {len(self.images)} "
                f"and {len(other.images)}"
            )
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return TagCounts(*(one + two for one, two in pairs))

    @property
    def flat(self) -> Int64[ndarray, " n"]:
        """All counts in the order of the fields, one class after the other in each."""
        return np.concatenate(list(vars(self).values()))

    @classmethod
    def from_flat(cls, counts: Sequence[int]) -> Self:
        """The counts that `flat` gave."""
        return cls(*np.array(counts, np.int64).reshape(len(fields(cls)), -1))


@dataclass(frozen=True)
class ClassQuality:
    """What is known of the masks of one class without true masks.

    Attributes:
        name: of the class.
        images: images with its tag and a mask.
        lacking: those of them whose mask lacks it.
        pixels: of these images.
        covered: those of them that have the class.
        asked: images with its tag and a map.
        unrecognised: those of them in which the classifier's logit of the class is below 0.
    """

    name: str
    images: int
    lacking: int
    pixels: int
    covered: int
    asked: int = 0
    unrecognised: int = 0

    @property
    def covered_share(self) -> float | None:
        """Share of the images that it covers, in [0, 1]."""
        return _ratio(self.covered, self.pixels)

    @property
    def lacking_share(self) -> float | None:
        """Share of its masks that lack it, in [0, 1]."""
        return _ratio(self.lacking, self.images)

    @property
    def unrecognised_share(self) -> float | None:
        """Share of its images in which the classifier denies it, in [0, 1]; None without maps."""
        return _ratio(self.unrecognised, self.asked)

    @property
    def sign(self) -> str:
        """The first of `SIGNS` that holds; empty where none does, or there are too few images."""
        if self.images < LEAST_IMAGES:
            return ""
        return next((name for name, (holds, _) in SIGNS.items() if holds(self)), "")

    @property
    def warning(self) -> str:
        """What is most likely wrong and what to do, in words; empty where there is no sign."""
        return SIGNS[self.sign][1](self) if self.sign else ""

    def as_dict(self) -> dict[str, Any]:
        """Counts and shares as plain numbers, with the sign and its words."""
        shares = ("covered_share", "lacking_share", "unrecognised_share")
        words = {"sign": self.sign, "warning": self.warning}
        return vars(self) | {name: getattr(self, name) for name in shares} | words


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _is_at_least(share: float | None, bound: float) -> bool:
    return share is not None and share >= bound


def _says_wide(one: ClassQuality) -> str:
    return (
        f"masks cover {100 * (one.covered_share or 0):.0f} % of the images with its tag; the "
        "classifier has most likely learned the background; add pictures that do not show it "
        "(`--folder.negatives`), or give boxes"
    )


def _says_unrecognised(one: ClassQuality) -> str:
    return (
        f"the classifier does not recognise it in {one.unrecognised} of {one.asked} images with "
        "its tag; it has most likely seen too few; add pictures of it, train longer "
        "(`--classifier.epochs`), or give boxes"
    )


def _says_lacking(one: ClassQuality) -> str:
    return (
        f"{one.lacking} of its {one.images} masks do not have it; the background threshold is most "
        "likely too high for its maps; lower it (`--thresholds.METHOD`), or add pictures of it"
    )


SIGNS: dict[str, tuple[Callable[[ClassQuality], bool], Callable[[ClassQuality], str]]] = {
    "wide": (lambda one: _is_at_least(one.covered_share, WIDE), _says_wide),
    "unrecognised": (
        lambda one: (
            one.asked >= LEAST_IMAGES and _is_at_least(one.unrecognised_share, UNRECOGNISED)
        ),
        _says_unrecognised,
    ),
    "lacking": (lambda one: _is_at_least(one.lacking_share, LACKING), _says_lacking),
}
"""When each sign holds, and its words; in the order in which one is chosen where several hold."""


def qualities(
    classes: Sequence[str],
    counts: TagCounts,
    asked: Sequence[int] | None = None,
    unrecognised: Sequence[int] | None = None,
) -> list[ClassQuality]:
    """Each class that has an image with a mask, in the order of the classes.

    Args:
        classes: names.
        counts: of their masks.
        asked: images with the tag and a map, by class; None where there are no maps.
        unrecognised: those of them that the classifier denies.
    """
    none = [0] * len(classes)
    columns = zip(
        *(own.tolist() for own in vars(counts).values()),
        asked or none,
        unrecognised or none,
        strict=True,
    )
    found = [ClassQuality(name, *own) for name, own in zip(classes, columns, strict=True)]
    return [one for one in found if one.images]


def warning_lines(judged: Mapping[str, Sequence[ClassQuality]]) -> list[str]:
    """One line for each class that is warned of, at most `MAX_LINES`, then how many more there are.

    Of a class with several signs the first of `SIGNS` is shown, of the first masks that have it.

    Args:
        judged: by the name of the masks, which a line has where there are several, unless it is of
            the classifier alone.
    """
    order = list(SIGNS)
    poor = [(one, masks) for masks, found in judged.items() for one in found if one.sign]
    poor.sort(key=lambda pair: (order.index(pair[0].sign), -pair[0].images))
    chosen: dict[str, tuple[ClassQuality, str]] = {}
    for one, masks in poor:
        chosen.setdefault(one.name, (one, masks))
    lines = [
        f"{one.name}{_place(one, masks) if len(judged) > 1 else ''}: {one.warning}"
        for one, masks in chosen.values()
    ]
    more = len(lines) - MAX_LINES
    return [*lines[:MAX_LINES], *([f"and {more} more in report.html"] if more > 0 else [])]


def _place(one: ClassQuality, masks: str) -> str:
    return "" if one.sign == "unrecognised" else f" ({masks})"
