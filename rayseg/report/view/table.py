"""All images of a manifest as ids and numbers, and which of them are asked for, in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64
from numpy import ndarray

from rayseg.store import FAILED, Folder, read_manifest

STATUSES = ("no row", "ok", "empty", *FAILED)
"""What an image can be in a folder of results; a number is a place in this list."""
ORDERS = {
    "id": "as in the data set",
    "undecided": "most undecided first",
    "missing": "most tags missing first",
}
"""Orders of images, and what people call them."""
ALL, UNTAGGED = -1, -2
"""In place of a class index: every image, and those without tags."""


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The images of a manifest: a few numbers for each, so that a million of them fit.

    Attributes:
        ids: by number, in the order of the manifest.
        splits: names of the splits, sorted.
        split_of: (n,) place of each image's split in `splits`.
        tags: (t,) class indices of all images, one after the other.
        first_tag: (n + 1,) where each image's tags begin in `tags`.
        size_hw: (n, 2) height and width in pixels, as the image is seen.
        classes: names of the classes.
    """

    ids: list[str]
    splits: tuple[str, ...]
    split_of: Int32[ndarray, " n"]
    tags: Int32[ndarray, " t"]
    first_tag: Int64[ndarray, " n+1"]
    size_hw: Int32[ndarray, "n 2"]
    classes: tuple[str, ...]

    @classmethod
    def read(cls, run: Folder) -> Self:
        """Reads the columns that are needed.

        Raises:
            FileNotFoundError: the run has no manifest.
            ValueError: it is damaged.
        """
        columns = ("id", "split", "tags", "height", "width")
        manifest = read_manifest(run / "manifest", only=columns)
        table = manifest.table.combine_chunks()
        splits, split_of = np.unique(table.column("split").to_numpy(), return_inverse=True)
        tags = table.column("tags").combine_chunks()
        counts = tags.value_lengths().to_numpy(zero_copy_only=False)
        return cls(
            table.column("id").to_pylist(),
            tuple(splits.tolist()),
            split_of.astype(np.int32),
            tags.flatten().to_numpy().astype(np.int32),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.stack([table.column(n).to_numpy() for n in ("height", "width")], 1),
            manifest.classes,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def tags_of(self, number: int) -> list[int]:
        """Class indices of an image's tags."""
        return self.tags[self.first_tag[number] : self.first_tag[number + 1]].tolist()

    def tagged(self, index: int) -> Bool[ndarray, " n"]:
        """Which images have the tag; `UNTAGGED` asks for those without any."""
        if index == UNTAGGED:
            return np.diff(self.first_tag) == 0
        owners = np.repeat(np.arange(len(self)), np.diff(self.first_tag))
        found = np.zeros(len(self), bool)
        found[owners[self.tags == index]] = True
        return found

    def named(self, text: str) -> Bool[ndarray, " n"]:
        """Which ids have the text in them, in upper or lower case."""
        low = text.casefold()
        return np.fromiter((low in id_.casefold() for id_ in self.ids), bool, len(self))


@dataclass(frozen=True)
class Selection:
    """Which images are asked for, and in which order.

    Attributes:
        of_class: a class index, `ALL` or `UNTAGGED`.
        split: only images of it; empty means all.
        status: one of STATUSES; empty means all.
        search: text that is in the id; empty means all.
        order: one of ORDERS.
    """

    of_class: int = ALL
    split: str = ""
    status: str = ""
    search: str = ""
    order: str = "id"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order must be {', '.join(ORDERS)}, got {self.order!r}")
        if self.status and self.status not in STATUSES:
            raise ValueError(f"status must be {', '.join(STATUSES)}, got {self.status!r}")


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of each image in one folder of results, without any truth.

    Attributes:
        status: (n,) places in STATUSES.
        figures: the measures that images are sorted by, by their names in ORDERS: (n,) shares in
            [0, 1], larger is worse, nan where not known.
    """

    status: Int32[ndarray, " n"]
    figures: Mapping[str, Float32[ndarray, " n"]] = field(default_factory=dict)


def select(table: ImageTable, judged: Judged, wanted: Selection) -> Int64[ndarray, " m"]:
    """Numbers of the images that are asked for; those whose measure is not known come last."""
    kept = np.ones(len(table), bool)
    if wanted.of_class != ALL:
        kept &= table.tagged(wanted.of_class)
    if wanted.split:
        known = wanted.split in table.splits
        kept &= table.split_of == table.splits.index(wanted.split) if known else False
    if wanted.status:
        kept &= judged.status == STATUSES.index(wanted.status)
    if wanted.search:
        kept &= table.named(wanted.search)
    numbers = np.flatnonzero(kept)
    if wanted.order == "id":
        return numbers
    figures = judged.figures[wanted.order][numbers]
    return numbers[np.argsort(-np.nan_to_num(figures, nan=-1.0), kind="stable")]
