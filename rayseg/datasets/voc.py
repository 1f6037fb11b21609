"""PASCAL VOC in the layout of VOCdevkit."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    box_arrays,
    finite,
    nearest,
    require,
    size_or_zero,
)
from rayseg.datasets.listing import walk
from rayseg.datasets.tally import Tally
from rayseg.records import BACKGROUND, IGNORE, Sample
from rayseg.records.boxes import box_ious, mask_extent
from rayseg.records.palette import decode_labels
from rayseg.records.rle import encode_mask

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_FOLDERS = ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationObject")
_MIN_IOU = 0.5  # of a box and the extent of its mask
_WAY_OUT = "expected JPEGImages, ImageSets and Annotations as in VOCdevkit/VOC2012"


@dataclass(frozen=True)
class VOC(Dataset):
    """PASCAL VOC 2012, or data in its layout with its 20 classes.

    Objects marked difficult count: as tags (value 0 of ``ImageSets/Main`` as well as 1) and as
    boxes, which ``Sample.difficult`` lists. The class labels that IRN and its successors train on
    are made so, from all objects of the XML. VOC counts pixels from 1 and includes the last, so a
    box (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Boxes are as the XML
    has them, also where they leave the image or have no area.

    The true mask of an object is value k of ``SegmentationObject/ID.png`` for the XML's k-th
    object, if class and place agree with its box; else the value whose class and place do. It lacks
    the border between objects, which VOC leaves out of the truth.

    Attributes:
        root: Folder VOC2012, or the VOCdevkit that contains it.
        splits: Names of lists in ImageSets/Segmentation, else in ImageSets/Main.
        tags_from: Tags of ImageSets/Main/CLASS_SPLIT.txt (image_sets) or the XML (annotations).
        list_file: Text file of ids to read instead of the splits, one on each line. Each keeps the
            split that lists it, or else gets the first split.
    """

    root: Path = Path("VOCdevkit/VOC2012")
    splits: tuple[str, ...] = ("train",)
    tags_from: Literal["annotations", "image_sets"] = "image_sets"
    list_file: Path | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The 20 names in alphabetical order."""
        return CLASSES

    def samples(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the lists, in their order; writes nothing."""
        folder = self._folder()
        split_of = self._split_of(folder)
        tags = self._tags_of_image_sets(folder) if self.tags_from == "image_sets" else None
        if tags is not None:
            _check_covered(split_of, tags, folder)
        for name, split in split_of.items():
            known = None if tags is None else tags[name]
            yield tally.take_sample(self._sample(folder, name, split, known))

    def files(self) -> Iterator[Path]:
        """Yields the lists, and of each folder what belongs to an image that they name."""
        folder = self._folder()
        if self.list_file is not None:
            yield self.list_file.absolute()
        yield from walk(folder / "ImageSets")
        wanted = self._split_of(folder)
        for place in (folder / kind for kind in _FOLDERS):
            for path in walk(place):
                name = path.relative_to(place).as_posix()
                if path == place or name.rpartition(".")[0] in wanted or path.is_dir():
                    yield path

    def _folder(self) -> Path:
        for folder in (self.root, self.root / "VOC2012", self.root / "VOCdevkit" / "VOC2012"):
            if (folder / "JPEGImages").is_dir():
                return folder.absolute()
        raise DatasetNotFoundError(f"VOC not found at {self.root.absolute()}: {_WAY_OUT}")

    def _split_of(self, folder: Path) -> dict[str, str]:
        """Maps each id to its split, in the order of the lists."""
        if not self.splits:
            raise DatasetError("splits is empty, expected at least one name such as train")
        lists = {split: _find_list(folder, split) for split in self.splits}
        if self.list_file is None:
            files = [(path, split) for split, path in lists.items() if path]
            missing = [split for split, path in lists.items() if path is None]
            if missing:
                raise DatasetNotFoundError(
                    f"list {missing[0]}.txt not found in {folder}/ImageSets/Segmentation or Main"
                    + nearest(missing[0], _split_names(folder))
                )
            return _unique_ids(files)
        path = require(self.list_file, "list_file", "expected a text file with one id a line")
        wanted = _unique_ids([(path, self.splits[0])])
        home = {name: split for split, file in lists.items() if file for name in _ids(file)}
        return {name: home.get(name, split) for name, split in wanted.items()}

    def _tags_of_image_sets(self, folder: Path) -> dict[str, set[int]]:
        """Maps every id that ImageSets/Main knows to its class indices."""
        tags: dict[str, set[int]] = {}
        names = dict.fromkeys((*self.splits, "trainval", "train", "val"))
        for index, name in enumerate(CLASSES):
            # The class called train makes train_train.txt; no pattern could tell it from a split.
            files = [folder / "ImageSets" / "Main" / f"{name}_{split}.txt" for split in names]
            files = [file for file in files if file.is_file()]
            if not files:
                raise DatasetNotFoundError(
                    f"{name}_{self.splits[0]}.txt not found in {folder}/ImageSets/Main: "
                    "add it or use --tags-from annotations"
                )
            for file in files:
                for image, present in _presence(file):
                    tags.setdefault(image, set()).update({index} if present else set())
        return tags

    def _sample(self, folder: Path, name: str, split: str, tags: set[int] | None) -> Sample:
        image = folder / "JPEGImages" / f"{name}.jpg"
        xml = folder / "Annotations" / f"{name}.xml"
        if tags is None:
            require(xml, "annotation", "add it or use --tags-from image_sets")
        known = _read_xml(xml) if xml.is_file() else _Annotation()
        size_hw = known.size_hw
        if size_hw is None or not image.is_file():
            size_hw = size_or_zero(image)
        mask = folder / "SegmentationClass" / f"{name}.png"
        boxes_xyxy, classes = box_arrays(known.boxes_xyxy, known.classes)
        return Sample(
            id=name,
            path=str(image),
            height=size_hw[0],
            width=size_hw[1],
            tags=tuple(sorted(set(known.classes) if tags is None else tags)),
            boxes_xyxy=boxes_xyxy,
            box_classes=classes,
            split=split,
            mask_path=str(mask) if mask.is_file() else "",
            difficult=known.difficult,
            true_masks=_true_masks(folder, name, boxes_xyxy, known.classes, size_hw),
        )


def _find_list(folder: Path, split: str) -> Path | None:
    for kind in ("Segmentation", "Main"):
        path = folder / "ImageSets" / kind / f"{split}.txt"
        if path.is_file():
            return path
    return None


def _split_names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "ImageSets" / "Segmentation").glob("*.txt"))


def _ids(path: Path) -> dict[str, int]:
    """Maps the first word of each line that is not blank to its line number."""
    lines: dict[str, int] = {}
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name = line.split()[0]
        if name in lines:
            raise DatasetError(
                f"duplicate id {name!r} in {path} at lines {lines[name]} and {number}: remove one"
            )
        lines[name] = number
    return lines


def _unique_ids(files: list[tuple[Path, str]]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    first: dict[str, str] = {}
    for path, split in files:
        for name, number in _ids(path).items():
            here = f"{path}:{number}"
            if name in first:
                raise DatasetError(f"duplicate id {name!r} at {first[name]} and {here}: remove one")
            first[name], split_of[name] = here, split
    if not split_of:
        raise DatasetError(f"{files[0][0]} lists no image, expected one id a line")
    return split_of


def _presence(file: Path) -> Iterator[tuple[str, bool]]:
    """Yields id and presence from lines such as ``2007_000032 -1``: 1, 0 difficult, -1 absent."""
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("1", "0", "-1"):
            raise DatasetError(f"{file}:{number}: expected an id and 1, 0 or -1, got {line!r}")
        yield words[0], words[1] != "-1"


def _check_covered(split_of: dict[str, str], tags: dict[str, set[int]], folder: Path) -> None:
    unknown = [name for name in split_of if name not in tags]
    if unknown:
        raise DatasetError(
            f"{len(unknown)} ids such as {unknown[0]!r} are in no file of {folder}/ImageSets/Main: "
            "correct the list or use --tags-from annotations"
        )


@dataclass(frozen=True)
class _Annotation:
    """What an XML says: (height, width) where given, boxes (0-based, end exclusive), classes."""

    size_hw: tuple[int, int] | None = None
    boxes_xyxy: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    difficult: tuple[int, ...] = ()


def _read_xml(path: Path) -> _Annotation:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise DatasetError(f"{path}:{error.position[0]}: not XML ({error}): replace it") from None
    height, width = root.findtext("size/height", ""), root.findtext("size/width", "")
    size_hw = (int(height), int(width)) if height.isdigit() and width.isdigit() else None
    # Direct children only: VOC's people hold <part> elements with names and boxes of their own.
    items = root.findall("object")
    return _Annotation(
        size_hw=size_hw if size_hw and min(size_hw) > 0 else None,
        boxes_xyxy=[_box(item, path) for item in items],
        classes=[_class_index(item.findtext("name", "").strip(), path) for item in items],
        difficult=tuple(
            i for i, item in enumerate(items) if item.findtext("difficult", "").strip() == "1"
        ),
    )


def _box(item: ElementTree.Element, path: Path) -> tuple[float, float, float, float]:
    texts = [item.findtext(f"bndbox/{side}", "") for side in ("xmin", "ymin", "xmax", "ymax")]
    sides = []
    for text in texts:
        try:
            sides.append(finite(text))  # a few official files hold fractions such as 45.70000076
        except ValueError:
            raise DatasetError(
                f"{path}:{_line_of(path, text)}: expected numbers in bndbox xmin, ymin, xmax, "
                f"ymax, got {texts}"
            ) from None
    xmin, ymin, xmax, ymax = sides
    return xmin - 1, ymin - 1, xmax, ymax


def _class_index(name: str, path: Path) -> int:
    if name in CLASSES:
        return CLASSES.index(name)
    line = _line_of(path, name)
    raise DatasetError(f"{path}:{line}: unknown class {name!r}" + nearest(name, CLASSES))


def _line_of(path: Path, text: str) -> int:
    """The first line with an element of that text, 1 where there is none."""
    element = re.compile(rf"<(\w+)>\s*{re.escape(text)}\s*</\1>")
    lines = path.read_text("utf-8-sig").splitlines()
    return next((i for i, line in enumerate(lines, start=1) if element.search(line)), 1)


# -------------------------------------------------------------------------- true masks of objects


def _true_masks(
    folder: Path,
    name: str,
    boxes_xyxy: Float[ndarray, "o 4"],
    classes: list[int],
    size_hw: tuple[int, int],
) -> tuple[bytes, ...]:
    """Counts of each object, empty for one without a mask; () where no object has one."""
    objects, labels = (
        _read_mask(folder / kind / f"{name}.png", size_hw)
        for kind in ("SegmentationObject", "SegmentationClass")
    )
    if objects is None or not classes:
        return ()
    values = match_objects(boxes_xyxy, classes, objects, labels)
    if not values:
        return ()
    return tuple(
        encode_mask(objects == values[i]) if i in values else b"" for i in range(len(classes))
    )


def _read_mask(path: Path, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"] | None:
    """The values of an indexed PNG; None where it is missing, broken or of another size."""
    try:
        values = decode_labels(path.read_bytes())
    except (OSError, ValueError):
        return None
    return values if values.shape == size_hw else None


def match_objects(
    boxes_xyxy: Float[ndarray, "o 4"],
    classes: Sequence[int],
    objects: UInt8[ndarray, "h w"],
    labels: UInt8[ndarray, "h w"] | None,
) -> dict[int, int]:
    """Which value of an object mask belongs to which box.

    An XML may list fewer objects than the mask has, and in another order: box k takes value k + 1
    where it fits, and what is left is matched by overlap, the largest first. A pair fits where the
    class of most of the value's pixels is the box's, and box and extent have an IoU over 0.5.

    Args:
        boxes_xyxy: of the objects, in the order of the XML.
        classes: class index of each.
        objects: one value an object; 0 background, 255 border.
        labels: the semantic mask; None matches by place alone.
    """
    values = [int(value) for value in np.unique(objects) if value not in (BACKGROUND, IGNORE)]
    fit = np.zeros((len(boxes_xyxy), 256))
    for value in values:
        mask = objects == value
        overlap = box_ious(boxes_xyxy, mask_extent(mask)[None])[:, 0]
        same = labels is None or np.equal(classes, np.bincount(labels[mask]).argmax() - 1)
        fit[:, value] = np.where(same & (overlap > _MIN_IOU), overlap, 0)
    matched = {i: i + 1 for i in range(min(len(fit), IGNORE - 1)) if fit[i, i + 1]}
    for i, value in matched.items():
        fit[i, :], fit[:, value] = 0, 0
    while fit.any():
        i, value = (int(place) for place in np.unravel_index(fit.argmax(), fit.shape))
        matched[i] = value
        fit[i, :], fit[:, value] = 0, 0
    return matched
