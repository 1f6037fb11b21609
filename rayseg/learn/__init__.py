"""Trainings: the crops and batches of each step, the steps, and the optimisers' schedules.

A plain torch DataLoader feeds the trainers, not Ray Data: every crop is a function of the seed, its
place in the training and its image, so that two workers see together exactly what one sees, a
restart repeats the rest to the bit, and a loss curve can be compared step by step. Ray Data's
streaming split promises no order. Where images lie on other machines' disks, give paths that all
nodes can open.
"""

from rayseg.learn.batches import (
    LabelledCrops,
    TaggedCrops,
    evaluation_batches,
    labelled_batches,
    training_batches,
)
from rayseg.learn.classifier_steps import ClassifierScores, predict_logits, train_epoch
from rayseg.learn.crops import DEVIATION_RGB, MEAN_RGB, Crops, SegmentationCrops
from rayseg.learn.object_batches import ObjectImages, object_batches
from rayseg.learn.object_steps import DetectorSGD, ObjectSteps
from rayseg.learn.order import DrawOrder, EpochOrder
from rayseg.learn.schedules import HalvedAdam, PolySGD, SegmenterSGD
from rayseg.learn.segmenter_steps import NotFinite, SegmenterSteps, Workers
from rayseg.learn.worker import Worker

__all__ = [
    "DEVIATION_RGB",
    "MEAN_RGB",
    "ClassifierScores",
    "Crops",
    "DetectorSGD",
    "DrawOrder",
    "EpochOrder",
    "HalvedAdam",
    "LabelledCrops",
    "NotFinite",
    "ObjectImages",
    "ObjectSteps",
    "PolySGD",
    "SegmentationCrops",
    "SegmenterSGD",
    "SegmenterSteps",
    "TaggedCrops",
    "Worker",
    "Workers",
    "evaluation_batches",
    "labelled_batches",
    "object_batches",
    "predict_logits",
    "train_epoch",
    "training_batches",
]
