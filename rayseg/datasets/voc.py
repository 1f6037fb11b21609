"""PASCAL VOC in the layout of VOCdevkit."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    DatasetNotFoundError,
    box_arrays,
    check_classes,
    size_or_zero,
)
from rayseg.datasets.class_names import ClassIndex, say_alike
from rayseg.datasets.faults import say_faults
from rayseg.datasets.listing import Stems, composed, walk
from rayseg.datasets.tally import Tally
from rayseg.datasets.true_masks import TrueMasks
from rayseg.datasets.voc_annotations import Annotations
from rayseg.datasets.voc_lists import Listed, class_lists, read_lists, read_presence
from rayseg.datasets.voc_names import found_classes, labelmap_classes
from rayseg.datasets.voc_objects import read_values, true_masks
from rayseg.records import Sample

_MASKS = ("SegmentationClass", "SegmentationClassAug")
_FOLDERS = ("JPEGImages", "Annotations", *_MASKS, "SegmentationObject")
_EXPECTED = "expected JPEGImages, ImageSets and Annotations as in VOCdevkit/VOC2012"
_ADD_CLASS = "--voc.class-names adds it"


@dataclass(frozen=True)
class VOC(Dataset):
    """PASCAL VOC 2012, or data in its layout with classes of its own.

    VocObjects marked difficult count: as tags (value 0 of ``ImageSets/Main`` as well as 1) and as
    boxes, which ``Sample.difficult`` lists. The class labels that IRN and its successors train on
    are made so, from all objects of the XML. VOC counts pixels from 1 and includes the last, so a
    box (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). An object with a polygon
    and no box has the box around it. A box that has no area, lies outside its image, or was made
    for an image of another size is left out; the object still is a tag of the XML.

    The true mask of an object is value k of ``SegmentationObject/ID.png`` for the XML's k-th
    object, if class and place agree with its box; else the value whose class and place do. It lacks
    the border between objects, which VOC leaves out of the truth. Semantic masks are those of
    SegmentationClass, else of SegmentationClassAug, or what a list of pairs of paths names.

    A line of a list is an id, blanks in it too. What is wrong with a line, an XML or an object
    costs only that, and is counted with the reason.

    Attributes:
        root: Folder VOC2012, or the VOCdevkit that contains it.
        splits: Names of lists in ImageSets/Segmentation, else in ImageSets/Main.
        tags_from: Where tags come from: ImageSets/Main/CLASS_SPLIT.txt (image_sets) or the XML
            (annotations), which also serves where there is no such file at all.
        list_file: Text file of ids to read instead of the splits, one on each line. Each keeps the
            split that lists it, or else gets the first split.
        class_names: Class names in the order of their indices. Empty takes those of labelmap.txt,
            else VOC's 20 if the names that are found are all of these, else the names that are
            found where tags come from, sorted.
    """

    root: Path = Path("VOCdevkit/VOC2012")
    splits: tuple[str, ...] = ("train",)
    tags_from: Literal["annotations", "image_sets"] = "image_sets"
    list_file: Path | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The given names, else those that are found."""
        return self._classes

    def read(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the lists, in their order; writes nothing."""
        folder = self._folder()
        listed = read_lists(folder, self.splits, self.list_file, tally)
        say_alike(self.classes, str(folder), tally)
        index = ClassIndex(self.classes)
        tags = self._tags_of_image_sets(folder, listed, index, tally)
        masks = TrueMasks([folder / kind for kind in _MASKS], index, tally)
        annotations = Annotations(folder / "Annotations", index, tally, needed=tags is None)
        objects = Stems(folder / "SegmentationObject")
        samples = (self._sample(folder, one, annotations, tags, masks, objects) for one in listed)
        way_out = f"check {folder}/JPEGImages and the lists"
        yield from say_faults(samples, tally, way_out)
        if tags is None and not annotations.number:
            raise DatasetNotFoundError(
                f"annotations not found in {folder}/Annotations, such as {listed[0].id}.xml: "
                "add them or use --voc.tags-from image_sets"
            )
        masks.say_of_all("write 1 for the first class, 2 for the second and so on")

    def files(self) -> Iterator[Path]:
        """Yields the lists, and of each folder what belongs to an image that they name."""
        folder = self._folder()
        if self.list_file is not None:
            yield self.list_file.absolute()
        yield folder / "labelmap.txt"
        yield from walk(folder / "ImageSets")
        listed = read_lists(folder, self.splits, self.list_file, Tally())
        yield from (one.path for one in listed)
        yield from (folder / one.mask for one in listed if one.mask)
        wanted = {one.id for one in listed}
        for place in (folder / kind for kind in _FOLDERS):
            for path in walk(place):
                stem = composed(path.relative_to(place).as_posix().rpartition(".")[0])
                if path == place or stem in wanted or path.is_dir():
                    yield path

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        if self.class_names:
            return check_classes(self.class_names, "class_names")
        folder = self._folder()
        drawn = labelmap_classes(folder / "labelmap.txt")
        if drawn:
            return check_classes(drawn, str(folder / "labelmap.txt"))
        lists = self._class_lists(folder)
        if lists:
            return check_classes(found_classes(lists), f"{folder}/ImageSets/Main")
        listed = read_lists(folder, self.splits, self.list_file, Tally())
        annotations = Annotations(folder / "Annotations", ClassIndex(()), Tally(), needed=False)
        names = {item.name for one in listed for item in annotations.read(one.id)[1].objects}
        return check_classes(found_classes(names - {""}), f"XML in {folder}/Annotations")

    def _folder(self) -> Path:
        for folder in (self.root, self.root / "VOC2012", self.root / "VOCdevkit" / "VOC2012"):
            if (folder / "JPEGImages").is_dir():
                return folder.absolute()
        raise DatasetNotFoundError(f"VOC not found at {self.root.absolute()}: {_EXPECTED}")

    def _class_lists(self, folder: Path) -> dict[str, list[Path]]:
        """The lists that tags come from, of each class; none where they come from the XML."""
        return class_lists(folder, self.splits) if self.tags_from == "image_sets" else {}

    def _tags_of_image_sets(
        self, folder: Path, listed: list[Listed], index: ClassIndex, tally: Tally
    ) -> dict[str, set[int]] | None:
        """Class indices of every id that lists of classes know; None for those of the XML."""
        lists = self._class_lists(folder)
        if not lists:
            if self.tags_from == "image_sets":
                text = "of the XML, as there is no list of a class in ImageSets/Main"
                tally.note("tags", text, f"{folder}/ImageSets/Main", len(listed))
            return None
        tags: dict[str, set[int]] = {}
        for name, files in lists.items():
            number = index.find(name, "lists", str(files[0]), _ADD_CLASS, tally)
            for file in files:
                for image, present in read_presence(file, tally):
                    held = {number} if present and number is not None else set()
                    tags.setdefault(image, set()).update(held)
        self._say_uncovered(folder, listed, tags, tally)
        return tags

    def _say_uncovered(
        self, folder: Path, listed: list[Listed], tags: dict[str, set[int]], tally: Tally
    ) -> None:
        unknown = [one for one in listed if one.id not in tags]
        if len(unknown) == len(listed):
            raise DatasetError(
                f"{len(unknown)} ids such as {unknown[0].id!r} are in no list of a class in "
                f"{folder}/ImageSets/Main: correct the lists or use --voc.tags-from annotations"
            )
        if unknown:
            text = "of images that are in no list of a class in ImageSets/Main"
            example = f"{unknown[0].where}: {unknown[0].id!r}"
            tally.leave_out("tags", text, example, len(unknown))

    def _sample(
        self,
        folder: Path,
        listed: Listed,
        annotations: Annotations,
        tags_of: dict[str, set[int]] | None,
        masks: TrueMasks,
        objects_of: Stems,
    ) -> Sample:
        size_hw = size_or_zero(listed.path)
        known = annotations.of(listed, size_hw)
        found = known.tags if tags_of is None else tags_of.get(listed.id, set())
        tags = tuple(sorted(found))
        mask = masks.of(listed.id, size_hw, tags, folder / listed.mask if listed.mask else None)
        boxes_xyxy, box_classes = box_arrays(known.boxes_xyxy, known.classes)
        objects, labels = (
            read_values(path, size_hw)
            for path in (objects_of.find(listed.id, ".png"), Path(mask) if mask else None)
        )
        return Sample(
            id=listed.id,
            path=str(listed.path),
            height=size_hw[0],
            width=size_hw[1],
            tags=tags,
            boxes_xyxy=boxes_xyxy,
            box_classes=box_classes,
            split=listed.split,
            mask_path=mask,
            difficult=known.difficult,
            true_masks=true_masks(objects, labels, boxes_xyxy, known.classes, known.places),
            file_name=listed.path.relative_to(folder / "JPEGImages").as_posix(),
        )
