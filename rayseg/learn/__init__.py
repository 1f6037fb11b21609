"""Trainings: one file a network, one loop for all, their crops, batches, orders and schedules.

A `Training` says what is special of a network; `train` is the loop; `Worker` who trains.

A plain torch DataLoader feeds the trainers, not Ray Data: every crop is a function of the seed, its
place in the training and its image, so that two workers see together exactly what one sees, a
restart repeats the rest to the bit, and a loss curve can be compared step by step. Ray Data's
streaming split promises no order. Where images lie on other machines' disks, give paths that all
nodes can open.
"""

from rayseg.learn.affinity import AffinityTraining
from rayseg.learn.batches import (
    LabelledCrops,
    TaggedCrops,
    evaluation_batches,
    labelled_batches,
    training_batches,
)
from rayseg.learn.classifier import ClassifierTraining
from rayseg.learn.classifier_scores import ClassifierScores, predict_logits
from rayseg.learn.crops import (
    DEVIATION_RGB,
    MEAN_RGB,
    Crops,
    PairCrops,
    SegmentationCrops,
    WarpedImages,
)
from rayseg.learn.detector import DetectorTraining
from rayseg.learn.dsrg import DSRGTraining
from rayseg.learn.failures import NotFinite, forget_failure, raise_failure
from rayseg.learn.ficklenet import FickleNetTraining
from rayseg.learn.irnet import IRNetTraining
from rayseg.learn.jitter import JitteredCrops
from rayseg.learn.loop import train
from rayseg.learn.mask_rcnn import MaskRCNNTraining
from rayseg.learn.object_batches import ObjectImages, object_batches
from rayseg.learn.objects import ObjectTraining
from rayseg.learn.order import DrawOrder, EpochOrder
from rayseg.learn.schedules import DetectorSGD, HalvedAdam, PolySGD, SegmenterSGD, StepSGD
from rayseg.learn.seam import SEAMTraining
from rayseg.learn.segmenter import SegmenterTraining
from rayseg.learn.state import STATE, fingerprint, forget_damaged_state, load_state, refuse_others
from rayseg.learn.training import Length, Share, Training, Work
from rayseg.learn.worker import Worker

TRAININGS: dict[str, type[Training]] = {
    training.makes: training
    for training in (
        ClassifierTraining,
        FickleNetTraining,
        IRNetTraining,
        AffinityTraining,
        SEAMTraining,
        DetectorTraining,
        SegmenterTraining,
        DSRGTraining,
        MaskRCNNTraining,
    )
}
"""Kind of network to the training that makes it."""
