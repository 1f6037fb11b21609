"""Detectors: two stages, one stage, those of others; and Mask R-CNN."""

from rayseg.nets.detectors.design import DetectorDesign, Learning, taken_from
from rayseg.nets.detectors.files import DETECTORS, build_detector, load_detector
