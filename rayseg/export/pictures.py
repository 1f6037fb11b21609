"""Masks as pictures: one of 0 and 255 a class, and photographs with their masks on them.

    folder/<split>/<class>/<id>.png    255 where the mask has the class, else 0
    folder/<split>/<id>.png            the photograph with its mask in colours

A file that is there is never changed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from rayseg.export.base import PHOTO, Export
from rayseg.export.files import make_folder, write_once
from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.file_names import apart, file_stem
from rayseg.records.painting import encode_png, painted
from rayseg.records.palette import decode_labels

Image = UInt8[np.ndarray, "..."]


@dataclass(frozen=True)
class PictureExport:
    """What was written: so many pictures of so many images."""

    folder: Path
    images: int
    masks: int
    left_out: int = 0

    def __str__(self) -> str:
        return f"{self.masks} pictures of {self.images} images in {self.folder}"


class DrawnMasks(ABC):
    """Masks as files of pictures."""

    columns: ClassVar[tuple[str, ...]]
    statuses: ClassVar[tuple[str, ...]] = ("ok",)

    @abstractmethod
    def pictures(
        self, row: Mapping[str, Any], folders: Sequence[str]
    ) -> Iterator[tuple[str, Image]]:
        """What is drawn of an image: the folder within its split, and pixels.

        Args:
            row: of the masks.
            folders: a name for each class, from which a path can be made.
        """

    def write(self, export: Export) -> PictureExport:
        """Writes them.

        Raises:
            FileExistsError: a picture is there with other content.
        """
        folder = Path(export.folder)
        make_folder(folder)
        folders = _folder_names(export.classes)
        images = masks = 0
        for row in export.rows:
            for inner, pixels in self.pictures(row, folders):
                place = folder / export.split / inner / f"{file_stem(row['id'])}.png"
                write_once(folder, place, encode_png(pixels))
                masks += 1
            images += 1
        return PictureExport(folder, images, masks)


@dataclass(frozen=True)
class BinaryMasks(DrawnMasks):
    """A picture of 0 and 255 for each class that an image's mask has; what is ignored is 0."""

    columns: ClassVar[tuple[str, ...]] = ("labels",)

    def pictures(
        self, row: Mapping[str, Any], folders: Sequence[str]
    ) -> Iterator[tuple[str, Image]]:
        """One a class, in the class's folder."""
        labels = decode_labels(row["labels"])
        for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
            if label not in (BACKGROUND, IGNORE):
                yield folders[int(label) - 1], (labels == label).astype(np.uint8) * 255


@dataclass(frozen=True)
class Overlays(DrawnMasks):
    """Photographs with their masks on them in colours, at the size at which they were seen."""

    columns: ClassVar[tuple[str, ...]] = ("labels", PHOTO)

    def pictures(
        self, row: Mapping[str, Any], folders: Sequence[str]
    ) -> Iterator[tuple[str, Image]]:
        """One, in the split's folder."""
        del folders
        yield "", painted(row[PHOTO], decode_labels(row["labels"]))


def _folder_names(classes: Sequence[str]) -> list[str]:
    """A folder of one name for each class, different also where letters have no case."""
    names: list[str] = []
    for one in classes:
        names.append(apart(file_stem(one.replace("/", "\\")), {name.lower() for name in names}))
    return names
