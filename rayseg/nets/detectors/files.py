"""Detectors by name, and to and from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayseg.detection import Detector
from rayseg.nets.classifier import check_trained_on
from rayseg.nets.detectors.one_stage import FCOS, OneStage, RetinaNet
from rayseg.nets.detectors.two_stage import FasterRCNN
from rayseg.nets.detectors.yolox import YOLOX
from rayseg.nets.weights import load_into, read_facts, read_tensors

DETECTORS: dict[str, type[FasterRCNN] | type[OneStage]] = {
    "faster_rcnn": FasterRCNN,
    "retinanet": RetinaNet,
    "fcos": FCOS,
}
"""What can be trained."""


def build_detector(
    kind: str, trunk: str, num_classes: int, **options: Any
) -> FasterRCNN | OneStage:
    """An untrained detector.

    Args:
        kind: one of DETECTORS.
        trunk: of its pyramid.
        num_classes: foreground classes.
        options: the others of its class.

    Raises:
        ValueError: an unknown kind or trunk, or other weights.
    """
    if kind not in DETECTORS:
        raise ValueError(f"kind must be one of {', '.join(DETECTORS)}, got {kind!r}")
    return DETECTORS[kind](trunk, num_classes, **options)


def detector_facts(detector: FasterRCNN | OneStage, classes: Sequence[str]) -> dict[str, object]:
    """What stands beside a detector's tensors, so that `load_detector` can build it again."""
    (kind,) = (name for name, made in DETECTORS.items() if type(detector) is made)
    return {"network": kind, "classes": list(classes), **detector.facts}


def load_detector(path: str, classes: Sequence[str] | None = None) -> Detector:
    """The detector of a file that rayseg wrote, or a YOLOX of others as ``.onnx``.

    Args:
        path: of the file.
        classes: names that it must have been trained on; None takes any. Of an ONNX file, which
            has no names, only their number is compared.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: what opens an ONNX file is not installed.
        ValueError: the file is no detector, or one of other classes.
    """
    if path.endswith(".onnx"):
        foreign = YOLOX(path)
        if classes is not None and len(classes) != foreign.num_classes:
            raise ValueError(f"{path} must have {len(classes)} classes, got {foreign.num_classes}")
        return foreign.eval()
    facts: dict[str, Any] = dict(read_facts(path))
    kind = str(facts.pop("network", "classifier"))
    if kind not in DETECTORS:
        raise ValueError(f"{path} holds a {kind}, not a detector")
    known = facts.pop("classes")
    check_trained_on(path, known, classes)
    detector = build_detector(kind, num_classes=len(known), **facts)
    load_into(detector, read_tensors(path), path)
    return detector.eval()
