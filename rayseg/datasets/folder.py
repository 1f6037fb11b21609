"""A plain folder of images and a CSV of their tags or boxes: all that own data needs."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    box_arrays,
    check_classes,
    finite,
    nearest,
    require,
    size_or_zero,
)
from rayseg.datasets.listing import walk
from rayseg.datasets.tally import Tally
from rayseg.records import Sample

_IMAGE_COLUMNS = ("image", "file", "filename", "id")
_TAG_COLUMNS = ("tags", "tag", "labels", "label", "class")
_CLASS_COLUMNS = ("class", "label", "category")
_SIDE_COLUMNS = (("x1", "xmin"), ("y1", "ymin"), ("x2", "xmax"), ("y2", "ymax"))
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class _Row:
    line: int
    image: str
    cells: tuple[str, ...]

    @property
    def id(self) -> str:
        """File name without the suffix of an image; a folder in it stays."""
        path = PurePosixPath(self.image)
        return str(path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path)


@dataclass(frozen=True)
class _Image:
    """What the CSVs say of one image."""

    tags: tuple[int, ...]
    boxes_xyxy: list[tuple[float, float, float, float]]
    box_classes: list[int]


@dataclass(frozen=True)
class FolderDataset(Dataset):
    """Images in a folder, with a CSV of their tags, a CSV of their boxes, or both.

    The CSV of tags has a header such as ``image,tags``, one row an image. Its rows are the data
    set: images that it does not name are left out, images that it names and the folder lacks stay
    as rows. It has one separator of tags, the first of these that any of its cells holds: ``;`` or
    ``|``, then a comma (inside quotes), then blanks. So with ``traffic light;car`` in one row,
    ``traffic light`` is one tag everywhere; a file without any other separator needs
    ``class_names`` to keep a name with a blank in one piece.

    The CSV of boxes has a header such as ``image,class,x1,y1,x2,y2``, one row a box, in pixels from
    the upper left corner of the image, the second corner exclusive. A row with an image alone says
    that it has no object. Boxes are as they are, also where they leave the image or have no area.

    With both, the tags are as their own CSV says, which also names the images and the classes: a
    box of another image or class is an error. With boxes alone, the images are those of its rows,
    in the order in which they come first, and the tags of an image are the classes of its boxes.

    Attributes:
        images: Folder that the names in the CSVs are relative to.
        tags: CSV (UTF-8) with a column image, file, filename or id and one of tags, tag, labels,
            label or class; may be left out where there are boxes.
        boxes: CSV (UTF-8) with a column for the image as in `tags`, one of class, label or
            category, and x1, y1, x2, y2 or xmin, ymin, xmax, ymax.
        class_names: Class names in the order of their indices; empty takes the CSV's, sorted.
        masks: Folder of true masks ID.png (indexed or grey PNG), read by scores only.
        split: Name of the list that all the images belong to.
    """

    images: Path = Path("images")
    tags: Path | None = None
    boxes: Path | None = None
    class_names: tuple[str, ...] = ()
    masks: Path | None = None
    split: str = "train"

    @property
    def classes(self) -> tuple[str, ...]:
        """The given names, else all of the CSV of tags (or of boxes) in alphabetical order."""
        if self.class_names:
            return check_classes(self.class_names, "class_names")
        if self.tags is None:
            names = {row.cells[0] for row in self._box_rows()} - {""}
        else:
            rows = self._tag_rows()
            split = self._splitter(rows)
            names = {tag for row in rows for tag in split(row.cells[0])}
        return check_classes(tuple(sorted(names)), str(self.tags or self.boxes))

    def samples(self, workspace: Path, tally: Tally) -> Iterator[Sample]:
        """Yields the images of the CSV in its order; writes nothing."""
        folder = require(self.images, "images", "expected the folder that the CSV's names lie in")
        masks = self.masks and require(self.masks, "masks", "expected a folder of ID.png")
        boxes = [] if self.tags and not self.boxes else self._box_rows()
        first = _first_of_each(boxes if self.tags is None else self._tag_rows())
        for row, image in zip(first.values(), self._images(first, boxes), strict=True):
            path = _find_image(folder, row.image)
            height, width = size_or_zero(path)
            mask = masks / f"{row.id}.png" if masks else None
            boxes_xyxy, box_classes = box_arrays(image.boxes_xyxy, image.box_classes)
            yield tally.take_sample(
                Sample(
                    id=row.id,
                    path=str(path),
                    height=height,
                    width=width,
                    tags=image.tags,
                    boxes_xyxy=boxes_xyxy,
                    box_classes=box_classes,
                    split=self.split,
                    mask_path=str(mask) if mask and mask.is_file() else "",
                )
            )

    def files(self) -> Iterator[Path]:
        """Yields the CSVs, and the folders of images and masks with all that they hold."""
        yield from (path.absolute() for path in (self.tags, self.boxes) if path)
        for folder in (self.images, self.masks):
            if folder:
                yield from walk(folder.absolute())

    def _images(self, first: dict[str, _Row], boxes: list[_Row]) -> list[_Image]:
        """What is known of each image, by the row that names it first."""
        index = {name: i for i, name in enumerate(self.classes)}
        found: dict[str, _Image] = {id_: _Image((), [], []) for id_ in first}
        for row in boxes:
            if row.id not in found:
                raise DatasetError(
                    f"{self.boxes}:{row.line}: image {row.image!r} is not in {self.tags}"
                    + nearest(row.id, found)
                )
            name, *sides = row.cells
            if name or any(sides):
                found[row.id].box_classes.append(self._index_of(name, index, self.boxes, row))
                found[row.id].boxes_xyxy.append(self._corners(sides, row))
        if self.tags is None:
            return [
                replace(one, tags=tuple(sorted(set(one.box_classes)))) for one in found.values()
            ]
        split = self._splitter(first.values())
        tags = [
            {self._index_of(tag, index, self.tags, row) for tag in split(row.cells[0])}
            for row in first.values()
        ]
        return [
            replace(one, tags=tuple(sorted(own)))
            for one, own in zip(found.values(), tags, strict=True)
        ]

    def _tag_rows(self) -> list[_Row]:
        """The rows of the CSV of tags; an image comes once."""
        assert self.tags is not None
        path = require(self.tags, "tags", "expected a CSV with the header image,tags")
        rows = _read_rows(path, (_TAG_COLUMNS,), "put tags with commas in quotes or join them by ;")
        first = _first_of_each(rows)
        for row in rows:
            before = first[row.id]
            if before is not row:
                raise DatasetError(
                    f"{path}:{row.line}: duplicate id {row.id!r} ({row.image}), already at line "
                    f"{before.line} ({before.image}): keep one row an image, its tags joined by ;"
                )
        return rows

    def _box_rows(self) -> list[_Row]:
        """The rows of the CSV of boxes; all of one id name one file."""
        if self.boxes is None:
            raise DatasetError(
                "expected a CSV of tags or one of boxes, got neither: give tags or boxes"
            )
        path = require(
            self.boxes, "boxes", "expected a CSV with the header image,class,x1,y1,x2,y2"
        )
        rows = _read_rows(path, (_CLASS_COLUMNS, *_SIDE_COLUMNS), "write one box a row")
        first = _first_of_each(rows)
        for row in rows:
            before = first[row.id]
            if before.image != row.image:
                raise DatasetError(
                    f"{path}:{row.line}: duplicate id {row.id!r} ({row.image}), already at line "
                    f"{before.line} ({before.image}): rename one image"
                )
        return rows

    def _splitter(self, rows: Iterable[_Row]) -> Callable[[str], list[str]]:
        """Returns what cuts a cell into tags, by the strongest separator of the whole file."""
        text = "\n".join(row.cells[0] for row in rows)
        pattern = r"[;|]" if re.search(r"[;|]", text) else "," if "," in text else r"\s+"

        def split(cell: str) -> list[str]:
            if cell in self.class_names:
                return [cell]
            return [tag.strip() for tag in re.split(pattern, cell) if tag.strip()]

        return split

    def _index_of(self, name: str, index: dict[str, int], path: Path | None, row: _Row) -> int:
        if name not in index:
            what = "tag" if path is self.tags else "class"
            raise DatasetError(f"{path}:{row.line}: unknown {what} {name!r}" + nearest(name, index))
        return index[name]

    def _corners(self, sides: list[str], row: _Row) -> tuple[float, float, float, float]:
        try:
            x1, y1, x2, y2 = map(finite, sides)
        except ValueError:
            raise DatasetError(
                f"{self.boxes}:{row.line}: expected numbers in x1, y1, x2, y2, got {sides}"
            ) from None
        return x1, y1, x2, y2


def _first_of_each(rows: list[_Row]) -> dict[str, _Row]:
    """The first row of each id, in their order."""
    first: dict[str, _Row] = {}
    for row in rows:
        first.setdefault(row.id, row)
    return first


def _read_rows(path: Path, columns: tuple[tuple[str, ...], ...], way_out: str) -> list[_Row]:
    """Reads the image and the named columns of each row that is not blank; at least one row."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            places = [_column(header, names, path) for names in (_IMAGE_COLUMNS, *columns)]
            rows = []
            for cells in reader:
                if len(cells) > len(header):
                    raise DatasetError(
                        f"{path}:{reader.line_num}: {len(cells)} fields, the header has "
                        f"{len(header)}: {way_out}"
                    )
                if any(cell.strip() for cell in cells):
                    rows.append(_row(cells, places, path, reader.line_num))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from None
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num}: not CSV ({error}): check quotes") from None
    if not rows:
        raise DatasetError(f"{path} has no row below its header: expected one an image")
    return rows


def _column(header: list[str], names: tuple[str, ...], path: Path) -> int:
    found = [header.index(name) for name in names if name in header]
    if not found:
        raise DatasetError(
            f"{path}:1: expected a header with a column {' or '.join(names)}, got {header}"
        )
    return found[0]


def _row(cells: list[str], places: list[int], path: Path, line: int) -> _Row:
    image, *others = (cells[i].strip() if i < len(cells) else "" for i in places)
    image = image.replace("\\", "/")
    name = PurePosixPath(image)
    if not image or name.is_absolute() or ".." in name.parts:
        raise DatasetError(f"{path}:{line}: expected a name inside the image folder, got {image!r}")
    return _Row(line, str(name), tuple(others))


def _find_image(folder: Path, name: str) -> Path:
    """Returns the file of a name, which may lack its suffix; the bare path where there is none."""
    path = folder / name
    if path.suffix.lower() in _SUFFIXES:
        return path
    candidates = [folder / f"{name}{suffix}" for suffix in (*_SUFFIXES, *map(str.upper, _SUFFIXES))]
    return next((file for file in candidates if file.is_file()), path)
