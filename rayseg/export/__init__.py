"""Foreign formats that results leave in; EXPORTERS is the only list of them."""

from rayseg.export.base import PHOTO, Export, Exporter, Written
from rayseg.export.coco import (
    CocoExport,
    CocoInstances,
    CocoPolygons,
    CocoResults,
    write_coco,
    write_coco_results,
)
from rayseg.export.frames import at_full_size
from rayseg.export.parts import connected_parts
from rayseg.export.pictures import BinaryMasks, Overlays
from rayseg.export.voc import VocMasks, write_voc
from rayseg.export.yolo import YoloOutlines

EXPORTERS: dict[str, type[Exporter]] = {
    "voc": VocMasks,
    "coco": CocoInstances,
    "coco_polygons": CocoPolygons,
    "coco_results": CocoResults,
    "yolo": YoloOutlines,
    "binary": BinaryMasks,
    "overlay": Overlays,
}
