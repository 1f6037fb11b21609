"""A plain folder of images and a CSV of their tags or boxes: all that own data needs."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    box_arrays,
    check_classes,
    require,
    size_or_zero,
)
from rayseg.datasets.class_names import ClassIndex, say_alike
from rayseg.datasets.csv_rows import TableRow, corners, read_rows
from rayseg.datasets.faults import box_fault, say_faults
from rayseg.datasets.finding import IMAGE_SUFFIXES, find_image, leaves
from rayseg.datasets.listing import composed, list_folder, walk
from rayseg.datasets.reading import cleaned
from rayseg.datasets.tag_cells import NO_VALUE, TagCells
from rayseg.datasets.tally import Tally
from rayseg.datasets.true_masks import TrueMasks, check_mask_values, label_of_values
from rayseg.records import Sample
from rayseg.records.bounds import check_folder_name

_IMAGE_COLUMNS = ("image", "file", "filename", "id")
_TAG_COLUMNS = ("tags", "tag", "labels", "label", "class")
_CLASS_COLUMNS = ("class", "label", "category")
_SIDE_COLUMNS = (("x1", "xmin"), ("y1", "ymin"), ("x2", "xmax"), ("y2", "ymax"))
_WAY_OUT = "--folder.class-names adds it"


@dataclass(frozen=True)
class _Image:
    """What the CSVs say of one image, as they write it."""

    id: str
    row: TableRow
    path: Path
    tags: tuple[str, ...] = ()
    boxes: list[TableRow] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """As the CSV has it; with the file's suffix where the CSV leaves that out."""
        name = self.row.image
        known = name.lower().endswith(IMAGE_SUFFIXES)
        return name if known else name + (self.path.suffix if os.path.isfile(self.path) else "")


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

    The columns of either may be separated by commas, semicolons, tabs or bars. A row that cannot
    be read costs itself, and is counted with the reason.

    Attributes:
        images: Folder that the names in the CSVs are relative to.
        tags: CSV (UTF-8) with a column image, file, filename or id and one of tags, tag, labels,
            label or class; may be left out where there are boxes.
        boxes: CSV (UTF-8) with a column for the image as in `tags`, one of class, label or
            category, and x1, y1, x2, y2 or xmin, ymin, xmax, ymax.
        class_names: Class names in the order of their indices; empty takes the CSV's, sorted.
        masks: Folder of true masks ID.png (indexed or grey PNG), read by scores only.
        mask_values: What the pixel values of those masks mean, where they are not 0 for background,
            1 for the first class and so on, such as 255=cat 128=ignore. Masks are then converted
            into the run's folder.
        split: Name of the list that all the images belong to.
    """

    images: Path = Path("images")
    tags: Path | None = None
    boxes: Path | None = None
    class_names: tuple[str, ...] = ()
    masks: Path | None = None
    mask_values: tuple[str, ...] | None = None
    split: str = "train"

    def __post_init__(self) -> None:
        check_folder_name("split", self.split)
        check_mask_values(self.mask_values or ())

    @property
    def classes(self) -> tuple[str, ...]:
        """The given names, else all of the CSV of tags (or of boxes) in alphabetical order."""
        if self.class_names:
            return check_classes(self.class_names, "class_names")
        return self._names(self._read(Tally()))

    def read(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the CSV in its order; writes masks if their values are given."""
        require(self.images, "images", "expected the folder that the CSV's names lie in")
        images = self._read(tally)
        names = self.class_names or self._names(images)
        say_alike(names, str(self.tags or self.boxes), tally)
        index = ClassIndex(check_classes(names, "class_names"))
        masks = self._true_masks(index, workspace, tally)
        samples = (self._sample(image, index, masks, tally) for image in images)
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
        yield from sorted(_folders_of(images))
        yield from (image.path for image in images)
        ids = {image.id for image in images}
        if self.masks is not None:
            place = self.masks.absolute()
            for path in walk(place):
                stem = path.relative_to(place).as_posix().rpartition(".")[0]
                if path.is_dir() or composed(stem) in ids:
                    yield path

    def _names(self, images: Iterable[_Image]) -> tuple[str, ...]:
        """The classes that the CSV names, sorted."""
        if self.tags is None:
            names = {row.cells[0] for image in images for row in image.boxes} - {""}
        else:
            names = {tag for image in images for tag in image.tags}
        return check_classes(tuple(sorted(names)), str(self.tags or self.boxes))

    def _read(self, tally: Tally) -> list[_Image]:
        """What the CSVs say, one entry an image, in their order."""
        if self.tags is None and self.boxes is None:
            raise DatasetError(
                "expected a CSV of tags or one of boxes, got neither: give --folder.tags or "
                "--folder.boxes"
            )
        found: dict[str, _Image] = {}
        if self.tags is not None:
            self._read_tags(self.tags, found, tally)
        if self.boxes is not None:
            self._read_boxes(self.boxes, found, tally)
        if not found:
            reason = next(iter(tally.left_out))
            example = tally.examples[reason]
            raise DatasetError(f"no row is left: {example}: {reason.what} {reason.text}")
        return list(found.values())

    def _read_tags(self, tags: Path, found: dict[str, _Image], tally: Tally) -> None:
        path = require(tags, "tags", "expected a CSV with the header image,tags")
        columns = (_IMAGE_COLUMNS, _TAG_COLUMNS)
        rows = read_rows(path, columns, "put tags with commas in quotes or join them by ;", tally)
        cutter = TagCells((row.cells[0] for row in rows), self.class_names)
        for row in rows:
            image = self._image(row, tally)
            before = image and found.get(image.id)
            if image is None:
                continue
            if before and (before.path != image.path or before.row.written == row.written):
                _say_twice(before, image, tally)
                continue
            try:
                tags_of_row = tuple(map(cleaned, cutter.split(row.cells[0])))
            except ValueError as error:
                tally.leave_out("rows", str(error), f"{row.where}: {row.cells[0]!r}")
                continue
            if row.cells[0] in NO_VALUE and not tags_of_row:
                text = "that say no value as a program writes it, read as no tag"
                tally.note("cells", text, f"{row.where}: {row.cells[0]!r}")
            if before:  # one row a tag, as tables of pairs have it
                tally.note("rows", "more of one image, their tags taken together", row.where)
                tags_of_row = (*before.tags, *tags_of_row)
            found[image.id] = replace(before or image, tags=tuple(dict.fromkeys(tags_of_row)))

    def _read_boxes(self, boxes: Path, found: dict[str, _Image], tally: Tally) -> None:
        path = require(boxes, "boxes", "expected a CSV with the header image,class,x1,y1,x2,y2")
        columns = (_IMAGE_COLUMNS, _CLASS_COLUMNS, *_SIDE_COLUMNS)
        seen: set[tuple[str, ...]] = set()
        for row in read_rows(path, columns, "write one box a row", tally):
            image = self._image(row, tally)
            if image is None:
                continue
            if image.id not in found and self.tags is not None:
                text = f"of an image that {self.tags.name} does not name"
                tally.leave_out("boxes", text, f"{row.where}: {row.image!r}")
                continue
            first = found.setdefault(image.id, image)
            if first.path != image.path:
                _say_twice(first, image, tally)
            elif row.written in seen:
                tally.note("rows", "written twice, taken once", row.where)
            elif any(row.cells):
                first.boxes.append(row)
            seen.add(row.written)

    def _image(self, row: TableRow, tally: Tally) -> _Image | None:
        """The image that a row is of; None, and counted, where it can be none of the folder."""
        folder = self.images.absolute()
        plain = cleaned(row.image).replace("\\", "/")
        path = find_image(folder, row.image) or find_image(folder, plain)
        if path is None and leaves(row.image):
            text = "of a name that leads out of the folder of images: expected a name inside it"
            tally.leave_out("rows", text, f"{row.where}: {row.image!r}")
            return None
        id_ = _id_of(path.relative_to(folder).as_posix() if path else plain)
        return _Image(id_, row, path or folder / plain)

    def _sample(
        self, image: _Image, index: ClassIndex, masks: TrueMasks | None, tally: Tally
    ) -> Sample:
        size_hw = size_or_zero(image.path)
        boxes, box_classes, named = [], [], []
        for row in image.boxes:
            number = index.find(row.cells[0], "boxes", row.where, _WAY_OUT, tally)
            if number is None:
                continue
            named.append(number)
            box = corners(row, tally)
            fault = box and box_fault(box, size_hw)
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
        return Sample(
            id=image.id,
            path=str(image.path),
            height=size_hw[0],
            width=size_hw[1],
            tags=tags,
            boxes_xyxy=boxes_xyxy,
            box_classes=numbers,
            split=self.split,
            mask_path=masks.of(image.id, size_hw, tags) if masks else "",
            file_name=image.file_name,
        )

    def _true_masks(self, index: ClassIndex, workspace: Path, tally: Tally) -> TrueMasks | None:
        if self.masks is None:
            return None
        folder = require(self.masks, "masks", "expected a folder of ID.png")
        labels = label_of_values(self.mask_values, index) if self.mask_values else None
        return TrueMasks([folder], index, tally, labels, workspace)

    def _say_unnamed(self, images: list[_Image], tally: Tally) -> None:
        """Notes the images beside those that the CSV names."""
        named = {image.path for image in images}
        beside = (path for folder in sorted(_folders_of(images)) for path in list_folder(folder))
        others = [
            path for path in beside if path.suffix.lower() in IMAGE_SUFFIXES and path not in named
        ]
        if others:
            text = "lie in the folder and are in no row, so they are not read"
            tally.note("images", text, str(others[0]), len(others))


def _folders_of(images: Iterable[_Image]) -> set[Path]:
    return {image.path.parent for image in images}


def _id_of(name: str) -> str:
    """File name without the suffix of an image, letters composed; a folder in it stays."""
    path = PurePosixPath(composed(name.replace("\\", "/")))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def _say_twice(first: _Image, again: _Image, tally: Tally) -> None:
    where = f"{again.row.where}: {again.row.image!r}, as {first.row.where}"
    if first.row.written == again.row.written:
        tally.note("rows", "written twice, taken once", where)
    else:
        text = "of another file with the same id, its name without suffix: rename one image"
        tally.leave_out("rows", text, f"{where} {first.row.image!r}")
