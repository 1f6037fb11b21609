"""Maps of the objects in given or found boxes, by a method that asks a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from rayseg.attribution import BoxAttribution, ObjectMap, Objects
from rayseg.nets.detectors import load_detector
from rayseg.stages.rows import Row, Rows, choose_device, in_sizes, outcome, stack_pixels
from rayseg.store import local_copy, pack_maps

SYNONYMS = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""VOC's names of classes that COCO calls otherwise."""


class MakeBoxMaps:
    """Decoded rows to rows of BOX_MAPS_SCHEMA, one map an object.

    Crowds have no map. A box of a class that the detector does not know is named in the object's
    own status.

    Args:
        detector_classes: the detector's class names; empty where they are the run's.
        boxes: given takes the manifest's boxes, predicted those that the detector finds.
        min_score: of a found box.
        device: torch device of the detector; ``auto`` takes CUDA where there is one.
        threads: threads of torch on the CPU; 0 leaves torch's choice.

    Raises:
        ValueError: the weights are of no detector, or of one with other classes.
    """

    def __init__(
        self,
        method: BoxAttribution,
        weights: str,
        classes: Sequence[str],
        detector_classes: Sequence[str] = (),
        boxes: Literal["given", "predicted"] = "given",
        min_score: float = 0.7,
        device: str = "auto",
        threads: int = 0,
    ):
        if threads:
            torch.set_num_threads(threads)
        self.method = method
        self.classes = tuple(classes)
        named = tuple(detector_classes) or self.classes
        detector = load_detector(local_copy(weights), named)
        self.detector = method.prepare(detector, choose_device(device))
        self.number_of = class_numbers(self.classes, named)
        self.predicted = boxes == "predicted"
        self.min_score = min_score

    def __call__(self, rows: Rows) -> Rows:
        """Runs the method on images of one size at a time; rows come back in their order."""
        return in_sizes(rows, self._explain, "box maps")

    def _explain(self, rows: Rows) -> Rows:
        images = stack_pixels(rows)
        asked = self._found(rows, images) if self.predicted else [self._given(row) for row in rows]
        objects = [one for _, one in asked]
        made = self.method.run(self.detector, images, objects, [row["id"] for row in rows])
        return [
            _row(row, listed, maps)
            for row, (listed, _), maps in zip(rows, asked, made, strict=True)
        ]

    def _given(self, row: Row) -> tuple[_Listed, Objects]:
        """The objects of a row: all boxes, and those that the detector is asked about."""
        places = row["places"]
        boxes = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)[places]
        classes = [row["box_classes"][i] for i in places]
        numbers = [self.number_of[c] for c in classes]
        known = [i for i, number in enumerate(numbers) if number is not None]
        strange = {
            i: f"the detector knows no class {self.classes[classes[i]]!r}"
            for i in range(len(classes))
            if numbers[i] is None
        }
        asked = Objects(
            torch.from_numpy(boxes[known]),
            torch.tensor([numbers[i] for i in known], dtype=torch.int64),
        )
        return _Listed(boxes.tolist(), classes, places, strange), asked

    def _found(self, rows: Rows, images: torch.Tensor) -> list[tuple[_Listed, Objects]]:
        """The objects that the detector finds, of the run's classes."""
        index_of = {number: c for c, number in enumerate(self.number_of) if number is not None}
        found = []
        for one in self.detector.detect(images, self.min_score):
            kept = [i for i, number in enumerate(one.classes.tolist()) if number in index_of]
            boxes, numbers = one.boxes_xyxy[kept], one.classes[kept]
            classes = [index_of[number] for number in numbers.tolist()]
            listed = _Listed(boxes.tolist(), classes, [-1] * len(classes))
            found.append((listed, Objects(boxes, numbers, one.candidates[kept])))
        return found


@dataclass(frozen=True)
class _Listed:
    """What of an image's objects is in its row whatever the method finds.

    Attributes:
        boxes: in image pixels.
        classes: the run's class indices.
        places: of the objects in the manifest's lists; -1 of those that the detector finds.
        strange: why the detector is not asked about an object, by its place.
    """

    boxes: list[list[float]]
    classes: list[int]
    places: list[int]
    strange: dict[int, str] = field(default_factory=dict)


def class_numbers(classes: Sequence[str], named: Sequence[str]) -> list[int | None]:
    """The detector's number of each class; None for one that it does not know.

    Either side may have VOC's name and the other COCO's.
    """
    number_of = {name: number for number, name in enumerate(named)}
    other = SYNONYMS | {coco: voc for voc, coco in SYNONYMS.items()}
    return [number_of.get(name, number_of.get(other.get(name, ""))) for name in classes]


def _row(row: Row, listed: _Listed, maps: Sequence[ObjectMap]) -> Row:
    answers = iter(maps)
    each = [
        _unasked(listed.strange[i]) if i in listed.strange else next(answers)
        for i in range(len(listed.classes))
    ]
    return outcome(row) | {
        "status": "ok" if each else "empty",
        "note": "; ".join(filter(None, [row["note"], "" if each else "no boxes"])),
        "boxes_xyxy": listed.boxes,
        "classes": listed.classes,
        "places": listed.places,
        "object_status": [one.status for one in each],
        "maps": [pack_maps(one.grid.cpu().numpy()[None])[0] for one in each],
        "positives": [one.positives for one in each],
        "box_loss": [one.box_loss for one in each],
        "class_loss": [one.class_loss for one in each],
        "steps": max((one.steps for one in each), default=0),
    }


def _unasked(reason: str) -> ObjectMap:
    return ObjectMap(torch.zeros(1, 1), reason, 0, 0.0, 0.0, 0)
