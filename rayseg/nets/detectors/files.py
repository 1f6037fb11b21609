"""Detectors by name, and to and from files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayseg.nets.classifier import check_trained_on
from rayseg.nets.detection import Detector
from rayseg.nets.detectors.one_stage import FCOS, OneStage, RetinaNet
from rayseg.nets.detectors.pyramid import Upsample
from rayseg.nets.detectors.two_stage import FasterRCNN
from rayseg.nets.detectors.yolox import YOLOX
from rayseg.nets.weights import load_into, read_facts, read_tensors

ONE_STAGE: dict[str, type[OneStage]] = {"retinanet": RetinaNet, "fcos": FCOS}
DETECTORS = ("faster_rcnn", *ONE_STAGE)
"""What can be trained."""
ONE_STAGE_FACTS = ("trunk", "upsample", "channels", "test_side", "max_side")
TWO_STAGE_FACTS = ("width", "first_level", "anchors")
"""What a Faster R-CNN's file says besides."""


def build_detector(
    kind: str,
    trunk: str,
    num_classes: int,
    weights: str = "none",
    frozen_statistics: bool = True,
    freeze: str = "none",
    upsample: Upsample = "bilinear",
    channels: int = 256,
    min_sides: Sequence[int] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800),
    test_side: int = 800,
    max_side: int = 1333,
    anchors: Sequence[int] = (32, 64, 128, 256, 512),
    width: int = 1024,
    first_level: int = 2,
    regions: int = 512,
) -> FasterRCNN | OneStage:
    """A detector of one of DETECTORS.

    Its other arguments are those of `FasterRCNN`; the last four are of no use to the others.

    Raises:
        ValueError: an unknown kind or trunk, other weights, or not one anchor a level.
    """
    if kind not in DETECTORS:
        raise ValueError(f"kind must be one of {', '.join(DETECTORS)}, got {kind!r}")
    start = (trunk, num_classes, weights, frozen_statistics, freeze, upsample, channels)
    if kind == "faster_rcnn":
        return FasterRCNN(
            *start, width, first_level, anchors, min_sides, test_side, max_side, regions
        )
    return ONE_STAGE[kind](*start, min_sides, test_side, max_side)


def detector_facts(detector: FasterRCNN | OneStage, classes: Sequence[str]) -> dict[str, object]:
    """What stands beside a detector's tensors, so that `load_detector` can build it again."""
    kinds: dict[type, str] = {made: name for name, made in ONE_STAGE.items()}
    kind = kinds.get(type(detector), "faster_rcnn")
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
    needed = {"classes", *ONE_STAGE_FACTS, *(TWO_STAGE_FACTS if kind == "faster_rcnn" else ())}
    if needed != facts.keys():
        raise ValueError(f"facts of {path} must be {sorted(needed)}, got {sorted(facts)}")
    known = facts.pop("classes")
    check_trained_on(path, known, classes)
    detector = build_detector(kind, num_classes=len(known), **facts)
    load_into(detector, read_tensors(path), path)
    return detector.eval()
