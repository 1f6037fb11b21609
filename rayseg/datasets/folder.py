"""A plain folder of images and a CSV of their tags or boxes: all that own data needs."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rayseg.datasets.base import Dataset, DatasetError, box_arrays, check_classes, require
from rayseg.datasets.class_names import ClassIndex, say_alike
from rayseg.datasets.csv_rows import corners
from rayseg.datasets.faults import box_fault, say_faults
from rayseg.datasets.finding import IMAGE_SUFFIXES
from rayseg.datasets.folder_rows import FolderRows, ListedImage, folders_of, id_of
from rayseg.datasets.listing import composed, list_folder, walk
from rayseg.datasets.photos import read_photo
from rayseg.datasets.tally import Tally
from rayseg.datasets.true_masks import TrueMasks, check_mask_values, label_of_values
from rayseg.records import Sample
from rayseg.records.bounds import check_folder_name, check_least
from rayseg.records.scaling import scale_boxes

_WAY_OUT = "--folder.class-names adds it"
_NEGATIVES = "negatives"


@dataclass(frozen=True)
class FolderDataset(Dataset):
    """Images in a folder, with a CSV of their tags, a CSV of their boxes, or both.

    The CSV of tags has a header such as ``image,tags``, a row an image or a row a tag. Its rows are
    the data set: images that it does not name are left out, images that it names and the folder
    lacks stay as rows. It has one separator of tags, the first of these that any of its cells
    holds: ``;`` or ``|``, then a comma (inside quotes), then blanks. So with ``traffic light;car``
    in one row, ``traffic light`` is one tag everywhere; a file without any other separator needs
    ``class_names`` to keep a name with a blank in one piece. A cell may also be a list such as
    ``['cat', 'dog']``, as pandas writes it.

    The CSV of boxes has a header such as ``image,class,x1,y1,x2,y2``, one row a box, in pixels from
    the upper left corner of the image, the second corner exclusive. A row with an image alone says
    that it has no object. A box that has no area or lies outside its image is left out, one that
    reaches over the edge stays as it is.

    With both, the tags are as their own CSV says, which also names the images and the classes: a
    box of another image or class is left out. With boxes alone, the images are those of its rows,
    in the order in which they come first, and the tags of an image are the classes of its boxes.

    An image without tags (or boxes), or with the one tag ``none``, is a negative: it is known to
    show nothing of any class, and a classifier learns that. What nobody has looked at is best left
    out of the CSV.

    A column split or subset says which split an image belongs to; so do folders that are named by
    `splits`. Its words validation, valid, training and testing mean val, train and test.

    The columns of either may be separated by commas, semicolons, tabs or bars. A row that cannot
    be read costs itself, and is counted with the reason.

    Photographs are seen upright, as EXIF says and viewers show them, and no larger than `max_side`.
    Boxes and true masks are those of the upright photograph at its full size, and masks are
    exported at that size.

    Attributes:
        images: Folder that the names in the CSVs are relative to.
        tags: CSV (UTF-8) with a column image, file, filename or id and one of tags, tag, labels,
            label or class; may be left out where there are boxes.
        boxes: CSV (UTF-8) with a column for the image as in `tags`, one of class, label or
            category, and x1, y1, x2, y2 or xmin, ymin, xmax, ymax.
        class_names: Class names in the order of their indices; empty takes the CSV's, sorted.
        masks: Folder of true masks ID.png (indexed or grey PNG), read by scores only.
        mask_values: What the pixel values of the true masks mean, such as 255=cat 128=ignore, where
            they are not 0 for background, 1 for the first class and so on. Masks are then converted
            into the run's folder.
        split: Name of the list of images for which no other is named.
        splits: Folders inside `images` that are a split each, such as train val. Names in the CSV
            may leave the folder out.
        negatives: Folder of pictures that show nothing of any class, for the classifier to learn
            from.
        max_side: Longest side in pixels at which photographs are seen; 0 sees them at full size,
            which takes as much more memory and time.
    """

    images: Path = Path("images")
    tags: Path | None = None
    boxes: Path | None = None
    class_names: tuple[str, ...] = ()
    masks: Path | None = None
    mask_values: tuple[str, ...] | None = None
    split: str = "train"
    splits: tuple[str, ...] = field(default=(), metadata={"new": True})
    negatives: Path | None = field(default=None, metadata={"new": True})
    max_side: int = field(default=640, metadata={"new": True})

    def __post_init__(self) -> None:
        for name in (self.split, *self.splits):
            check_folder_name("split", name)
        check_least(self, max_side=0)
        if 0 < self.max_side < 32:
            raise DatasetError(f"max_side must be 0 or at least 32 pixels, got {self.max_side}")
        check_mask_values(self.mask_values or ())

    @property
    def classes(self) -> tuple[str, ...]:
        """The given names, else all of the CSV of tags (or of boxes) in alphabetical order."""
        if self.class_names:
            return check_classes(self.class_names, "class_names")
        return self._names(self._read(Tally()))

    def read(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the CSV in its order; writes masks if their values are given."""
        images_folder = require(
            self.images, "images", "expected the folder that the CSV's names lie in"
        )
        for name in self.splits:
            require(images_folder / name, f"split {name}", "expected a folder inside the images")
        images = self._read(tally)
        names = self.class_names or self._names(images)
        say_alike(names, str(self.tags or self.boxes), tally)
        index = ClassIndex(check_classes(names, "class_names"))
        masks = self._true_masks(index, workspace, tally)
        listed = (self._sample(image, index, masks, tally) for image in images)
        samples = chain(listed, self._negatives(images, tally))
        yield from say_faults(samples, tally, "check --folder.images and the names in the CSV")
        self._say_unnamed(images, tally)
        if masks:
            masks.say_unfound()
            masks.say_of_all("--folder.mask-values 255=CLASS says what 255 is")

    def files(self) -> Iterator[Path]:
        """Yields the CSVs, the images that they name with their folders, and the masks of these.

        What else lies in a folder, such as a run, is not looked at.
        """
        images = self._read(Tally())
        yield from (path.absolute() for path in (self.tags, self.boxes) if path)
        yield self.images.absolute()
        yield from walk(self.negatives.absolute()) if self.negatives else ()
        yield from sorted(folders_of(images))
        yield from (image.path for image in images)
        ids = {image.id for image in images}
        if self.masks is not None:
            place = self.masks.absolute()
            for path in walk(place):
                stem = path.relative_to(place).as_posix().rpartition(".")[0]
                if path.is_dir() or composed(stem) in ids:
                    yield path

    def _names(self, images: Iterable[ListedImage]) -> tuple[str, ...]:
        """The classes that the CSV names, sorted."""
        if self.tags is None:
            names = {row.cells[0] for image in images for row in image.boxes} - {""}
        else:
            names = {tag for image in images for tag in image.tags}
        return check_classes(tuple(sorted(names)), str(self.tags or self.boxes))

    def _read(self, tally: Tally) -> list[ListedImage]:
        """What the CSVs say, one entry an image, in their order."""
        rows = FolderRows(
            self.images, self.tags, self.boxes, self.class_names, self.split, self.splits
        )
        return rows.read(tally)

    def _sample(
        self, image: ListedImage, index: ClassIndex, masks: TrueMasks | None, tally: Tally
    ) -> Sample:
        photo = read_photo(image.path, self.max_side)
        boxes, box_classes, named = [], [], []
        for row in image.boxes:
            number = index.find(row.cells[0], "boxes", row.where, _WAY_OUT, tally)
            if number is None:
                continue
            named.append(number)
            box = corners(row, tally)
            fault = box and box_fault(box, photo.shown_hw)
            if fault:
                tally.leave_out("boxes", fault, f"{row.where}: {row.cells[1:]}")
            elif box:
                boxes.append(box)
                box_classes.append(number)
        if self.tags is not None:
            found = [index.find(t, "tags", image.row.where, _WAY_OUT, tally) for t in image.tags]
            named = [number for number in found if number is not None]
        tags = tuple(sorted(set(named)))
        boxes_xyxy, numbers = box_arrays(boxes, box_classes)
        if photo.seen_hw != photo.shown_hw:
            boxes_xyxy = scale_boxes(boxes_xyxy, photo.shown_hw, photo.seen_hw)
        return Sample(
            id=image.id,
            path=str(image.path),
            height=photo.seen_hw[0],
            width=photo.seen_hw[1],
            tags=tags,
            boxes_xyxy=boxes_xyxy,
            box_classes=numbers,
            split=image.split,
            mask_path=masks.of(image.id, photo.shown_hw, tags, seen_hw=photo.seen_hw)
            if masks
            else "",
            file_name=image.file_name,
            negative=image.is_negative,
            seen_side=photo.seen_side,
            photo_hw=photo.photo_hw,
        )

    def _negatives(self, listed: list[ListedImage], tally: Tally) -> Iterator[Sample]:
        """The pictures of the folder of negatives, but for those that the CSV names."""
        if self.negatives is None:
            return
        folder = require(self.negatives, "negatives", "expected a folder of pictures")
        named = {os.path.realpath(image.path) for image in listed}
        ids = {image.id for image in listed}
        number = 0
        for path in walk(folder):
            if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
                continue
            number += 1
            id_ = f"{_NEGATIVES}/{id_of(path.relative_to(folder).as_posix())}"
            if os.path.realpath(path) in named:
                text = "of the folder of negatives that the CSV names too, taken as that says"
                tally.note("images", text, str(path))
                continue
            if id_ in ids:
                text = "of another file with the same id, its name without suffix: rename one image"
                tally.leave_out("images", text, str(path))
                continue
            ids.add(id_)
            photo = read_photo(path, self.max_side)
            boxes_xyxy, numbers = box_arrays([], [])
            yield Sample(
                id=id_,
                path=str(path),
                height=photo.seen_hw[0],
                width=photo.seen_hw[1],
                tags=(),
                boxes_xyxy=boxes_xyxy,
                box_classes=numbers,
                split=self.split,
                file_name=path.relative_to(folder).as_posix(),
                negative=True,
                seen_side=photo.seen_side,
                photo_hw=photo.photo_hw,
            )
        if not number:
            raise DatasetError(f"{folder} holds no picture: expected negatives, such as JPEG files")

    def _true_masks(self, index: ClassIndex, workspace: Path, tally: Tally) -> TrueMasks | None:
        if self.masks is None:
            return None
        folder = require(self.masks, "masks", "expected a folder of ID.png")
        labels = label_of_values(self.mask_values, index) if self.mask_values else None
        return TrueMasks([folder], index, tally, labels, workspace)

    def _say_unnamed(self, images: list[ListedImage], tally: Tally) -> None:
        """Notes the images beside those that the CSV names."""
        named = {image.path for image in images}
        beside = (path for folder in sorted(folders_of(images)) for path in list_folder(folder))
        others = [
            path for path in beside if path.suffix.lower() in IMAGE_SUFFIXES and path not in named
        ]
        if others:
            text = "lie in the folder and are in no row, so they are not read"
            tally.note("images", text, str(others[0]), len(others))
