"""COCO instances, and own data in the form of COCO's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    box_arrays,
    nearest,
    require,
    write_mask,
)
from rayseg.datasets.coco_annotations import Annotation, rasterise
from rayseg.datasets.coco_ids import Key, as_json, categories, id_key, require_keys
from rayseg.datasets.coco_images import (
    CocoImage,
    annotation_name,
    annotations_of,
    measured,
    read_images,
)
from rayseg.datasets.listing import walk
from rayseg.datasets.reading import read_text
from rayseg.datasets.tally import Tally
from rayseg.records import Sample
from rayseg.records.bounds import check_folder_name
from rayseg.records.file_names import apart, file_stem

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
    leave the image or have no area; an annotation without one, or of zeros, has that of its
    outline. Sizes are those of the files: where the JSON has another one, its boxes and outlines
    are of another frame and are left out. What is broken is left out with its reason and costs
    nothing else.

    Ids are those of the JSON, filled up to 12 digits; where those of the second JSON are in the
    first too, they begin with ``val_``.

    Attributes:
        images: Folder of the images.
        annotations: JSON file with images, annotations and categories.
        split: Name of the list that all these images belong to.
        val_images: Folder of more images, which become the split val.
        val_annotations: JSON file of the images of val, with categories that `annotations` has too.
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
        check_folder_name("split", self.split)
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
    def category_ids(self) -> tuple[Key, ...]:
        """The categories' ids as the JSON has them, ascending; COCO's own are 1 to 90."""
        return tuple(own for own, _ in self._pairs)

    @cached_property
    def _pairs(self) -> list[tuple[Key, str]]:
        return self._first.categories

    @cached_property
    def _first(self) -> _Part:
        return _Part.opened(self.images, self.annotations, self.split)

    def read(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the JSON in its order; writes ``workspace/masks/ID.png``."""
        parts = [self._first]
        index = {
            key: i for i, (own, _) in enumerate(self._pairs) if (key := id_key(own)) is not None
        }
        vars(self).pop("_first")  # gigabytes of a large file, and a configuration keeps its reader
        if self.val_images is not None and self.val_annotations is not None:
            parts.append(_Part.opened(self.val_images, self.val_annotations, "val"))
        for part in parts:
            self._check_categories(part)
        images = [
            read_images(part.content["images"], part.folder, part.path, tally) for part in parts
        ]
        _check_found(parts, images, tally)
        taken: set[str] = set()
        for part, own, start in zip(parts, images, _prefixes(images), strict=True):
            entries = _by_image(part, own, tally)
            for listed in own:
                image = measured(listed, part.folder, len(own), tally)
                found = annotations_of(
                    image, entries.pop(image.key), index, part.path, tally, self.masks
                )
                id_ = start + image.id
                mask = workspace.absolute() / "masks" / f"{_unused(file_stem(id_), taken)}.png"
                yield tally.take_sample(self._sample(id_, image, found, part.split, mask))

    def files(self) -> Iterator[Path]:
        """Yields the JSON files, and the folders of images with all that they hold."""
        yield self.annotations.absolute()
        yield from walk(self.images.absolute())
        if self.val_images is not None and self.val_annotations is not None:
            yield self.val_annotations.absolute()
            yield from walk(self.val_images.absolute())

    def _check_categories(self, part: _Part) -> None:
        known = {(id_key(own), name) for own, name in self._pairs}
        strange = [pair for pair in part.categories if (id_key(pair[0]), pair[1]) not in known]
        if strange:
            raise DatasetError(
                f"{part.path}: category {strange[0]} must be one of {self.annotations} with the "
                "same id and name" + nearest(strange[0][1], self.classes)
            )

    def _sample(
        self, id_: str, image: CocoImage, objects: Sequence[Annotation], split: str, mask: Path
    ) -> Sample:
        boxed = [one for one in objects if one.box_xyxy is not None]
        boxes_xyxy, box_classes = box_arrays(
            [one.box_xyxy for one in boxed if one.box_xyxy is not None],
            [one.class_index for one in boxed],
        )
        outlines = tuple(one.outline.counts for one in boxed)
        drawn = self.masks and image.frame_hw is not None
        if drawn and image.frame_hw is not None:
            mask.parent.mkdir(parents=True, exist_ok=True)
            write_mask(mask, rasterise(objects, image.frame_hw, self.crowd))
        return Sample(
            id=id_,
            path=str(image.path),
            height=image.size_hw[0],
            width=image.size_hw[1],
            tags=tuple(sorted({one.class_index for one in objects})),
            boxes_xyxy=boxes_xyxy,
            box_classes=box_classes,
            split=split,
            mask_path=str(mask) if drawn else "",
            crowds=tuple(i for i, one in enumerate(boxed) if one.crowd),
            true_masks=outlines if any(outlines) else (),
            source_id=image.source_id,
            file_name=image.file_name,
        )


@dataclass(frozen=True)
class _Part:
    """One instances JSON with its images."""

    folder: Path
    path: Path
    split: str
    content: _Json
    categories: list[tuple[Key, str]]

    @classmethod
    def opened(cls, images: Path, annotations: Path, split: str) -> Self:
        folder = require(images, "images", "expected the folder of the JSON's file names")
        content = _load(annotations)
        return cls(folder, annotations, split, content, categories(content, annotations))


def _load(annotations: Path) -> _Json:
    path = require(annotations, "annotations", "expected COCO's instances JSON")
    try:
        content = json.loads(read_text(path))
    except DatasetError:
        raise
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not JSON ({error}): replace it") from None
    keys = ("images", "annotations", "categories")
    require_keys(content, keys, str(path))
    wrong = [key for key in keys if not isinstance(content[key], list)]
    if wrong:
        raise DatasetError(f"{path}: {wrong[0]} must be a list: replace it")
    if not content["images"]:
        raise DatasetError(f"{path} lists no image: expected at least one")
    return content


def _check_found(
    parts: Sequence[_Part], images: Sequence[Sequence[CocoImage]], tally: Tally
) -> None:
    for part, own in zip(parts, images, strict=True):
        if not own:
            reason = next(iter(tally.examples.items()))
            raise DatasetError(
                f"{part.path}: no image of {len(part.content['images'])} can be taken, such as "
                f"{reason[1]}: {reason[0].text}"
            )
        missing = [image for image in own if not image.found]
        if missing and len(missing) == len(own):
            raise DatasetNotFoundError(
                f"{part.path}: {len(missing)} of {len(own)} images not found in {part.folder}, "
                f"such as {missing[0].file_name!r:.80}: give the folder that their names begin in"
            )


def _prefixes(images: Sequence[Sequence[CocoImage]]) -> Iterator[str]:
    """What the ids of each file begin with: two that both count from 1 are told apart."""
    known: set[str] = set()
    for own in images:
        ids = {image.id for image in own}
        start = ""
        while any(start + id_ in known for id_ in ids):
            start += "val_"
        known |= {start + id_ for id_ in ids}
        yield start


def _by_image(
    part: _Part, images: Sequence[CocoImage], tally: Tally
) -> dict[Key, list[tuple[int, _Json]]]:
    """The annotations of each image, with their places in the list; the others are left out."""
    found: dict[Key, list[tuple[int, _Json]]] = {image.key: [] for image in images}
    for place, entry in enumerate(part.content["annotations"]):
        given = entry.get("image_id") if isinstance(entry, dict) else None
        exact = as_json(given)
        key = exact if exact in found else id_key(given)
        if key is not None and key in found:
            found[key].append((place, entry))
            continue
        reason = "image is not in the file's list, or was left out"
        if key is None:
            reason = "image_id is lacking or no id"
        if not isinstance(entry, dict):
            reason = "annotation is no object"
        name = annotation_name(entry, place)
        found_id = f" of image {exact:.40}" if key is not None else ""
        tally.leave_out("annotations", reason, f"{part.path}: {name}{found_id}")
    return found


def _unused(stem: str, taken: set[str]) -> str:
    name = apart(stem, taken)
    taken.add(name.lower())
    return name
