"""True semantic masks of a data set: found by the image's id, and looked at before they count."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from rayseg.datasets.base import DatasetError, nearest, write_mask
from rayseg.datasets.class_names import ClassIndex
from rayseg.datasets.listing import Stems, list_folder
from rayseg.datasets.reading import read_bytes
from rayseg.datasets.tally import Tally
from rayseg.records import BACKGROUND, IGNORE
from rayseg.records.file_names import file_stem
from rayseg.records.palette import decode_labels
from rayseg.records.scaling import shrink_labels

_LOSSY = (".jpg", ".jpeg", ".webp")
_EXACT = ("PNG", "BMP", "TIFF")
_WORDS = {"background": BACKGROUND, "ignore": IGNORE}


def check_mask_values(texts: Sequence[str]) -> None:
    """Refuses what is no list of pixel values and their classes.

    Raises:
        DatasetError: a text is not like ``255=cat``, or a value comes twice.
    """
    values = [text.partition("=")[0].strip() for text in texts]
    for text, value in zip(texts, values, strict=True):
        known = value.isdecimal() and int(value) <= 255 and text.partition("=")[2].strip()
        if not known or values.count(value) > 1:
            raise DatasetError(
                "mask_values must be pixel values of 0 to 255 with a class each, all different, "
                f"such as 255=cat, got {text!r}"
            )


def label_of_values(texts: Sequence[str], index: ClassIndex) -> dict[int, int]:
    """The label that each given pixel value stands for; 0 is background unless it is given.

    Raises:
        DatasetError: a class is not known.
    """
    labels = {0: BACKGROUND}
    for text in texts:
        value, _, name = (part.strip() for part in text.partition("="))
        number = index.of(name)
        if number is None and name not in _WORDS:
            known = (*index.names, *_WORDS)
            raise DatasetError(f"mask_values: unknown class {name!r}{nearest(name, known)}")
        labels[int(value)] = _WORDS[name] if number is None else number + 1
    return labels


class TrueMasks:
    """Finds and checks the masks of images; what cannot be used is counted with its reason.

    Args:
        folders: of masks ID.png, the first one that has an image's counts.
        index: of the classes that labels number.
        tally: gets what is left out.
        labels: the label of each pixel value; None where values are labels.
        workspace: folder for the masks of labels that are not their values.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        index: ClassIndex,
        tally: Tally,
        labels: Mapping[int, int] | None = None,
        workspace: Path = Path(),
    ):
        self._folders = [Stems(folder.absolute()) for folder in folders if folder.is_dir()]
        self._index, self._tally = index, tally
        self._labels, self._workspace = labels, workspace.absolute() / "masks"
        self._tagged: set[int] = set()
        self._held: set[int] = set()
        self._first_ignored = self._first_id = ""
        self._images = self._found = 0

    def of(
        self,
        id_: str,
        size_hw: tuple[int, int],
        tags: Sequence[int],
        given: Path | None = None,
        seen_hw: tuple[int, int] | None = None,
    ) -> str:
        """The path of an image's mask; empty where there is none that can be used.

        Args:
            id_: of the image.
            size_hw: of the image; (0, 0) where it is not known.
            tags: class indices of the image.
            given: the mask, where a list names it.
            seen_hw: at which the image is seen, where that is another size; the mask is then
                written into the workspace at it.
        """
        self._images += 1
        self._first_id = self._first_id or id_
        found = (folder.find(id_, ".png") for folder in self._folders)
        path = given or next(filter(None, found), None)
        if path is None:
            return ""
        if not os.path.lexists(path):  # a list may name masks that nobody has downloaded
            text = "that a list names, not found: their images have no true mask"
            self._tally.note("masks", text, str(path))
            return ""
        self._found += 1
        try:
            labels = self._read(path, size_hw)
        except ValueError as error:
            self._tally.leave_out("masks", str(error), str(path))
            return ""
        self._look_at(labels, path, tags)
        is_smaller = seen_hw is not None and seen_hw != labels.shape and min(seen_hw) > 0
        if is_smaller and seen_hw:
            labels = shrink_labels(labels, seen_hw)
        if self._labels is None and not is_smaller:
            return str(path)
        target = self._workspace / f"{file_stem(id_)}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mask(target, labels)
        return str(target)

    def say_of_all(self, way_out: str) -> None:
        """Says what shows only when all images have been asked for.

        Args:
            way_out: what to do where all masks are of 0 and 255.

        Raises:
            DatasetError: the masks hold no class, only background and what is ignored, though
                their images are tagged.
        """
        if self._tagged and not self._held and self._first_ignored:
            raise DatasetError(
                f"true masks such as {self._first_ignored} hold only {BACKGROUND}, background, and "
                f"{IGNORE}, which is ignored, and no class that their images are tagged with: "
                f"{way_out}"
            )
        for number in sorted(self._tagged - self._held):
            text = "tagged, and held by no true mask of the images that are tagged so"
            self._tally.note("classes", text, repr(self._index.names[number]))

    def say_unfound(self) -> None:
        """Says if the folders hold masks, and none is named after an image."""
        if self._images and not self._found and self._folders:
            folder = self._folders[0].folder
            there = next((path.name for path in list_folder(folder)), "nothing")
            text = "not found for any image: expected files named after the images, ID.png"
            example = f"{folder}/{self._first_id}.png; the folder holds {there}"
            self._tally.leave_out("masks", text, example, self._images)

    def _read(self, path: Path, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The labels of a mask.

        Raises:
            ValueError: it cannot be used; the text names no file.
        """
        if path.suffix.lower() in _LOSSY:
            raise ValueError(f"a {path.suffix.lower()} changes values: save masks as PNG")
        try:
            data = read_bytes(path)
        except DatasetError:
            raise ValueError("a folder, pipe or device, or may not be read") from None
        labels = _plain_labels(data) if self._labels is None else _mapped(data, self._labels)
        if min(size_hw) and labels.shape != size_hw:
            raise ValueError("of another size than its image")
        top = int((labels + np.uint8(1)).max()) - 1  # 255 wraps around to 0, and is no class
        if top > len(self._index.names):
            raise ValueError(f"holds a label above {len(self._index.names)}, the number of classes")
        return labels

    def _look_at(self, labels: UInt8[ndarray, "h w"], path: Path, tags: Sequence[int]) -> None:
        there = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
        held = {label - 1 for label in there if label not in (BACKGROUND, IGNORE)}
        self._held |= held
        self._tagged |= set(tags)
        if IGNORE in there and tags:
            self._first_ignored = self._first_ignored or str(path)
        strange = sorted(held - set(tags))
        if strange:
            text = "that hold a class which their image is not tagged with"
            self._tally.note("masks", text, f"{path}: {self._index.names[strange[0]]!r}")


def _plain_labels(data: bytes) -> UInt8[ndarray, "h w"]:
    try:
        return decode_labels(data)
    except ValueError as error:  # a broken file's bytes are counted in its text
        start, _, end = str(error).partition(", got ")
        raise ValueError(start if "bytes" in end else str(error)) from None


def _mapped(data: bytes, labels: Mapping[int, int]) -> UInt8[ndarray, "h w"]:
    """Pixel values, of one channel or three equal ones, as the labels that they stand for."""
    try:
        with Image.open(io.BytesIO(data), formats=_EXACT) as picture:
            values = np.array(picture.convert("L") if picture.mode in ("1", "LA") else picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ValueError("a mask must be a whole image file of PNG, BMP or TIFF") from None
    if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
        values = values[..., 0]
    if values.ndim != 2 or values.dtype != np.uint8:
        raise ValueError("a mask must be grey or indexed, of 8 bits, got colours or more bits")
    table = np.full(256, -1)
    table[list(labels)] = list(labels.values())
    found = table[values]
    if (found < 0).any():
        first = values[found < 0][0]
        raise ValueError(f"holds the value {first}, for which mask_values names no class")
    return found.astype(np.uint8)
