"""Foreign formats that results leave in; EXPORTERS is the only list of them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from rayseg.export.coco import (
    CocoExport,
    CocoInstances,
    CocoPolygons,
    CocoResults,
    write_coco,
    write_coco_results,
)
from rayseg.export.voc import VocMasks, write_voc


class Exporter(Protocol):
    """A foreign format: a frozen dataclass whose fields are its settings, and flags of `export`.

    Attributes:
        columns: of a row of masks or instances; its `id`, and the `path` of its image from the
            manifest, come with it.
        statuses: of the rows that it takes; an image without objects is one of COCO's too.
    """

    columns: ClassVar[tuple[str, ...]]
    statuses: ClassVar[tuple[str, ...]]

    def write(
        self,
        rows: Iterable[Mapping[str, Any]],
        folder: str | Path,
        classes: Sequence[str],
        category_ids: Sequence[int],
        split: str,
    ) -> object:
        """What was written, whose `str` says it in one line."""


EXPORTERS: dict[str, type[Exporter]] = {
    "voc": VocMasks,
    "coco": CocoInstances,
    "coco_polygons": CocoPolygons,
    "coco_results": CocoResults,
}
