"""COCO instances, and own data in the form of COCO's JSON."""

from __future__ import annotations

import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from pycocotools import mask as rle_codec

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
from rayseg.records import BACKGROUND, IGNORE, Sample

_Json = dict[str, Any]


def coco_classes() -> tuple[tuple[int, str], ...]:
    """Returns COCO's 80 classes as (category id of 1 to 90, name); the position is our index."""
    text = resources.files("rayseg.datasets").joinpath("coco_classes.json").read_text("utf-8")
    return tuple((entry["id"], entry["name"]) for entry in json.loads(text))


@dataclass(frozen=True)
class COCO(Dataset):
    """Images with an instances JSON; classes are the JSON's categories in the order of their ids.

    A crowd region counts as a tag of its class, as the objects are there, but is no box, as it
    is not one object. Sizes are those of the files; annotations of images that the JSON does not
    list are left out, as pycocotools does.

    Attributes:
        images: folder of the images.
        annotations: JSON with images, annotations and categories.
        split: name of the list that all the images belong to.
        masks: draw true semantic masks (read by scores only) into the workspace.
        crowd: pixels of crowd regions in these masks are to ignore, or their class.
    """

    images: Path = Path("train2017")
    annotations: Path = Path("annotations/instances_train2017.json")
    split: str = "train"
    masks: bool = True
    crowd: Literal["ignore", "class"] = "ignore"

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the JSON's categories, by ascending id; COCO's own are the 80 official ones."""
        return tuple(name for _, name in self._categories(self._load()))

    def samples(self, workspace: Path) -> Iterator[Sample]:
        """Yields the images of the JSON in its order; writes ``workspace/masks/ID.png``."""
        folder = require(self.images, "images", "expected the folder of the JSON's file names")
        content = self._load()
        index = {number: i for i, (number, _) in enumerate(self._categories(content))}
        objects = self._objects(content, index)
        self._check_ids(content)
        (workspace / "masks").mkdir(parents=True, exist_ok=True)
        for image in content["images"]:
            mask = ""
            if self.masks:
                path = workspace.absolute() / "masks" / f"{image_id(image['id'])}.png"
                size_hw = (int(image["height"]), int(image["width"]))
                write_mask(path, rasterise(objects[image["id"]], index, size_hw, self.crowd))
                mask = str(path)
            yield self._sample(
                folder / image["file_name"], image, objects[image["id"]], index, mask
            )

    def _load(self) -> _Json:
        path = require(self.annotations, "annotations", "expected COCO's instances JSON")
        try:
            content = json.loads(path.read_text("utf-8-sig"))
        except ValueError as error:
            raise DatasetError(f"{path} is not JSON ({error}): replace it") from None
        keys = ("images", "annotations", "categories")
        missing = [key for key in keys if not isinstance(content, dict) or key not in content]
        if missing:
            raise DatasetError(f"{path}: expected an object with the keys {keys}, lacks {missing}")
        if not content["images"]:
            raise DatasetError(f"{path} lists no image: expected at least one")
        return content

    def _categories(self, content: _Json) -> list[tuple[int, str]]:
        pairs = sorted((int(entry["id"]), str(entry["name"])) for entry in content["categories"])
        twice = [number for number, count in Counter(n for n, _ in pairs).items() if count > 1]
        if twice:
            raise DatasetError(f"{self.annotations}: duplicate category id {twice[0]}: renumber")
        check_classes(tuple(name for _, name in pairs), f"categories of {self.annotations}")
        return pairs

    def _objects(self, content: _Json, index: dict[int, int]) -> dict[Any, list[_Json]]:
        objects: dict[Any, list[_Json]] = defaultdict(list)
        for entry in content["annotations"]:
            if entry["category_id"] not in index:
                raise DatasetError(
                    f"{self.annotations}: annotation {entry.get('id')} has the unknown category "
                    f"{entry['category_id']}" + nearest(str(entry["category_id"]), map(str, index))
                )
            objects[entry["image_id"]].append(entry)
        return objects

    def _check_ids(self, content: _Json) -> None:
        counts = Counter(image_id(image["id"]) for image in content["images"])
        name, count = counts.most_common(1)[0]
        if count > 1:
            raise DatasetError(
                f"{self.annotations}: duplicate image id {name!r}, {count} times: keep one"
            )

    def _sample(
        self, path: Path, image: _Json, objects: list[_Json], index: dict[int, int], mask: str
    ) -> Sample:
        height, width = size_or_zero(path)
        single = [entry for entry in objects if not entry.get("iscrowd") and "bbox" in entry]
        boxes_xyxy, box_classes = box_arrays(
            [(x, y, x + w, y + h) for x, y, w, h in (entry["bbox"] for entry in single)],
            [index[entry["category_id"]] for entry in single],
        )
        return Sample(
            id=image_id(image["id"]),
            path=str(path),
            height=height,
            width=width,
            tags=tuple(sorted({index[entry["category_id"]] for entry in objects})),
            boxes_xyxy=boxes_xyxy,
            box_classes=box_classes,
            split=self.split,
            mask_path=mask,
        )


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
        index: class index of each category id.
        size_hw: height and width of the mask in pixels.
        crowd: label of crowd regions: 255, or their class.

    Raises:
        DatasetError: an RLE is of another size than the image.
    """
    layers: list[tuple[bool, int, int, ndarray]] = []
    for entry in objects:
        rle = _outline(entry, size_hw)
        known = rle is not None and not (entry.get("iscrowd") and crowd == "ignore")
        label = index[entry["category_id"]] + 1 if known else IGNORE
        covered = _decode(rle) if rle else _box_region(entry, size_hw)
        layers.append((known, -int(covered.sum()), label, covered))
    labels = np.full(size_hw, BACKGROUND, dtype=np.uint8)
    for _, _, label, covered in sorted(layers, key=lambda layer: layer[:2]):
        labels[covered] = label
    return labels


def _outline(entry: _Json, size_hw: tuple[int, int]) -> Any:
    """Returns the RLE of an annotation, None where it has no usable outline."""
    outline = entry.get("segmentation")
    if isinstance(outline, list):
        # pycocotools crashes on fewer than three points; COCO itself has such polygons.
        polygons = [points for points in outline if len(points) >= 6]
        return rle_codec.merge(rle_codec.frPyObjects(polygons, *size_hw)) if polygons else None
    if not isinstance(outline, dict):
        return None
    if tuple(outline["size"]) != size_hw:
        raise DatasetError(
            f"annotation {entry.get('id')}: RLE of size {tuple(outline['size'])}, its image has "
            f"(height, width) {size_hw}: correct the JSON"
        )
    return (
        rle_codec.frPyObjects(outline, *size_hw) if isinstance(outline["counts"], list) else outline
    )


def _decode(rle: Any) -> ndarray:
    with warnings.catch_warnings():
        # Version 2.0.11 has an __array__ without the copy keyword of numpy 2; the result is right.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return rle_codec.decode(rle).astype(bool)


def _box_region(entry: _Json, size_hw: tuple[int, int]) -> ndarray:
    region = np.zeros(size_hw, dtype=bool)
    x, y, width, height = entry.get("bbox", (0, 0, 0, 0))
    region[int(y) : int(np.ceil(y + height)), int(x) : int(np.ceil(x + width))] = True
    return region
