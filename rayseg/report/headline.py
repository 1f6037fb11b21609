"""The tables of scores that the page begins with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rayseg.report.contents import Score

MEANS = {
    "mIoU": ("miou",),
    "undecided": ("undecided",),
    "of full supervision": ("of_full_supervision", "miou"),
    "mIoU, chosen": ("over", "miou"),
    "of full supervision, chosen": ("of_full_supervision", "over"),
    "mIoU, present": ("present", "miou"),
    "of full supervision, present": ("of_full_supervision", "present"),
    "precision": ("precision",),
    "recall": ("recall",),
    "F1": ("f1",),
}
"""Columns by the place of their figure in scores.json."""
ALWAYS = ("mIoU", "precision", "recall", "F1")
"""Columns that are there even without a figure."""
OBJECT_MEANS = {
    "mask IoU": ("mean_iou",),
    "IoU over 0.5": ("iou_over_50",),
    "small": ("small",),
    "medium": ("medium",),
    "large": ("large",),
    "AP": ("found", "ap"),
    "AP50": ("found", "ap50"),
    "ABO": ("found", "abo"),
    "box AP50": ("found", "boxes", "ap50"),
}
"""The same of masks of single objects; those from tags have AP and ABO."""
INSTANCE_MEANS = {
    "AP": ("ap",),
    "AP25": ("ap25",),
    "AP50": ("ap50",),
    "AP70": ("ap70",),
    "AP75": ("ap75",),
    "APs": ("small",),
    "APm": ("medium",),
    "APl": ("large",),
    "ABO": ("abo",),
    "AP50 of full supervision": ("of_full_supervision", "ap50"),
    "ABO of full supervision": ("of_full_supervision", "abo"),
    "box AP50": ("boxes", "ap50"),
}
"""The same of predicted instances."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: the line above it.
        values: a figure for each score; None where it has none.
        highest: the highest figure, those of full supervision aside; None where that is no merit.
    """

    title: str
    values: tuple[float | None, ...]
    highest: float | None


@dataclass(frozen=True)
class ScoreTable:
    """Scores that are measured on the same images.

    Attributes:
        scores: its rows.
        final: the row that the page is about.
        start: place in the page's series of the first row.
        means: its columns by the place of their figure in scores.json.
    """

    scores: tuple[Score, ...]
    final: Score | None
    start: int = 0
    means: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MEANS)

    @property
    def columns(self) -> list[Column]:
        """Columns of figures."""
        made = [self._column(title, keys) for title, keys in self.means.items()]
        return [column for column in made if column.title in ALWAYS or set(column.values) - {None}]

    def _column(self, title: str, keys: tuple[str, ...]) -> Column:
        values = tuple(score.number(*keys) for score in self.scores)
        rivals = [
            value
            for score, value in zip(self.scores, values, strict=True)
            if value is not None and not score.is_full_supervision
        ]
        return Column(title, values, None if title == "undecided" else max(rivals, default=None))

    @property
    def splits(self) -> list[str]:
        """The splits that the images are of."""
        return _in_order(score.split for score in self.scores)

    @property
    def chosen(self) -> list[str]:
        """Labels of the second mean; empty where there is none."""
        return next((names for s in self.scores if (names := s.part("over").get("names"))), [])

    @property
    def lists(self) -> list[str]:
        """The lists that the images are restricted to."""
        return _in_order(score.facts.get("ids") or "" for score in self.scores)

    @property
    def unscored(self) -> int:
        """How many images have no usable truth."""
        return max((int(s.number("skipped_count") or 0) for s in self.scores), default=0)

    @property
    def labels(self) -> list[str]:
        """Labels that are scored by themselves."""
        return list(self.final.part("per_class")) if self.final else []


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted({name for name in names if name})
