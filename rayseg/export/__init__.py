"""Foreign formats that masks leave in; EXPORTERS is the only list of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rayseg.export.coco import CocoExport, write_coco, write_coco_results
from rayseg.export.voc import write_voc

_Write = Callable[[Iterable[Mapping[str, Any]], str | Path, Sequence[str], Sequence[int], str], Any]


@dataclass(frozen=True)
class Exporter:
    """A foreign format: what it needs of the run's rows, and what writes them.

    Attributes:
        columns: of a row of masks or instances; its `id`, and the `path` of its image from the
            manifest, come with it.
        write: rows, folder, class names, category ids and split to what was written, whose `str`
            says it in one line.
        statuses: of the rows that it takes; an image without objects is one of COCO's too.
    """

    columns: tuple[str, ...]
    write: _Write
    statuses: tuple[str, ...] = ("ok",)


def _write_labels(
    rows: Iterable[Mapping[str, Any]],
    folder: str | Path,
    classes: Sequence[str],
    category_ids: Sequence[int],
    split: str,
) -> str:
    masks = ((row["id"], row["labels"]) for row in rows)
    return f"{write_voc(masks, folder, classes, split)} masks in {folder}"


_INSTANCES = ("height", "width", "classes", "foreground", "scores")
_JUDGED = ("ok", "empty")

EXPORTERS: dict[str, Exporter] = {
    "voc": Exporter(("labels",), _write_labels),
    "coco": Exporter(_INSTANCES, write_coco, _JUDGED),
    "coco_polygons": Exporter(_INSTANCES, partial(write_coco, polygons=True), _JUDGED),
    "coco_results": Exporter(_INSTANCES, write_coco_results, _JUDGED),
}

__all__ = [
    "EXPORTERS",
    "CocoExport",
    "Exporter",
    "write_coco",
    "write_coco_results",
    "write_voc",
]
