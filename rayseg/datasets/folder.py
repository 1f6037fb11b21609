"""A plain folder of images and a CSV of their tags: all that own data needs."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rayseg.datasets.base import (
    Dataset,
    DatasetError,
    box_arrays,
    check_classes,
    nearest,
    require,
    size_or_zero,
)
from rayseg.records import Sample

_IMAGE_COLUMNS = ("image", "file", "filename", "id")
_TAG_COLUMNS = ("tags", "tag", "labels", "label", "class")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


@dataclass(frozen=True)
class _Row:
    line: int
    image: str
    cell: str

    @property
    def id(self) -> str:
        """File name without the suffix of an image; a folder in it stays."""
        path = PurePosixPath(self.image)
        return str(path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path)


@dataclass(frozen=True)
class Folder(Dataset):
    """Images in a folder, tags in a CSV with a header such as ``image,tags``, one row an image.

    The rows of the CSV are the data set: images that it does not name are left out, images that it
    names and the folder lacks stay as rows. A file has one separator of tags, the first of these
    that any of its cells holds: ``;`` or ``|``, then a comma (inside quotes), then blanks. So with
    ``traffic light;car`` in one row, ``traffic light`` is one tag everywhere; a file without any
    other separator needs ``class_names`` to keep a name with a blank in one piece.

    Attributes:
        images: folder that the names in the CSV are relative to.
        tags: CSV (UTF-8) with a column image, file, filename or id and one of tags, tag, labels,
            label or class.
        class_names: class names in the order of their indices; empty takes the CSV's, sorted.
        masks: folder of true masks ID.png (indexed or grey PNG), read by scores only.
        split: name of the list that all the images belong to.
    """

    images: Path = Path("images")
    tags: Path = Path("tags.csv")
    class_names: tuple[str, ...] = ()
    masks: Path | None = None
    split: str = "train"

    @property
    def classes(self) -> tuple[str, ...]:
        """The given names, else all tags of the CSV in alphabetical order."""
        if self.class_names:
            return check_classes(self.class_names, "class_names")
        rows = self._rows()
        split = self._splitter(rows)
        return check_classes(
            tuple(sorted({tag for row in rows for tag in split(row.cell)})), str(self.tags)
        )

    def samples(self, workspace: Path) -> Iterator[Sample]:
        """Yields the rows of the CSV in their order; writes nothing."""
        images = require(self.images, "images", "expected the folder that the CSV's names lie in")
        masks = self.masks and require(self.masks, "masks", "expected a folder of ID.png")
        rows = self._rows()
        split = self._splitter(rows)
        index = {name: i for i, name in enumerate(self.classes)}
        tags = [self._indices(split(row.cell), index, row) for row in rows]
        no_boxes, no_classes = box_arrays([], [])
        for row, row_tags in zip(rows, tags, strict=True):
            path = _find_image(images, row.image)
            height, width = size_or_zero(path)
            mask = masks / f"{row.id}.png" if masks else None
            yield Sample(
                id=row.id,
                path=str(path),
                height=height,
                width=width,
                tags=row_tags,
                boxes_xyxy=no_boxes,
                box_classes=no_classes,
                split=self.split,
                mask_path=str(mask) if mask and mask.is_file() else "",
            )

    def _rows(self) -> list[_Row]:
        path = require(self.tags, "tags", "expected a CSV with the header image,tags")
        rows = _read_rows(path)
        if not rows:
            raise DatasetError(f"{path} has no row below its header: expected one an image")
        first: dict[str, _Row] = {}
        for row in rows:
            before = first.setdefault(row.id, row)
            if before is not row:
                raise DatasetError(
                    f"{path}:{row.line}: duplicate id {row.id!r} ({row.image}), already at line "
                    f"{before.line} ({before.image}): keep one row an image, its tags joined by ;"
                )
        return rows

    def _splitter(self, rows: Iterable[_Row]) -> Callable[[str], list[str]]:
        """Returns what cuts a cell into tags, by the strongest separator of the whole file."""
        text = "\n".join(row.cell for row in rows)
        pattern = r"[;|]" if re.search(r"[;|]", text) else "," if "," in text else r"\s+"

        def split(cell: str) -> list[str]:
            if cell in self.class_names:
                return [cell]
            return [tag.strip() for tag in re.split(pattern, cell) if tag.strip()]

        return split

    def _indices(self, tags: list[str], index: dict[str, int], row: _Row) -> tuple[int, ...]:
        unknown = [tag for tag in tags if tag not in index]
        if unknown:
            raise DatasetError(
                f"{self.tags}:{row.line}: unknown tag {unknown[0]!r}" + nearest(unknown[0], index)
            )
        return tuple(sorted({index[tag] for tag in tags}))


def _read_rows(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            image, tags = (_column(header, names, path) for names in (_IMAGE_COLUMNS, _TAG_COLUMNS))
            return [
                _row(cells, header, (image, tags), path, reader.line_num)
                for cells in reader
                if any(cell.strip() for cell in cells)
            ]
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path} is not UTF-8 ({error.reason}): save it as UTF-8") from None
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num}: not CSV ({error}): check quotes") from None


def _column(header: list[str], names: tuple[str, ...], path: Path) -> int:
    found = [header.index(name) for name in names if name in header]
    if not found:
        raise DatasetError(
            f"{path}:1: expected a header with a column {' or '.join(names)}, got {header}"
        )
    return found[0]


def _row(
    cells: list[str], header: list[str], columns: tuple[int, int], path: Path, line: int
) -> _Row:
    if len(cells) > len(header):
        raise DatasetError(
            f"{path}:{line}: {len(cells)} fields, the header has {len(header)}: "
            "put tags with commas in quotes or join them by ;"
        )
    image, tags = (cells[i].strip() if i < len(cells) else "" for i in columns)
    image = image.replace("\\", "/")
    name = PurePosixPath(image)
    if not image or name.is_absolute() or ".." in name.parts:
        raise DatasetError(f"{path}:{line}: expected a name inside the image folder, got {image!r}")
    return _Row(line, str(name), tags)


def _find_image(folder: Path, name: str) -> Path:
    """Returns the file of a name, which may lack its suffix; the bare path where there is none."""
    path = folder / name
    if path.suffix.lower() in _SUFFIXES:
        return path
    candidates = [folder / f"{name}{suffix}" for suffix in (*_SUFFIXES, *map(str.upper, _SUFFIXES))]
    return next((file for file in candidates if file.is_file()), path)
