"""Training: optimisers with their schedules, and the steps of each kind of network."""

from rayseg.training.classifier import ClassifierScores, predict_logits, train_epoch
from rayseg.training.objects import DetectorSGD, ObjectSteps
from rayseg.training.schedules import HalvedAdam, PolySGD, SegmenterSGD
from rayseg.training.segmenter import NotFinite, SegmenterSteps, Workers

__all__ = [
    "ClassifierScores",
    "DetectorSGD",
    "HalvedAdam",
    "NotFinite",
    "ObjectSteps",
    "PolySGD",
    "SegmenterSGD",
    "SegmenterSteps",
    "Workers",
    "predict_logits",
    "train_epoch",
]
