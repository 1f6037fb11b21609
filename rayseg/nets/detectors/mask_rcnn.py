"""Mask R-CNN on a feature pyramid, trained on masks that leave pixels in doubt.

He et al., *Mask R-CNN*, ICCV 2017, of torchvision's parts, with the mask loss of Lee et al., *BBAM:
Bounding Box Attribution Map for Weakly Supervised Semantic and Instance Segmentation*, CVPR 2021
(dissertation 5.4.1; METHODS 9). An object has two masks, what is surely of it (F) and what may be
(P, which holds F). In the 28x28 cells of a proposal,

    seeds: F is foreground, not P is background, P without F is in doubt
    grown: a cell in doubt joins a side of which the network is sure (`losses.grown_seeds`)
    loss = (mean BCE of the foreground + mean BCE of the background) / 2

Where P is F, nothing is grown and the plain mean is taken, this is the ordinary Mask R-CNN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import resize_boxes

from rayseg.nets.detectors.design import UNTRAINED_MASKS, MaskLearning, MaskRCNNDesign
from rayseg.nets.detectors.feeding import resizing
from rayseg.nets.detectors.instance_masks import Instances, SoftInstances, project_masks
from rayseg.nets.detectors.pooling import RegionPool
from rayseg.nets.detectors.pyramid import build_pyramid
from rayseg.nets.detectors.two_stage import box_heads, box_losses, proposal_network
from rayseg.nets.inputs import Precision, choose_dtype
from rayseg.nets.losses import balanced_mask_loss, grown_seeds
from rayseg.nets.stored import load_network

LEVELS = ("0", "1", "2", "3")
"""Of the pyramid, that RoIs are pooled from; anchors lie on its coarsest one, ``pool``, as well."""
POOLED, POOLED_MASK = 7, 14
"""Cells a side of a RoI's features, for the box head and for the mask head."""
_FACTS = ("upsample", "channels", "width", "anchors", "test_side", "max_side")


class MaskRCNN(nn.Module):
    """A trunk with a feature pyramid, a proposal network, a box head and a mask head.

    The box loss is smooth L1 with beta 1 as in the authors' code; torchvision has 1/9 there.

    Args:
        design: what it is.
        learning: what its training asks for besides.

    Raises:
        ValueError: an unknown trunk, other weights, or not one anchor a level.
    """

    def __init__(self, design: MaskRCNNDesign, learning: MaskLearning = UNTRAINED_MASKS):
        super().__init__()
        if len(design.anchors) != len(LEVELS) + 1:
            raise ValueError(
                f"anchors must be {len(LEVELS) + 1}, one a level, got {len(design.anchors)}"
            )
        self.design, self.learning, self.num_classes = design, learning, design.num_classes
        self.pyramid = build_pyramid(design, learning, "pool")
        self.fit_training = resizing(learning.min_sides, design.max_side)
        self.fit_test = resizing((design.test_side,), design.max_side)
        self.rpn = proposal_network(design)
        self.boxes = box_heads(design, learning.regions)
        self.mask_pool = RegionPool(len(LEVELS), POOLED_MASK)
        inner = design.width // 4
        self.mask_head = nn.Sequential(
            MaskRCNNHeads(design.channels, (inner,) * 4, 1),
            MaskRCNNPredictor(inner, inner, design.num_classes),
        )

    def forward(
        self, images: Sequence[Float[Tensor, "3 h w"]], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of training images, to be added up.

        A cell of a proposal's 28x28 is of a mask where at least half of it is. A mask is projected
        by an RoIAlign of the image's own pixels, pixel i of them covering i to i + 1; the authors
        crop their polygons by the proposal and draw them anew, which is the same up to rounding.

        Args:
            images: RGB in [0, 1].
            targets: of each image ``boxes`` (o, 4) in image pixels, ``classes`` int64 (o,),
                ``has_mask`` bool (o,), ``foreground`` and ``possible`` bool (o, h, w). What has no
                mask is learnt as a box only.
        """
        boxed = [{"boxes": t["boxes"], "labels": t["classes"] + 1} for t in targets]
        resized, boxed = self.fit_training(list(images), boxed)
        features = self.pyramid(resized.tensors)
        proposals, losses = self.rpn(resized, features, boxed)
        proposals, matched, labels, wanted = self.boxes.select_training_samples(proposals, boxed)
        logits, deltas = self._read_boxes(features, proposals, resized)
        losses |= box_losses(logits, deltas, labels, wanted)
        sizes = [(image.shape[1], image.shape[2]) for image in images]
        rois = [
            _MaskRoIs.of(proposals[i], matched[i], labels[i], targets[i]) for i in range(len(sizes))
        ]
        return losses | {"loss_mask": self._mask_loss(features, rois, resized, sizes, targets)}

    def _read_boxes(
        self, features: dict[str, Tensor], proposals: list[Tensor], resized: ImageList
    ) -> tuple[Float[Tensor, "m l"], Float[Tensor, "m l*4"]]:
        pooled = self.boxes.box_roi_pool(features, proposals, resized.image_sizes)
        logits, deltas = self.boxes.box_predictor(self.boxes.box_head(pooled))
        return logits.float(), deltas.float()

    def _read_masks(
        self,
        features: dict[str, Tensor],
        boxes: list[Tensor],
        classes: Int[Tensor, " m"],
        resized: ImageList,
    ) -> Float[Tensor, "m s s"]:
        """Mask logits of boxes in input pixels, each for its class."""
        logits = self.mask_head(self.mask_pool(features, boxes, resized.image_sizes))
        return logits[torch.arange(len(classes), device=classes.device), classes].float()

    def _mask_loss(
        self,
        features: dict[str, Tensor],
        rois: Sequence[_MaskRoIs],
        resized: ImageList,
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Mapping[str, Tensor]],
    ) -> Float[Tensor, ""]:
        classes = torch.cat([one.classes for one in rois])
        logits = self._read_masks(features, [one.boxes for one in rois], classes, resized)
        if not len(logits):
            return logits.sum()  # 0, but with a gradient for each weight, which other workers need
        sides = []
        for key in ("foreground", "possible"):
            parts = [
                project_masks(
                    target[key],
                    resize_boxes(one.boxes, shape, size),  # in image pixels
                    one.objects,
                    logits.shape[-1],
                )
                for one, target, shape, size in zip(
                    rois, targets, resized.image_sizes, sizes, strict=True
                )
            ]
            sides.append(torch.cat(parts))  # (m, s, s)
        foreground, background = sides[0], ~sides[1] & ~sides[0]
        learning = self.learning
        if learning.grow:
            foreground, background = grown_seeds(
                logits, foreground, background, learning.sure_foreground, learning.sure_background
            )
        return balanced_mask_loss(logits, foreground, background, learning.mask_loss == "balanced")

    @torch.no_grad()
    def find(
        self,
        images: UInt8[Tensor, "n h w 3"],
        min_score: float = 0.05,
        max_objects: int = 100,
        precision: Precision = "fp32",
    ) -> list[SoftInstances]:
        """Finds the objects of images of one size, overlapping ones of a class suppressed.

        Raises:
            FloatingPointError: the features are not finite.
        """
        device = next(self.parameters()).device
        planes = list(images.to(device).permute(0, 3, 1, 2).float() / 255)
        with _searching(self, min_score, max_objects):
            resized, _ = self.fit_test(planes)
            features = self._features(resized.tensors, choose_dtype(precision, device))
            proposals, _ = self.rpn(resized, features)
            read = self._read_boxes(features, proposals, resized)
            boxes, scores, labels = self.boxes.postprocess_detections(
                *read, proposals, resized.image_sizes
            )
            classes = torch.cat(labels) - 1
            grids = self._read_masks(features, boxes, classes, resized).sigmoid()
        size_hw = (images.shape[1], images.shape[2])
        parts = zip(
            boxes, scores, labels, grids.split([len(b) for b in boxes]), resized.image_sizes,
            strict=True,
        )  # fmt: skip
        return [
            SoftInstances(resize_boxes(b, shape, size_hw), label - 1, score, grid, size_hw)
            for b, score, label, grid, shape in parts
        ]

    def _features(self, inputs: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
        lower = dtype != torch.float32
        with torch.autocast(inputs.device.type, dtype if lower else None, enabled=lower):
            features = self.pyramid(inputs)
        features = {name: level.float() for name, level in features.items()}
        if not all(torch.isfinite(level).all() for level in features.values()):
            raise FloatingPointError("features must be finite, got nan or infinity")
        return features

    def predict(
        self, images: UInt8[Tensor, "n h w 3"], min_score: float = 0.05, max_objects: int = 100
    ) -> list[Instances]:
        """As `find`, with masks where the probability is above one half."""
        return [one.masked(0.5) for one in self.find(images, min_score, max_objects)]


@dataclass(frozen=True)
class _MaskRoIs:
    """The proposals of one image that teach the mask head.

    Attributes:
        boxes: float (m, 4) in input pixels.
        objects: int64 (m,) the object of each.
        classes: int64 (m,) its class index.
    """

    boxes: Float[Tensor, "m 4"]
    objects: Int[Tensor, " m"]
    classes: Int[Tensor, " m"]

    @classmethod
    def of(
        cls, proposals: Tensor, matched: Tensor, labels: Tensor, target: Mapping[str, Tensor]
    ) -> Self:
        """Those that are matched to an object with a mask."""
        positive = (labels > 0).nonzero().flatten()
        taught = positive[target["has_mask"][matched[positive]]]
        return cls(proposals[taught], matched[taught], labels[taught] - 1)


@contextmanager
def _searching(network: MaskRCNN, min_score: float, max_objects: int) -> Iterator[None]:
    """The network in eval mode with these bounds; as it was, afterwards."""
    heads, training = network.boxes, network.training
    before = heads.score_thresh, heads.detections_per_img
    heads.score_thresh, heads.detections_per_img = min_score, max_objects
    network.eval()
    try:
        yield
    finally:
        heads.score_thresh, heads.detections_per_img = before
        network.train(training)


def load_mask_rcnn(path: str, classes: Sequence[str] | None = None) -> MaskRCNN:
    """A Mask R-CNN from the file that training wrote; see `load_network`."""
    return load_network(
        path, "mask_rcnn", classes,
        lambda facts: MaskRCNN(MaskRCNNDesign.from_facts(facts)), _FACTS,
    )  # fmt: skip
