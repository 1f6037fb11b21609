"""COCO instances, and own data in the form of COCO's JSON."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from pycocotools import mask as codec

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    box_arrays,
    check_classes,
    nearest,
    require,
    size_or_zero,
    write_mask,
)
from rayseg.datasets.listing import walk
from rayseg.datasets.tally import Tally
from rayseg.records import BACKGROUND, IGNORE, Sample
from rayseg.records.boxes import clip_boxes
from rayseg.records.rle import decode_mask

_Json = dict[str, Any]


def coco_classes() -> tuple[tuple[int, str], ...]:
    """Returns COCO's 80 classes as (category id of 1 to 90, name); the position is our index."""
    text = resources.files("rayseg.datasets").joinpath("coco_classes.json").read_text("utf-8")
    return tuple((entry["id"], entry["name"]) for entry in json.loads(text))


@dataclass(frozen=True)
class COCO(Dataset):
    """Images with an instances JSON; classes are the JSON's categories in the order of their ids.

    A crowd region is a tag of its class, as the objects are there; its box is listed in
    ``Sample.crowds``, as it is not one object. Boxes are as the JSON has them, also where they
    leave the image or have no area. Sizes are those of the files; annotations of images that the
    JSON does not list are left out, as pycocotools does.

    Attributes:
        images: Folder of the images.
        annotations: JSON file with images, annotations and categories.
        split: Name of the list that all these images belong to.
        val_images: Folder of more images, which become the split val.
        val_annotations: JSON file of those images, with categories that `annotations` has too.
        masks: True masks are kept, to be read by scores or learnt from: semantic ones, drawn into
            the workspace, and one of each object, whose outline must fit the file's size.
        crowd: What pixels of crowd regions are in the semantic masks: ignore, or their class.
    """

    images: Path = Path("train2017")
    annotations: Path = Path("annotations/instances_train2017.json")
    split: str = "train"
    val_images: Path | None = None
    val_annotations: Path | None = None
    masks: bool = True
    crowd: Literal["ignore", "class"] = "ignore"

    def __post_init__(self) -> None:
        if (self.val_images is None) != (self.val_annotations is None):
            raise DatasetError(
                "val_images and val_annotations go together, got "
                f"{self.val_images} and {self.val_annotations}"
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the JSON's categories, by ascending id; COCO's own are the 80 official ones."""
        return tuple(name for _, name in self._pairs)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The categories' ids, ascending; COCO's own are 1 to 90.

        Where the JSON counts from 0, they are 1, 2, ...: others refuse a category 0 (cvat#4750).
        """
        numbers = tuple(number for number, _ in self._pairs)
        return numbers if numbers[0] > 0 else super().category_ids

    @cached_property
    def _pairs(self) -> list[tuple[int, str]]:
        return self._first.categories

    @cached_property
    def _first(self) -> _Part:
        return _Part.opened(self.images, self.annotations, self.split)

    def samples(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the JSON in its order; writes ``workspace/masks/ID.png``."""
        parts = [self._first]
        index = {number: i for i, (number, _) in enumerate(self._pairs)}
        vars(self).pop("_first")  # gigabytes of a large file, and a configuration keeps its reader
        if self.val_images is not None and self.val_annotations is not None:
            parts.append(_Part.opened(self.val_images, self.val_annotations, "val"))
        for part in parts:
            _check_images(part, self.masks)
        _check_ids(parts)
        grouped = [self._objects(part, index) for part in parts]
        (workspace / "masks").mkdir(parents=True, exist_ok=True)
        for part, objects in zip(parts, grouped, strict=True):
            for image in part.content["images"]:
                known = objects[image["id"]]
                yield tally.take_sample(
                    self._sample(part, image, known, index, workspace.absolute())
                )

    def files(self) -> Iterator[Path]:
        """Yields the JSON files, and the folders of images with all that they hold."""
        yield self.annotations.absolute()
        yield from walk(self.images.absolute())
        if self.val_images is not None and self.val_annotations is not None:
            yield self.val_annotations.absolute()
            yield from walk(self.val_images.absolute())

    def _objects(self, part: _Part, index: dict[int, int]) -> dict[Any, list[_Json]]:
        strange = [pair for pair in part.categories if pair not in self._pairs]
        if strange:
            raise DatasetError(
                f"{part.path}: category {strange[0]} must be one of {self.annotations} with the "
                "same id and name" + nearest(strange[0][1], self.classes)
            )
        objects: dict[Any, list[_Json]] = defaultdict(list)
        for entry in part.content["annotations"]:
            _check_annotation(entry, part.path, index)
            objects[entry["image_id"]].append(entry)
        return objects

    def _sample(
        self,
        part: _Part,
        image: _Json,
        objects: list[_Json],
        index: dict[int, int],
        workspace: Path,
    ) -> Sample:
        path = part.folder / image["file_name"]
        height, width = size_or_zero(path)
        boxed = [entry for entry in objects if "bbox" in entry]
        boxes_xyxy, box_classes = box_arrays(
            [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in boxed)],
            [index[entry["category_id"]] for entry in boxed],
        )
        mask = ""
        outlines: tuple[bytes, ...] = ()
        if self.masks:
            size_hw = (int(image["height"]), int(image["width"]))
            mask = str(workspace / "masks" / f"{image_id(image['id'])}.png")
            write_mask(Path(mask), rasterise(objects, index, size_hw, self.crowd))
            outlines = _true_masks(boxed, size_hw) if size_hw == (height, width) else ()
        return Sample(
            id=image_id(image["id"]),
            path=str(path),
            height=height,
            width=width,
            tags=tuple(sorted({index[entry["category_id"]] for entry in objects})),
            boxes_xyxy=boxes_xyxy,
            box_classes=box_classes,
            split=part.split,
            mask_path=mask,
            crowds=tuple(i for i, entry in enumerate(boxed) if entry.get("iscrowd")),
            true_masks=outlines,
        )


@dataclass(frozen=True)
class _Part:
    """One instances JSON with its images."""

    folder: Path
    path: Path
    split: str
    content: _Json
    categories: list[tuple[int, str]]

    @classmethod
    def opened(cls, images: Path, annotations: Path, split: str) -> Self:
        folder = require(images, "images", "expected the folder of the JSON's file names")
        content = _load(annotations)
        return cls(folder, annotations, split, content, _categories(content, annotations))


def _load(annotations: Path) -> _Json:
    path = require(annotations, "annotations", "expected COCO's instances JSON")
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON ({error}): replace it") from None
    _check_keys(content, ("images", "annotations", "categories"), str(path))
    if not content["images"]:
        raise DatasetError(f"{path} lists no image: expected at least one")
    return content


def _categories(content: _Json, path: Path) -> list[tuple[int, str]]:
    for place, entry in enumerate(content["categories"]):
        _check_keys(entry, ("id", "name"), f"{path}: category {place + 1} of the list")
    pairs = sorted((int(entry["id"]), str(entry["name"])) for entry in content["categories"])
    twice = [number for number, count in Counter(n for n, _ in pairs).items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: duplicate category id {twice[0]}: renumber")
    check_classes(tuple(name for _, name in pairs), f"categories of {path}")
    return pairs


def _check_ids(parts: list[_Part]) -> None:
    counts = Counter(image_id(image["id"]) for part in parts for image in part.content["images"])
    name, count = counts.most_common(1)[0]
    if count > 1:
        files = " and ".join(str(part.path) for part in parts)
        raise DatasetError(f"{files}: duplicate image id {name!r}, {count} times: keep one")


def _check_images(part: _Part, sized: bool) -> None:
    keys = ("id", "file_name", "height", "width") if sized else ("id", "file_name")
    for place, image in enumerate(part.content["images"]):
        _check_keys(image, keys, f"{part.path}: image {place + 1} of the list")


def _check_annotation(entry: _Json, path: Path, index: dict[int, int]) -> None:
    _check_keys(entry, ("image_id", "category_id"), _named(entry, path))
    if entry["category_id"] not in index:
        raise DatasetError(
            f"{_named(entry, path)} has the unknown category {entry['category_id']}"
            + nearest(str(entry["category_id"]), map(str, index))
        )
    box = entry.get("bbox", [0, 0, 0, 0])
    known = isinstance(box, list) and len(box) == 4
    if not known or not all(isinstance(x, int | float) and isfinite(x) for x in box):
        raise DatasetError(
            f"{_named(entry, path)}: bbox must be the four numbers x, y, width and height, "
            f"got {box}"
        )


def _named(entry: object, path: Path) -> str:
    return f"{path}: annotation {entry.get('id') if isinstance(entry, dict) else entry}"


def _check_keys(entry: object, keys: tuple[str, ...], what: str) -> None:
    """A key whose value is null counts as lacking."""
    lacking = [key for key in keys if not isinstance(entry, dict) or entry.get(key) is None]
    if lacking:
        raise DatasetError(f"{what} must be an object with the keys {keys}, lacks {lacking}")


def _true_masks(objects: list[_Json], size_hw: tuple[int, int]) -> tuple[bytes, ...]:
    """Counts of each object, empty for one without a usable outline; () where no object has one."""
    outlines = tuple(_outline(entry, size_hw) for entry in objects)
    return outlines if any(outlines) else ()


def image_id(number: object) -> str:
    """Returns the id as COCO's files are named: 12 digits; an id that is no number stays."""
    return str(number).zfill(12) if str(number).isdigit() else str(number)


def rasterise(
    objects: list[_Json],
    index: dict[int, int],
    size_hw: tuple[int, int],
    crowd: Literal["ignore", "class"] = "ignore",
) -> UInt8[ndarray, "h w"]:
    """Draws annotations into one semantic mask: larger ones first, so small ones stay on top.

    Pixels to ignore lie beneath all objects: crowds (with ``crowd="ignore"``), and the box of an
    annotation without a usable outline, where the truth is not known.

    Args:
        objects: annotations of one image as in COCO's JSON: polygons or either kind of RLE.
        crowd: label of crowd regions: 255, or their class.
    """
    layers: list[tuple[bool, int, int, ndarray]] = []
    for entry in objects:
        counts = _outline(entry, size_hw)
        known = bool(counts) and not (entry.get("iscrowd") and crowd == "ignore")
        label = index[entry["category_id"]] + 1 if known else IGNORE
        covered = decode_mask(counts, size_hw) if counts else _box_region(entry, size_hw)
        layers.append((known, -int(covered.sum()), label, covered))
    labels = np.full(size_hw, BACKGROUND, dtype=np.uint8)
    for _, _, label, covered in sorted(layers, key=lambda layer: layer[:2]):
        labels[covered] = label
    return labels


def _outline(entry: _Json, size_hw: tuple[int, int]) -> bytes:
    """Returns the counts of an annotation, empty where it has no usable outline."""
    outline = entry.get("segmentation")
    if isinstance(outline, list):
        # pycocotools crashes on fewer than three points; COCO itself has such polygons.
        polygons = [points for points in outline if len(points) >= 6]
        if not polygons:
            return b""
        return codec.merge(codec.frPyObjects(polygons, *size_hw))["counts"]
    if not isinstance(outline, dict):
        return b""
    _check_keys(outline, ("size", "counts"), f"annotation {entry.get('id')}: RLE")
    if tuple(outline["size"]) != size_hw:
        raise DatasetError(
            f"annotation {entry.get('id')}: RLE of size {tuple(outline['size'])}, its image has "
            f"(height, width) {size_hw}: correct the JSON"
        )
    if isinstance(outline["counts"], list):
        return codec.frPyObjects(outline, *size_hw)["counts"]
    return outline["counts"].encode("ascii")


def _box_region(entry: _Json, size_hw: tuple[int, int]) -> Bool[ndarray, "h w"]:
    region = np.zeros(size_hw, dtype=bool)
    x, y, width, height = entry.get("bbox", (0, 0, 0, 0))
    corners = np.array([[np.floor(x), np.floor(y), np.ceil(x + width), np.ceil(y + height)]])
    left, top, right, bottom = clip_boxes(corners, size_hw).astype(int)[0]
    region[top:bottom, left:right] = True
    return region
