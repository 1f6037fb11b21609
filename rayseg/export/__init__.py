"""Foreign formats that results leave in; EXPORTERS is the only list of them."""

from rayseg.export.base import Export, Exporter, Written
from rayseg.export.coco import (
    CocoExport,
    CocoInstances,
    CocoPolygons,
    CocoResults,
    write_coco,
    write_coco_results,
)
from rayseg.export.voc import VocMasks, write_voc

EXPORTERS: dict[str, type[Exporter]] = {
    "voc": VocMasks,
    "coco": CocoInstances,
    "coco_polygons": CocoPolygons,
    "coco_results": CocoResults,
}
