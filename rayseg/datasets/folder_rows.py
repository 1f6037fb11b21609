"""What the CSVs of a folder of images say of each image."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from rayseg.datasets.base import DatasetError, require
from rayseg.datasets.csv_rows import TableRow, read_rows
from rayseg.datasets.finding import IMAGE_SUFFIXES, find_image, leaves
from rayseg.datasets.listing import composed
from rayseg.datasets.reading import cleaned
from rayseg.datasets.tag_cells import NO_TAG, NO_VALUE, TagCells
from rayseg.datasets.tally import Tally
from rayseg.records.bounds import check_folder_name

_IMAGE_COLUMNS = ("image", "file", "filename", "id")
_TAG_COLUMNS = ("tags", "tag", "labels", "label", "class")
_CLASS_COLUMNS = ("class", "label", "category")
_SIDE_COLUMNS = (("x1", "xmin"), ("y1", "ymin"), ("x2", "xmax"), ("y2", "ymax"))
_SPLIT_COLUMNS = ("split", "subset")
_SPLIT_WORDS = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}


@dataclass(frozen=True)
class ListedImage:
    """What the CSVs say of one image, as they write it.

    Attributes:
        id: its name without the suffix, with the folders in front.
        row: the first one that names it.
        path: of its file, which need not be there.
        split: the list that it belongs to.
        tags: in the order of its rows.
        boxes: a row each.
    """

    id: str
    row: TableRow
    path: Path
    split: str
    tags: tuple[str, ...] = ()
    boxes: list[TableRow] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """As the CSV has it; with the file's suffix where the CSV leaves that out."""
        name = self.row.image
        known = name.lower().endswith(IMAGE_SUFFIXES)
        return name if known else name + (self.path.suffix if os.path.isfile(self.path) else "")

    @property
    def is_negative(self) -> bool:
        """Whether the CSVs say that it shows nothing of any class."""
        return not self.tags and not self.boxes


@dataclass(frozen=True)
class FolderRows:
    """The CSVs of a folder; see `FolderDataset` for what each of these is."""

    images: Path
    tags: Path | None
    boxes: Path | None
    class_names: tuple[str, ...]
    split: str
    splits: tuple[str, ...]

    def read(self, tally: Tally) -> list[ListedImage]:
        """One entry an image, in the order in which they are named first.

        Raises:
            DatasetError: no CSV is given, one cannot be read, or no row of them is good.
        """
        if self.tags is None and self.boxes is None:
            raise DatasetError(
                "expected a CSV of tags or one of boxes, got neither: give --folder.tags or "
                "--folder.boxes"
            )
        found: dict[str, ListedImage] = {}
        if self.tags is not None:
            self._read_tags(self.tags, found, tally)
        if self.boxes is not None:
            self._read_boxes(self.boxes, found, tally)
        if not found:
            reason = next(iter(tally.left_out))
            example = tally.examples[reason]
            raise DatasetError(f"no row is left: {example}: {reason.what} {reason.text}")
        return list(found.values())

    def _read_tags(self, tags: Path, found: dict[str, ListedImage], tally: Tally) -> None:
        path = require(tags, "tags", "expected a CSV with the header image,tags")
        columns = (_IMAGE_COLUMNS, _TAG_COLUMNS)
        way_out = "put tags with commas in quotes or join them by ;"
        rows = read_rows(path, columns, way_out, tally, _SPLIT_COLUMNS)
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
            tags_of_row = self._without_none(row, tags_of_row, tally)
            if before:  # one row a tag, as tables of pairs have it
                tally.note("rows", "more of one image, their tags taken together", row.where)
                tags_of_row = (*before.tags, *tags_of_row)
                _say_other_split(before, image, tally)
            found[image.id] = replace(before or image, tags=tuple(dict.fromkeys(tags_of_row)))

    def _without_none(self, row: TableRow, tags: tuple[str, ...], tally: Tally) -> tuple[str, ...]:
        """The tags without the word none, which says that there is none, unless it is a class."""
        kept = tuple(tag for tag in tags if tag.lower() != NO_TAG or tag in self.class_names)
        if kept and kept != tags:
            text = f"with the tag {NO_TAG!r} beside others, which is dropped"
            tally.note("cells", text, f"{row.where}: {row.cells[0]!r}")
        return kept

    def _read_boxes(self, boxes: Path, found: dict[str, ListedImage], tally: Tally) -> None:
        path = require(boxes, "boxes", "expected a CSV with the header image,class,x1,y1,x2,y2")
        columns = (_IMAGE_COLUMNS, _CLASS_COLUMNS, *_SIDE_COLUMNS)
        seen: set[tuple[str, ...]] = set()
        for row in read_rows(path, columns, "write one box a row", tally, _SPLIT_COLUMNS):
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
            else:
                _say_other_split(first, image, tally)
                first.boxes.extend([row] if any(row.cells) else [])
            seen.add(row.written)

    def _image(self, row: TableRow, tally: Tally) -> ListedImage | None:
        """The image that a row is of; None, and counted, where it can be none of the folder."""
        folder = self.images.absolute()
        plain = cleaned(row.image).replace("\\", "/")
        path = find_image(folder, row.image) or find_image(folder, plain)
        if path is None and leaves(row.image):
            text = "of a name that leads out of the folder of images: expected a name inside it"
            tally.leave_out("rows", text, f"{row.where}: {row.image!r}")
            return None
        if path is None:
            below = [one for name in self.splits if (one := find_image(folder / name, plain))]
            if len(below) > 1:
                text = "of a name that several folders of splits have: write the folder before it"
                tally.leave_out("rows", text, f"{row.where}: {row.image!r}")
                return None
            path = next(iter(below), None)
        name = path.relative_to(folder).as_posix() if path else plain
        split = self._split(row, name, tally)
        return (
            None if split is None else ListedImage(id_of(name), row, path or folder / plain, split)
        )

    def _split(self, row: TableRow, name: str, tally: Tally) -> str | None:
        """The split of a row's image; None, and counted, where the cell is no name of one."""
        top = name.partition("/")[0]
        written = row.extra.lower() or (top if top in self.splits else self.split)
        split = _SPLIT_WORDS.get(written, written)
        try:
            check_folder_name("split", split)
        except ValueError as error:
            tally.leave_out("rows", str(error).partition(", got")[0], f"{row.where}: {row.extra!r}")
            return None
        if split != written:
            tally.note("images", f"of the split {written!r}, here called {split}", row.where)
        return split


def folders_of(images: Iterable[ListedImage]) -> set[Path]:
    """The folders that files of images lie in."""
    return {image.path.parent for image in images}


def id_of(name: str) -> str:
    """File name without the suffix of an image, letters composed; a folder in it stays."""
    path = PurePosixPath(composed(name.replace("\\", "/")))
    return str(path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path)


def _say_other_split(first: ListedImage, again: ListedImage, tally: Tally) -> None:
    if first.split != again.split:
        text = "of one image in two splits, the first one is taken"
        where = f"{again.row.where}: {again.split!r}, as {first.row.where} {first.split!r}"
        tally.note("rows", text, where)


def _say_twice(first: ListedImage, again: ListedImage, tally: Tally) -> None:
    where = f"{again.row.where}: {again.row.image!r}, as {first.row.where}"
    if first.row.written == again.row.written:
        tally.note("rows", "written twice, taken once", where)
    else:
        text = "of another file with the same id, its name without suffix: rename one image"
        tally.leave_out("rows", text, f"{where} {first.row.image!r}")
