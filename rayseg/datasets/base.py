"""What every reader of a foreign data set is, and the checks that they share."""

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from rayseg.datasets.tally import Tally
from rayseg.records import MAX_CLASSES, Sample
from rayseg.records.images import ImageError, read_size
from rayseg.records.palette import encode_labels


class DatasetError(ValueError):
    """A data set whose content is not as expected; its text names the file, the line, a way out."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """A file or folder of a data set is not where it should be."""


class Dataset(ABC):
    """A reader: a frozen dataclass whose fields are its flags, all with defaults."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the foreground classes; a class index is a position in it."""

    @property
    def category_ids(self) -> tuple[int | str, ...]:
        """Id of each class in the data set's own counting."""
        return tuple(range(1, len(self.classes) + 1))

    def samples(self, workspace: Path, tally: Tally | None = None) -> Iterator[Sample]:
        """Yields the samples in a fixed order; ids are unique, paths absolute.

        An image that cannot be read stops nothing: its sample has height and width 0, and the
        stage that decodes it reports why. An image without tags is kept with ``tags=()``.

        Args:
            workspace: folder that the reader may write images and masks into.
            tally: is told what was taken, and what was left out with its reason.

        Raises:
            DatasetError: something that is needed is missing or contradicts itself.
        """
        return self.read(workspace, tally or Tally())

    @abstractmethod
    def read(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """What `samples` yields; each is given to `Tally.take_sample`."""

    @abstractmethod
    def files(self) -> Iterator[Path]:
        """Yields each file that the samples follow from, and each folder that is searched for them.

        Whoever compares path, size and time of writing of each notices every change of the data
        set: of a list, an annotation, an image or a mask, and of what a folder holds. A path may
        come twice, and need not exist; no image is opened.

        Raises:
            DatasetError: a list that names the images is missing or cannot be read.
        """


def require(path: Path, what: str, way_out: str) -> Path:
    """Returns the absolute form of a path that must exist.

    Raises:
        DatasetNotFoundError: it does not.
    """
    if not path.exists():
        raise DatasetNotFoundError(f"{what} not found at {path.absolute()}: {way_out}")
    return path.absolute()


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``, did you mean 'x'?`` for the closest known name, or the first ten known names."""
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f", did you mean {close[0]!r}?"
    shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    return f", known are: {shown}"


def check_classes(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Returns the class names if they can number an 8-bit mask.

    Raises:
        DatasetError: none, too many, an empty name or one given twice.
    """
    if not names:
        raise DatasetError(f"{where} names no class, expected at least one")
    if len(names) > MAX_CLASSES:
        raise DatasetError(
            f"{where} names {len(names)} classes, an 8-bit mask holds {MAX_CLASSES}: "
            "merge or split them into several runs"
        )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1 or not name.strip()]
    if twice:
        raise DatasetError(f"{where} has the class name {twice[0]!r} empty or twice: rename it")
    return names


def size_or_zero(path: Path) -> tuple[int, int]:
    """Returns height and width in stored pixels, or (0, 0) where the image cannot be read."""
    try:
        return read_size(path)
    except ImageError:
        return 0, 0


def box_arrays(
    boxes_xyxy: list[tuple[float, float, float, float]], classes: list[int]
) -> tuple[Float[ndarray, "o 4"], Int[ndarray, " o"]]:
    """Returns the arrays of a sample's boxes; both lists may be empty."""
    boxes = np.array(boxes_xyxy, dtype=np.float32).reshape(-1, 4)
    return boxes, np.array(classes, dtype=np.int64)


def finite(text: str) -> float:
    """Returns the number that a text says."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number must be finite, got {text!r}")
    return number


def write_mask(path: Path, labels: UInt8[ndarray, "h w"]) -> None:
    """Writes labels as an indexed PNG, pixel values are the labels."""
    path.write_bytes(encode_labels(labels))
