"""Detectors by name, and to and from files."""

from collections.abc import Sequence
from typing import Any

from rayseg.nets.detection import Detector
from rayseg.nets.detectors.design import UNTRAINED, DetectorDesign, Learning, fact_names
from rayseg.nets.detectors.one_stage import FCOS, OneStage, RetinaNet
from rayseg.nets.detectors.two_stage import FasterRCNN
from rayseg.nets.detectors.yolox import YOLOX
from rayseg.nets.stored import check_trained_on
from rayseg.nets.weights import load_into, read_facts, read_tensors

ONE_STAGE: dict[str, type[OneStage]] = {"retinanet": RetinaNet, "fcos": FCOS}
DETECTORS = ("faster_rcnn", *ONE_STAGE)
"""What can be trained."""


def build_detector(design: DetectorDesign, learning: Learning = UNTRAINED) -> FasterRCNN | OneStage:
    """The detector of a design."""
    if design.kind not in DETECTORS:
        raise ValueError(f"kind must be one of {', '.join(DETECTORS)}, got {design.kind!r}")
    return ONE_STAGE.get(design.kind, FasterRCNN)(design, learning)


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
    if facts.keys() != set(fact_names(kind)):
        raise ValueError(f"facts of {path} must be {sorted(fact_names(kind))}, got {sorted(facts)}")
    check_trained_on(path, facts["classes"], classes)
    detector = build_detector(DetectorDesign.from_facts({"kind": kind} | facts))
    load_into(detector, read_tensors(path), path)
    return detector.eval()
