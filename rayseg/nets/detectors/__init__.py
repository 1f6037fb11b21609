"""Detectors: two stages, one stage, those of others; and Mask R-CNN."""

from rayseg.nets.detectors.files import (
    DETECTORS,
    build_detector,
    detector_facts,
    load_detector,
)

__all__ = ["DETECTORS", "build_detector", "detector_facts", "load_detector"]
