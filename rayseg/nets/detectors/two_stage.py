"""Faster R-CNN on a feature pyramid.

Source: Ren et al., NeurIPS 2015; Lin et al., CVPR 2017; values of BBAM's public configuration
(METHODS 9). torchvision's proposal network and box head are inside; what differs from torchvision's
own Faster R-CNN: a bilinear top-down path, a smooth L1 with beta 1 in the box head.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image

from rayseg.nets.detection import Detections, InputFit, Reading, Window
from rayseg.nets.detectors.design import UNTRAINED, DetectorDesign, Learning, PyramidDesign
from rayseg.nets.detectors.feeding import PADDED_TO, ResizingDetector, resizing
from rayseg.nets.detectors.pooling import RegionPool, pool_regions, region_levels
from rayseg.nets.detectors.pyramid import build_pyramid
from rayseg.nets.inputs import Precision, choose_dtype
from rayseg.nets.suited import suit_depthwise, suit_relu6

POOLED = 7
"""Bins along each axis that the box head sees of a region."""
NMS_IOU = 0.5


class FasterRCNN(ResizingDetector):
    """A two-stage detector; its candidates are proposals, boxes in input pixels."""

    score_threshold = 0.0
    window_stride = PADDED_TO
    feature_layer = "pyramid.trunk.stage4"

    def __init__(self, design: DetectorDesign, learning: Learning = UNTRAINED):
        super().__init__(design, learning)
        self.pyramid = build_pyramid(design, learning, "pool", design.first_level)
        levels = len(self.pyramid.strides)
        if len(design.anchors) != levels:
            raise ValueError(f"anchors must be {levels}, one a level, got {len(design.anchors)}")
        self.fit_training = resizing(learning.min_sides, design.max_side)
        self.rpn = proposal_network(design)
        self.boxes = box_heads(design, learning.regions, levels - 1, design.first_level)
        self.bins_first = False  # whether the box head's first weight is in that order

    def forward(
        self, images: Sequence[Float[Tensor, "3 h w"]], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of training images, to be added up.

        Args:
            images: RGB in [0, 1].
            targets: of each image ``boxes`` (o, 4) in image pixels and ``classes`` int64 (o,); an
                image may have none.
        """
        boxed = [{"boxes": t["boxes"], "labels": t["classes"] + 1} for t in targets]
        resized, boxed = self.fit_training(list(images), boxed)
        features = self.pyramid(resized.tensors)
        proposals, losses = self.rpn(resized, features, boxed)
        proposals, _, labels, wanted = self.boxes.select_training_samples(proposals, boxed)
        pooled = self.boxes.box_roi_pool(features, proposals, resized.image_sizes)
        logits, deltas = self.boxes.box_predictor(self.boxes.box_head(pooled))
        return losses | box_losses(logits.float(), deltas.float(), labels, wanted)

    def candidates(self, proposals: Float[Tensor, "m 4"], input_hw: tuple[int, int]) -> Tensor:
        """The proposals."""
        return proposals

    def in_window(self, candidates: Tensor, input_hw: tuple[int, int], window: Window) -> Tensor:
        """The boxes as the window's pixels count."""
        check_window(window, input_hw, self.window_stride)
        corner = [window.left, window.top, window.left, window.top]
        return candidates - candidates.new_tensor(corner)

    def read(
        self, inputs: Float[Tensor, "n 3 y x"], owner: Int[Tensor, " m"], candidates: Tensor
    ) -> Reading:
        """Pools each candidate from its level; levels that nobody asks for are not computed."""
        features = self.pyramid.some(inputs.to(self.dtype), owner, self._level_of(candidates))
        return self._read_levels(features, inputs, owner, candidates)

    def _level_of(self, candidates: Float[Tensor, "m 4"]) -> Int[Tensor, " m"]:
        return region_levels(candidates, len(self.pyramid.layer), self.design.first_level)

    def _read_levels(
        self,
        features: Mapping[int, tuple[Int[Tensor, " k"], Float[Tensor, "k d y x"]]],
        inputs: Float[Tensor, "n 3 y x"],
        owner: Int[Tensor, " m"],
        candidates: Float[Tensor, "m 4"],
    ) -> Reading:
        """What the heads say of candidates; features as `Pyramid.some` gives them."""
        real, level = torch.promote_types(inputs.dtype, torch.float32), self._level_of(candidates)
        size = POOLED * POOLED * self.pyramid.out_channels
        pooled = candidates.new_zeros(len(candidates), size, dtype=self.dtype)
        for place, (images, planes) in features.items():
            own = (level == place).nonzero()[:, 0]
            among = torch.searchsorted(images, owner[own])
            part = pool_regions(planes, candidates[own], among, self.pyramid.strides[place], POOLED)
            pooled = pooled.index_copy(0, own, part.flatten(1))
        logits, deltas = self._heads(pooled)
        return self._reading(logits.to(real), deltas.to(real), candidates.to(real), inputs)

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.boxes.box_predictor.cls_score.weight.dtype

    def _heads(self, pooled: Float[Tensor, "m p"]) -> tuple[Tensor, Tensor]:
        """Both heads' outputs for pooled features, bin by bin and in each channel by channel."""
        head, out = self.boxes.box_head, self.boxes.box_predictor
        first = head.fc6.weight if self.bins_first else bins_first(head.fc6.weight)
        hidden = functional.relu(functional.linear(pooled, first, head.fc6.bias))
        hidden = functional.relu(head.fc7(hidden))
        return out.cls_score(hidden), out.bbox_pred(hidden)

    def _reading(
        self, logits: Tensor, deltas: Tensor, proposals: Tensor, inputs: Tensor
    ) -> Reading:
        probabilities = logits.softmax(1)
        boxes = self.boxes.box_coder.decode_single(deltas, proposals).unflatten(1, (-1, 4))
        size = (inputs.shape[2], inputs.shape[3])
        return Reading(
            probabilities[:, 1:],
            probabilities[:, 0],
            deltas.unflatten(1, (-1, 4))[:, 1:],
            clip_boxes_to_image(boxes[:, 1:], size),
        )

    @torch.no_grad()
    def detect(
        self, images: UInt8[Tensor, "n h w 3"], min_score: float = 0.05, max_objects: int = 100
    ) -> list[Detections]:
        """Finds objects; those of a class that overlap a likelier one by 0.5 are left out."""
        fit, inputs = self.fit((images.shape[1], images.shape[2])), self.encode(images)
        with evaluating(self):  # one by one, since each image has a thousand regions
            return [self._find(one, fit, min_score, max_objects) for one in inputs[:, None]]

    def _find(
        self, one: Float[Tensor, "1 3 y x"], fit: InputFit, min_score: float, max_objects: int
    ) -> Detections:
        levels = self.pyramid(one.to(self.dtype))
        real = {name: level.to(one.dtype) for name, level in levels.items()}
        (proposals,), _ = self.rpn(ImageList(one, [fit.content_hw]), real)
        owner = torch.zeros(len(proposals), dtype=torch.int64, device=one.device)
        # `Pyramid.some` would make them again, past what hooks its forward, as low precision does
        features = {
            place: (owner.new_zeros(1), levels[str(place)])
            for place in range(len(self.pyramid.layer))
        }
        reading = self._read_levels(features, one, owner, proposals)
        every = torch.ones_like(owner, dtype=torch.bool)
        return suppress(reading, every, proposals, fit, min_score, max_objects)

    def lean(self, device: torch.device, precision: Precision) -> Self:
        """A frozen copy with batch normalisation folded; in bf16 where that is chosen."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        made.pyramid.fold()
        suit_relu6(made.pyramid)
        dtype = self.dtype
        if dtype == torch.float32:
            dtype = choose_dtype(precision, device)
        made = made.to(device)
        # the proposal network makes boxes, which half precision would move
        made.pyramid.to(dtype).to(memory_format=torch.channels_last)
        if device.type == "cpu" and dtype == torch.bfloat16:
            suit_depthwise(made.pyramid)
        made.boxes.to(dtype)
        if not made.bins_first:
            first = made.boxes.box_head.fc6.weight
            first.data = bins_first(first)
            made.bins_first = True
        return made


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in eval mode; as it was, afterwards."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def suppress(
    reading: Reading,
    eligible: Tensor,
    candidates: Tensor,
    fit: InputFit,
    min_score: float,
    max_objects: int,
) -> Detections:
    """The objects of one image among what was read of candidates.

    Args:
        eligible: bool (m,), those that may be objects.
        max_objects: the likeliest that are kept.
    """
    places = eligible.nonzero()[:, 0]
    scores = reading.probabilities[places]
    row, classes = (scores > min_score).nonzero().unbind(1)
    column = classes if reading.boxes_xyxy.shape[1] > 1 else torch.zeros_like(classes)
    boxes = fit.to_image(reading.boxes_xyxy[places[row], column])
    found = scores[row, classes]
    real = ((boxes[:, 2:] - boxes[:, :2]) >= 1e-2).all(1)
    row, classes, boxes, found = row[real], classes[real], boxes[real], found[real]
    kept = batched_nms(boxes.float(), found.float(), classes, NMS_IOU)[:max_objects]
    return Detections(boxes[kept], classes[kept], found[kept], candidates[places[row[kept]]])


def check_window(window: Window, input_hw: tuple[int, int], stride: int) -> None:
    """Refuses a window that is off the stride, empty, or reaches out of the input.

    A side that ends where the input does needs not be a multiple of the stride.

    Raises:
        ValueError: both sides are said.
    """
    spans = ((window.top, window.height, input_hw[0]), (window.left, window.width, input_hw[1]))
    for start, length, end in spans:
        inside = start >= 0 and length > 0 and start + length <= end
        if not inside or start % stride or (length % stride and start + length < end):
            raise ValueError(
                f"window must lie in the input of {input_hw} at multiples of {stride}, got {window}"
            )


def bins_first(weight: Float[Tensor, "w p"]) -> Float[Tensor, "w p"]:
    """A weight for pooled features channel by channel as one for those bin by bin."""
    return weight.unflatten(1, (-1, POOLED * POOLED)).transpose(1, 2).flatten(1).contiguous()


def box_losses(
    logits: Float[Tensor, "m l"],
    deltas: Float[Tensor, "m l*4"],
    labels: Sequence[Tensor],
    wanted: Sequence[Tensor],
) -> dict[str, Float[Tensor, ""]]:
    """Of the box head: cross entropy, and smooth L1 with beta 1 on the own class's deltas."""
    label, target = torch.cat(list(labels)), torch.cat(list(wanted))
    positive = (label > 0).nonzero()[:, 0]
    own = deltas.unflatten(1, (-1, 4))[positive, label[positive]]  # (m', 4)
    distance = functional.smooth_l1_loss(own, target[positive], reduction="sum", beta=1.0)
    return {
        "loss_classifier": functional.cross_entropy(logits, label),
        "loss_box_reg": distance / max(len(label), 1),
    }


def proposal_network(design: PyramidDesign) -> RegionProposalNetwork:
    """torchvision's, with one anchor side a level."""
    ratios = (0.5, 1.0, 2.0)
    return RegionProposalNetwork(
        AnchorGenerator(tuple((side,) for side in design.anchors), (ratios,) * len(design.anchors)),
        RPNHead(design.channels, len(ratios)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 2000, "testing": 1000},
        post_nms_top_n={"training": 2000, "testing": 1000},
        nms_thresh=0.7,
    )


def box_heads(
    design: PyramidDesign, regions: int, levels: int = 4, first_level: int = 2
) -> RoIHeads:
    """Torchvision's, pooling from that many levels."""
    return RoIHeads(
        RegionPool(levels, POOLED, first_level),
        TwoMLPHead(design.channels * POOLED**2, design.width),
        FastRCNNPredictor(design.width, design.num_classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=regions,
        positive_fraction=0.25,
        bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
        score_thresh=0.05,
        nms_thresh=NMS_IOU,
        detections_per_img=100,
    )
