"""Outlines of objects as YOLO's segmentation reads them.

    folder/labels/<split>/<id>.txt    a line an outline: class x1 y1 x2 y2 ..., shares of the sides
    folder/data_<split>.yaml          where images are to lie, and the names of the classes

The photographs belong into folder/images/<split>/, under the names of the texts. The format knows
neither pieces that belong together nor holes: an object in pieces is several lines, and a mask
with a hole is cut through it. A file that is there is never changed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rayseg.export.base import Export
from rayseg.export.files import make_folder, write_once
from rayseg.export.polygons import mask_polygons
from rayseg.records.file_names import file_stem
from rayseg.records.rle import decode_mask


@dataclass(frozen=True)
class YoloExport:
    """What was written.

    Attributes:
        folder: of the export.
        images: that have a text, which may be empty.
        masks: objects in it.
        outlines: lines in it.
        left_out: objects whose mask has no pixel.
    """

    folder: Path
    images: int
    masks: int
    outlines: int
    left_out: int

    def __str__(self) -> str:
        parts = [f"{self.masks} objects of {self.images} images in {self.folder}"]
        if self.outlines != self.masks:
            parts.append(f"{self.outlines} outlines, as objects in pieces are several")
        if self.left_out:
            parts.append(f"{self.left_out} without a pixel left out")
        return "; ".join(parts)


@dataclass(frozen=True)
class YoloOutlines:
    """Outlines of objects as YOLO's segmentation reads them.

    Attributes:
        tolerance_px: Pixels by which an outline may leave its mask; more gives fewer points.
    """

    tolerance_px: float = 1.0

    columns: ClassVar[tuple[str, ...]] = ("height", "width", "classes", "foreground")
    statuses: ClassVar[tuple[str, ...]] = ("ok", "empty")

    def write(self, export: Export) -> YoloExport:
        """Writes a text an image, and the file that names the classes.

        Raises:
            FileExistsError: a file is there with other content.
        """
        folder = Path(export.folder)
        make_folder(folder)
        images = objects = outlines = left_out = 0
        for row in export.rows:
            lines = [_lines(mask, row, self.tolerance_px) for mask in _objects(row)]
            kept = [one for one in lines if one]
            path = folder / "labels" / export.split / f"{file_stem(row['id'])}.txt"
            write_once(folder, path, "".join(line for one in kept for line in one).encode())
            images, objects = images + 1, objects + len(kept)
            outlines, left_out = outlines + sum(map(len, kept)), left_out + len(lines) - len(kept)
        path = folder / f"data_{export.split}.yaml"
        write_once(folder, path, _yaml(export).encode())
        return YoloExport(folder, images, objects, outlines, left_out)


def _objects(row: Mapping[str, Any]) -> Iterable[tuple[int, bytes]]:
    return zip(row["classes"], row["foreground"], strict=True)


def _lines(mask: tuple[int, bytes], row: Mapping[str, Any], tolerance_px: float) -> list[str]:
    """The outlines of one object; none for a mask without a pixel."""
    class_index, counts = mask
    height, width = row["height"], row["width"]
    sides = (width, height)
    return [
        " ".join([str(class_index), *(f"{v / sides[i % 2]:.6f}" for i, v in enumerate(outline))])
        + "\n"
        for outline in mask_polygons(decode_mask(counts, (height, width)), tolerance_px)
    ]


def _yaml(export: Export) -> str:
    names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(export.classes))
    return f"path: .\n{export.split}: images/{export.split}\nnames:\n{names}"
