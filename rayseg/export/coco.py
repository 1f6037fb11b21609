"""Instances as COCO's JSON, and as the list of results that COCOeval takes.

    folder/instances_<split>.json    images, annotations, categories: a data set
    folder/results_<split>.json      image_id, category_id, segmentation, score: to be judged

A file appears whole or not at all, and one that is there is never changed: it must be the same
export, anything else is refused.
"""

import filecmp
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pycocotools import mask as codec

from rayseg.export.base import Export
from rayseg.export.files import make_folder, written
from rayseg.export.polygons import mask_polygons, polygons_iou
from rayseg.records.rle import as_rle, decode_mask, mask_area

_LARGEST_DIGITS = 15  # numbers of more are not exact in readers whose numbers are doubles


@dataclass(frozen=True)
class CocoExport:
    """What was written.

    Attributes:
        path: the file.
        images: in it.
        objects: in it, those with a mask.
        left_out: objects of these images whose mask has no pixel.
        mean_iou: of the polygons with the masks, over objects; None for run-length codes.
        worst_iou: the smallest of these.
    """

    path: Path
    images: int
    objects: int
    left_out: int
    mean_iou: float | None = None
    worst_iou: float | None = None

    @property
    def masks(self) -> int:
        """The objects that have a mask, all of them."""
        return self.objects

    def __str__(self) -> str:
        parts = [f"{self.objects} objects of {self.images} images in {self.path}"]
        if self.left_out:
            parts.append(f"{self.left_out} without a pixel left out")
        if self.mean_iou is not None:
            parts.append(
                f"IoU of the polygons with the masks {self.mean_iou:.4f} on average, "
                f"{self.worst_iou:.4f} at worst"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class _Image:
    """A row with objects, as the file will have it."""

    number: int | str
    entry: dict[str, Any]
    classes: list[int]
    masks: list[bytes]
    scores: list[float]


def write_coco(
    rows: Iterable[Mapping[str, Any]],
    folder: str | Path,
    classes: Sequence[str],
    category_ids: Sequence[int | str] = (),
    split: str = "train",
    polygons: bool = False,
    tolerance_px: float = 0.0,
) -> CocoExport:
    """Writes a data set of instances as COCO does.

    An image's id and file name are those of its data set where it has them, else the number that it
    has in COCO, or one that follows from the run's id alone; the run's id is beside it as
    ``rayseg_id``. Boxes and areas are those of the masks, and
    `iscrowd` is 0 throughout. Images come by id, objects in the order of their row.

    Args:
        rows: `id`, `path`, `height` and `width` of each image and lists of `classes`, `foreground`
            (counts) and `scores` with one entry an object; `source_id` (as JSON) and `file_name`
            where the data set has them; read once.
        category_ids: their numbers in the file; 1, 2, ... where none are given.
        split: names the file.
        tolerance_px: how far they may leave the masks.

    Raises:
        FileExistsError: the file is there with other content.
        ValueError: two images have one number, a class has no name, category ids are no ids, or the
            split is no name of a file.
    """
    path = _path(folder, "instances", split)
    images, left_out = _collect(rows, len(classes))
    categories = _categories(classes, category_ids)
    ious: list[float] = []
    lines = _instances_json(images, categories, ious if polygons else None, tolerance_px)
    _write(path, lines)
    return CocoExport(
        path,
        len(images),
        sum(len(image.masks) for image in images),
        left_out,
        float(np.mean(ious)) if ious else None,
        min(ious, default=None),
    )


def write_coco_results(
    rows: Iterable[Mapping[str, Any]],
    folder: str | Path,
    classes: Sequence[str],
    category_ids: Sequence[int | str] = (),
    split: str = "val",
) -> CocoExport:
    """Writes instances as the list that ``pycocotools.coco.COCO.loadRes`` takes.

    It holds no boxes: loadRes would take areas from them and not from the masks.

    Args:
        rows: as in `write_coco`.
        folder: a local folder; made if missing.
        classes: class names by index.
        category_ids: their numbers in the data set that it is judged on; 1, 2, ... where none are
            given.
        split: names the file.

    Raises:
        FileExistsError: the file is there with other content.
        ValueError: as `write_coco`.
    """
    path = _path(folder, "results", split)
    images, left_out = _collect(rows, len(classes))
    categories = _categories(classes, category_ids)
    entries = (
        {
            "image_id": image.number,
            "category_id": categories[class_index]["id"],
            "segmentation": _ascii(counts, image),
            "score": score,
        }
        for image in images
        for class_index, counts, score in zip(image.classes, image.masks, image.scores, strict=True)
    )
    _write(path, ("[\n", *_joined(entries), "]\n"))
    return CocoExport(path, len(images), sum(len(image.masks) for image in images), left_out)


@dataclass(frozen=True)
class CocoInstances:
    """A data set of instances in COCO's JSON, masks as run-length codes."""

    columns: ClassVar[tuple[str, ...]] = ("height", "width", "classes", "foreground", "scores")
    statuses: ClassVar[tuple[str, ...]] = ("ok", "empty")

    def write(self, export: Export) -> CocoExport:
        """Writes rows as `write_coco` does."""
        return write_coco(*export)


@dataclass(frozen=True)
class CocoPolygons(CocoInstances):
    """The same with outlines in place of run-length codes.

    Attributes:
        tolerance_px: Pixels by which an outline may leave its mask; more gives fewer points.
    """

    tolerance_px: float = 0.0

    def write(self, export: Export) -> CocoExport:
        """Writes rows as `write_coco` does, as polygons."""
        return write_coco(*export, polygons=True, tolerance_px=self.tolerance_px)


@dataclass(frozen=True)
class CocoResults(CocoInstances):
    """The list of results that COCO's evaluation takes."""

    def write(self, export: Export) -> CocoExport:
        """Writes rows as `write_coco_results` does."""
        return write_coco_results(*export)


def image_number(id_: str) -> int:
    """COCO's number of an id such as 000000000139; of any other id one in 1..2^52 of its own."""
    if id_.isascii() and id_.isdigit() and len(id_) <= _LARGEST_DIGITS:
        return int(id_)
    return 1 + int(hashlib.sha256(id_.encode()).hexdigest()[:13], 16)


def _path(folder: str | Path, kind: str, split: str) -> Path:
    if not split or split != split.strip() or "/" in split or not split.isprintable():
        raise ValueError(f"a split is one name without '/', got {split!r}")
    return Path(folder) / f"{kind}_{split}.json"


def _collect(rows: Iterable[Mapping[str, Any]], num_classes: int) -> tuple[list[_Image], int]:
    """The images by number, and how many objects are left out as empty."""
    images: dict[int | str, _Image] = {}
    left_out = 0
    for row in rows:
        number = json.loads(row.get("source_id") or "null")
        number = image_number(row["id"]) if number is None else number
        if number in images:
            raise ValueError(
                f"images must have different ids, got {number!r} for "
                f"{images[number].entry['rayseg_id']!r} and {row['id']!r}: rename one, or give "
                "--split where each split counts anew"
            )
        image = _read(row, number, num_classes)
        images[number] = image
        left_out += len(row["foreground"]) - len(image.masks)
    order = sorted(images, key=lambda number: (isinstance(number, str), number))
    return [images[number] for number in order], left_out


def _read(row: Mapping[str, Any], number: int | str, num_classes: int) -> _Image:
    height, width = int(row["height"]), int(row["width"])
    masks, scores = list(row["foreground"]), list(row.get("scores") or [])
    scores = scores or [1.0] * len(masks)
    if not len(row["classes"]) == len(masks) == len(scores):
        raise ValueError(
            f"an object must have a class, a mask and a score, got {len(row['classes'])}, "
            f"{len(masks)} and {len(scores)} for {row['id']!r}"
        )
    wrong = [index for index in row["classes"] if not 0 <= index < num_classes]
    if wrong:
        raise ValueError(f"classes must be 0..{num_classes - 1}, got {wrong[0]} for {row['id']!r}")
    kept = [i for i, counts in enumerate(masks) if mask_area(counts, (height, width))]
    entry = {
        "id": number,
        "file_name": row.get("file_name") or _file_name(row["id"], row.get("path") or row["id"]),
        "height": height,
        "width": width,
        "rayseg_id": row["id"],
    }
    return _Image(
        number,
        entry,
        [int(row["classes"][i]) for i in kept],
        [masks[i] for i in kept],
        [float(scores[i]) for i in kept],
    )


def _file_name(id_: str, path: str) -> str:
    """The end of a path, with the folders that the id has too."""
    return "/".join(path.split("/")[-1 - id_.count("/") :])


def _categories(classes: Sequence[str], category_ids: Sequence[int | str]) -> list[dict[str, Any]]:
    numbers = list(category_ids or range(1, len(classes) + 1))
    if len(numbers) != len(classes) or len(set(numbers)) != len(numbers):
        raise ValueError(f"category ids must be {len(classes)} different ones, got {numbers}")
    return [
        {"id": number, "name": name, "supercategory": ""}
        for number, name in zip(numbers, classes, strict=True)
    ]


def _instances_json(
    images: list[_Image],
    categories: list[dict[str, Any]],
    ious: list[float] | None,
    tolerance_px: float,
) -> Iterator[str]:
    """The file, piece by piece; polygons where their overlaps are asked for."""
    yield '{\n"info": {"description": "instances, written by rayseg"},\n"licenses": [],\n'
    yield '"categories": [\n'
    yield from _joined(sorted(categories, key=lambda one: (isinstance(one["id"], str), one["id"])))
    yield '],\n"images": [\n'
    yield from _joined(image.entry for image in images)
    yield '],\n"annotations": [\n'
    yield from _joined(_annotations(images, categories, ious, tolerance_px))
    yield "]\n}\n"


def _annotations(
    images: list[_Image],
    categories: list[dict[str, Any]],
    ious: list[float] | None,
    tolerance_px: float,
) -> Iterator[dict[str, Any]]:
    number = 0
    for image in images:
        size_hw = image.entry["height"], image.entry["width"]
        for class_index, counts, score in zip(
            image.classes, image.masks, image.scores, strict=True
        ):
            number += 1
            outline: Any = _ascii(counts, image)
            if ious is not None:
                mask = decode_mask(counts, size_hw)
                outline = mask_polygons(mask, tolerance_px)
                ious.append(polygons_iou(outline, mask))
            yield {
                "id": number,
                "image_id": image.number,
                "category_id": categories[class_index]["id"],
                "bbox": codec.toBbox(as_rle(counts, size_hw)).tolist(),
                "area": mask_area(counts, size_hw),
                "iscrowd": 0,
                "segmentation": outline,
                "score": score,
            }


def _ascii(counts: bytes, image: _Image) -> dict[str, Any]:
    return {"size": [image.entry["height"], image.entry["width"]], "counts": counts.decode("ascii")}


def _joined(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """One entry a line, with commas between them."""
    before = ""
    for entry in entries:
        yield before + json.dumps(entry, ensure_ascii=False)
        before = ",\n"
    yield "\n"


def _write(path: Path, pieces: Iterable[str]) -> None:
    make_folder(path.parent)
    encoded = (piece.encode() for piece in pieces)
    with written(path.parent, path, encoded) as draft:
        if path.exists() and not filecmp.cmp(draft, path, shallow=False):
            raise FileExistsError(f"{path} holds another export; choose another folder or split")
