"""What the XML of VOC's images say, as far as it can be used."""

from dataclasses import dataclass, field
from pathlib import Path

from rayseg.datasets.base import DatasetError
from rayseg.datasets.class_names import ClassIndex
from rayseg.datasets.faults import box_fault, frame_fault
from rayseg.datasets.listing import Stems
from rayseg.datasets.tally import Tally
from rayseg.datasets.voc_lists import Listed
from rayseg.datasets.voc_xml import VocXml, XmlError, XmlObject, read_xml


@dataclass
class VocObjects:
    """The objects of one image that can be used.

    Attributes:
        tags: classes of all objects, also of those without a usable box.
        boxes_xyxy: 0-based, end exclusive.
        classes: class index of each box.
        places: which object of the XML each box is of, from 0.
        difficult: positions of boxes whose objects are marked so.
    """

    tags: set[int] = field(default_factory=set)
    boxes_xyxy: list[tuple[float, float, float, float]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    difficult: tuple[int, ...] = ()


class Annotations:
    """Reads the XML of images; what cannot be used is counted with its reason.

    Args:
        folder: of the XML.
        index: of the classes.
        tally: gets what is left out.
        needed: whether an image without XML is to be counted.

    Attributes:
        number: how many could be read.
    """

    def __init__(self, folder: Path, index: ClassIndex, tally: Tally, needed: bool):
        self._folder, self._index, self._tally, self._needed = folder, index, tally, needed
        self._stems = Stems(folder)
        self.number = 0

    def read(self, id_: str) -> tuple[Path | None, VocXml]:
        """The XML of an image and what it says: nothing where it is missing or broken."""
        path = self._stems.find(id_, ".xml")
        if path is None or path.suffix.lower() != ".xml":
            if self._needed:
                text = "not found, so that their images have no tags"
                self._tally.leave_out("annotations", text, f"{self._folder}/{id_}.xml")
            return None, VocXml()
        try:
            known = read_xml(path)
        except XmlError as error:
            where = f"{path}:{error.line}" if error.line else str(path)
            self._tally.leave_out("annotations", str(error), where)
            return None, VocXml()
        except DatasetError as error:
            self._tally.leave_out("annotations", "cannot be read", str(error))
            return None, VocXml()
        self.number += 1
        return path, known

    def of(self, listed: Listed, size_hw: tuple[int, int]) -> VocObjects:
        """The objects of an image of that size; (0, 0) where it is not known."""
        path, known = self.read(listed.id)
        kept = VocObjects()
        frame = known.size_hw and frame_fault(listed.path, known.size_hw, size_hw)
        for place, item in enumerate(known.objects):
            where = f"{path}: object {place + 1}"
            self._keep(kept, place, item, frame or "", size_hw, where)
        if frame:
            height, width = known.size_hw or (0, 0)
            text = f"of an XML {frame}: the file's size counts"
            example = f"{path}: {height}x{width}, the file has {size_hw[0]}x{size_hw[1]}"
            self._tally.note("sizes", text, example)
        return kept

    def _keep(
        self,
        kept: VocObjects,
        place: int,
        item: XmlObject,
        frame: str,
        size_hw: tuple[int, int],
        where: str,
    ) -> None:
        if not item.name:
            self._tally.leave_out("boxes", "object without a name", where)
            return
        number = self._index.find(
            item.name, "boxes", where, "--voc.class-names adds it", self._tally
        )
        if number is None:
            return
        kept.tags.add(number)
        box = item.box_xyxy
        fault = frame or item.fault or (box_fault(box, size_hw) if box else "")
        if fault or box is None:
            self._tally.leave_out("boxes", fault, f"{where}: {box or item.name}")
            return
        if item.difficult:
            kept.difficult += (len(kept.classes),)
        kept.boxes_xyxy.append(box)
        kept.classes.append(number)
        kept.places.append(place)
