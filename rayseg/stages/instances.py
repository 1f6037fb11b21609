"""Instances of whole images by a Mask R-CNN, with a CRF after it or not."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.nets.detectors.instance_masks import SoftInstances
from rayseg.nets.detectors.mask_rcnn import MaskRCNN
from rayseg.nets.inputs import Precision
from rayseg.networks import NETWORKS
from rayseg.records import BACKGROUND
from rayseg.records.palette import encode_labels
from rayseg.records.rle import encode_mask
from rayseg.refine.instance_crf import InstanceCRF
from rayseg.stages.rows import Row, Rows, choose_device, in_sizes, outcome, stack_pixels
from rayseg.store import local_copy


@dataclass(frozen=True)
class InstancePrediction:
    """How a Mask R-CNN is applied to whole images.

    Attributes:
        min_score: Least score of an object that is kept; average precision is taken from 0.05.
        max_objects: Most objects of an image, the likeliest.
        mask_threshold: Probability above which a pixel is of an object, where there is no CRF.
        crf: A CRF refines each object, as the authors' does at test time.
        instance_crf: Constants of that CRF.
        batch_size: Images of one size that are seen at once.
        precision: Number format of trunk and pyramid; auto is bf16 where the device is fast in it.
    """

    min_score: float = 0.05
    max_objects: int = 100
    mask_threshold: float = 0.5
    crf: bool = False
    instance_crf: InstanceCRF = InstanceCRF()
    batch_size: int = 4
    precision: Precision = "auto"

    network_kind: ClassVar[str] = "mask_rcnn"

    def __post_init__(self) -> None:
        if not (0 <= self.min_score < 1 and 0 <= self.mask_threshold < 1):
            raise ValueError(
                "min_score and mask_threshold must lie in [0, 1), "
                f"got {self.min_score} and {self.mask_threshold}"
            )
        if self.max_objects < 1 or self.batch_size < 1:
            raise ValueError(
                "max_objects and batch_size must be 1 or more, "
                f"got {self.max_objects} and {self.batch_size}"
            )

    def prepare(self, network: MaskRCNN, device: torch.device | None = None) -> MaskRCNN:
        """A copy to predict with, on that device; None is where the network lies."""
        made = copy.deepcopy(network).eval().requires_grad_(False)
        return made.to(device or next(network.parameters()).device)


class PredictInstances:
    """Decoded rows to rows of INSTANCES_SCHEMA, by a Mask R-CNN.

    The semantic mask is painted object by object, the likeliest last, so that each pixel has the
    class of the likeliest object that covers it; no pixel is ignored. An image without any object
    has status ok and a mask of background.

    Args:
        prediction: how the network is applied.
        weights: the network's safetensors file, a path or a URI.
        classes: names that it must have been trained on.
        device: torch device of the network; ``auto`` takes CUDA where there is one.
        threads: threads of torch on the CPU; 0 leaves torch's choice.

    Raises:
        ValueError: the weights are of another network or other classes.
    """

    def __init__(
        self,
        prediction: InstancePrediction,
        weights: str,
        classes: Sequence[str],
        device: str = "auto",
        threads: int = 0,
    ):
        if threads:
            torch.set_num_threads(threads)
        self.prediction = prediction
        network = NETWORKS[prediction.network_kind].load(local_copy(weights), classes)
        self.network = prediction.prepare(network, choose_device(device))

    def __call__(self, rows: Rows) -> Rows:
        """Finds the objects of images of one size at a time; rows come back in their order."""
        return in_sizes(rows, self._predict, "instances", self.prediction.batch_size)

    def _predict(self, rows: Rows) -> Rows:
        how, images = self.prediction, stack_pixels(rows)
        found = self.network.find(images, how.min_score, how.max_objects, how.precision)
        return [
            self._row(row, image.numpy(), one)
            for row, image, one in zip(rows, images, found, strict=True)
        ]

    def _row(self, row: Row, image: UInt8[ndarray, "h w 3"], found: SoftInstances) -> Row:
        labels = np.full(found.size_hw, BACKGROUND, np.uint8)
        classes = found.classes.tolist()
        counts = [b""] * len(classes)
        refine = self.prediction.instance_crf.on(image) if self.prediction.crf else None
        for i in reversed(range(len(classes))):
            probabilities = found.probabilities(i).cpu().numpy()
            if refine:
                mask = refine(probabilities, found.boxes_xyxy[i].cpu().numpy())
            else:
                mask = probabilities > self.prediction.mask_threshold
            labels[mask] = classes[i] + 1
            counts[i] = encode_mask(mask)
        return outcome(row) | {
            "status": "ok",
            "labels": encode_labels(labels),
            "ignored": 0.0,
            "boxes_xyxy": found.boxes_xyxy.tolist(),
            "classes": classes,
            "object_status": ["ok"] * len(classes),
            "places": [-1] * len(classes),
            "scores": found.scores.tolist(),
            "foreground": counts,
            "possible": [b""] * len(classes),
        }
