"""RetinaNet and FCOS on a feature pyramid.

Source: Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017; Tian et al., *FCOS*, ICCV
2019. torchvision's networks are inside, their heads and losses as they are; anchors differ where an
input is no multiple of the coarsest stride (`ExactAnchors`).
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional
from torchvision.models.detection import FCOS as FCOSNetwork
from torchvision.models.detection import RetinaNet as RetinaNetwork
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from rayseg.nets.detection import Detections, Reading, Window
from rayseg.nets.detectors.design import UNTRAINED, DetectorDesign, Learning
from rayseg.nets.detectors.feeding import ResizingDetector, resizing
from rayseg.nets.detectors.pyramid import Pyramid, build_pyramid
from rayseg.nets.detectors.two_stage import check_window, evaluating, suppress
from rayseg.nets.inputs import Precision, choose_dtype
from rayseg.nets.suited import suit_depthwise, suit_relu6

FIRST_LEVEL = 3
NORMALISED = 32
"""Groups of channels that FCOS's head normalises."""
MOST_READ = 1000
"""Anchors of an image that `detect` suppresses among: the likeliest."""


class ExactAnchors(AnchorGenerator):
    """torchvision's anchors, neighbours a stride apart whatever the input's size.

    torchvision divides the input's side by the number of cells, which is less than the stride where
    the last cell reaches over the edge: at 288 pixels, cells of stride 128 have anchors 96 pixels
    apart. An anchor of a window would not be that of the whole.
    """

    def __init__(
        self, sizes: Sequence[Sequence[int]], ratios: Sequence[float], strides: Sequence[int]
    ):
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)

    def grid_anchors(
        self, grid_sizes: list[list[int]], strides: list[list[Tensor]]
    ) -> list[Float[Tensor, "a 4"]]:
        """Anchors of each level; the strides that torchvision finds are not asked for."""
        del strides
        exact: list[list[int]] = [[stride, stride] for stride in self.strides]
        return super().grid_anchors(grid_sizes, exact)


class OneStage(ResizingDetector):
    """What one-stage detectors share; their candidates are anchors, counted level by level."""

    score_threshold = 0.05
    window_stride = 128
    feature_layer = "network.backbone.trunk.stage4"
    network: RetinaNetwork | FCOSNetwork

    def __init__(self, design: DetectorDesign, learning: Learning = UNTRAINED):
        super().__init__(design, learning)
        self.network = self.build(build_pyramid(design, learning, "p6p7", FIRST_LEVEL))
        self.network.transform = resizing(learning.min_sides, design.max_side)

    @abstractmethod
    def build(self, pyramid: Pyramid) -> RetinaNetwork | FCOSNetwork:
        """Torchvision's network."""

    @abstractmethod
    def scores(self, outputs: Mapping[str, Float[Tensor, "m _"]]) -> Float[Tensor, "m c"]:
        """Probabilities of the classes from what the head gives of anchors, by its names."""

    @abstractmethod
    def decode(
        self, deltas: Float[Tensor, "m 4"], anchors: Float[Tensor, "m 4"]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels."""

    def forward(
        self, images: Sequence[Float[Tensor, "3 h w"]], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of training images, to be added up; see `FasterRCNN.forward`."""
        boxed = [{"boxes": t["boxes"], "labels": t["classes"]} for t in targets]
        return self.network(list(images), boxed)

    def candidates(self, proposals: Float[Tensor, "m 4"], input_hw: tuple[int, int]) -> Tensor:
        """Numbers of all anchors of the input."""
        del proposals
        number = sum(y * x for y, x in self._cells(input_hw)) * self._anchors_a_cell
        return torch.arange(number, device=self.mean.device)

    def in_window(self, candidates: Tensor, input_hw: tuple[int, int], window: Window) -> Tensor:
        """Numbers of the same anchors among those of the window.

        Raises:
            ValueError: also where an anchor's cell lies outside of the window.
        """
        check_window(window, input_hw, self.window_stride)
        each = self._anchors_a_cell
        whole, small = self._cells(input_hw), self._cells((window.height, window.width))
        found, before, after = torch.full_like(candidates, -1), 0, 0
        for (rows, columns), (y, x), stride in zip(whole, small, self._strides, strict=True):
            place = candidates - before
            cell = place.div(each, rounding_mode="floor")
            row = cell.div(columns, rounding_mode="floor") - window.top // stride
            column = cell % columns - window.left // stride
            level = (place >= 0) & (place < rows * columns * each)
            inside = level & (row >= 0) & (row < y) & (column >= 0) & (column < x)
            number = after + (row * x + column) * each + place % each
            found = torch.where(inside, number, found)
            before, after = before + rows * columns * each, after + y * x * each
        if (found < 0).any():
            raise ValueError(f"window must hold the cells of all anchors, got {window}")
        return found

    def read(
        self, inputs: Float[Tensor, "n 3 y x"], owner: Int[Tensor, " m"], candidates: Tensor
    ) -> Reading:
        """The heads at the levels that candidates lie on, each of the inputs that ask for it."""
        real = torch.promote_types(inputs.dtype, torch.float32)
        features = list(self.network.backbone(inputs.to(self.dtype)).values())
        size = (inputs.shape[2], inputs.shape[3])
        like = [level[:1].to(inputs.dtype) for level in features]
        (anchors,) = self.network.anchor_generator(ImageList(inputs[:1], [size]), like)
        own = {
            name: part.to(real) for name, part in self._picked(features, owner, candidates).items()
        }
        scores, deltas = self.scores(own), own["bbox_regression"]
        boxes = self.decode(deltas, anchors[candidates].to(real))
        return Reading(
            scores,
            torch.zeros_like(scores[:, 0]),
            deltas[:, None],
            clip_boxes_to_image(boxes, size)[:, None],
        )

    def _picked(
        self, features: Sequence[Float[Tensor, "n d y x"]], owner: Tensor, candidates: Tensor
    ) -> dict[str, Float[Tensor, "m _"]]:
        """What the head gives of the candidates, by its names."""
        each = self._anchors_a_cell
        sizes = [level.shape[2] * level.shape[3] * each for level in features]
        ends = torch.tensor(sizes, device=candidates.device).cumsum(0)
        level = torch.bucketize(candidates, ends, right=True)
        parts, places = [], []
        for place in level.unique().tolist() or [len(features) - 1]:
            own = (level == place).nonzero()[:, 0]
            # one image where nobody asks, so that the parts have their shapes
            images = owner[own].unique() if len(own) else owner.new_zeros(1)
            outputs = self.network.head([features[place][images]])
            among = torch.searchsorted(images, owner[own])
            number = candidates[own] - (ends[place] - sizes[place])
            parts.append({name: part[among, number] for name, part in outputs.items()})
            places.append(own)
        order = torch.cat(places).argsort()
        return {name: torch.cat([part[name] for part in parts])[order] for name in parts[0]}

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return next(self.network.head.parameters()).dtype

    @property
    def _strides(self) -> tuple[int, ...]:
        return self.network.backbone.strides

    @property
    def _anchors_a_cell(self) -> int:
        return self.network.anchor_generator.num_anchors_per_location()[0]

    def _cells(self, input_hw: tuple[int, int]) -> list[tuple[int, int]]:
        return [(math.ceil(input_hw[0] / s), math.ceil(input_hw[1] / s)) for s in self._strides]

    @torch.no_grad()
    def detect(
        self, images: UInt8[Tensor, "n h w 3"], min_score: float = 0.05, max_objects: int = 100
    ) -> list[Detections]:
        """Finds objects; those of a class that overlap a likelier one by 0.5 are left out."""
        fit, inputs = self.fit((images.shape[1], images.shape[2])), self.encode(images)
        every, found = self.candidates(inputs.new_zeros(0, 4), fit.input_hw), []
        for one in inputs[:, None]:
            with evaluating(self):
                reading = self.read(one, torch.zeros_like(every), every)
            likely = reading.probabilities.amax(1).topk(min(MOST_READ, len(every))).indices
            kept = torch.zeros_like(every, dtype=torch.bool).index_fill(0, likely, True)
            found.append(suppress(reading, kept, every, fit, min_score, max_objects))
        return found

    def lean(self, device: torch.device, precision: Precision) -> Self:
        """A frozen copy with batch normalisation folded; in bf16 where that is chosen."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        made.network.backbone.fold()
        suit_relu6(made.network.backbone)
        dtype = self.dtype
        if dtype == torch.float32:
            dtype = choose_dtype(precision, device)
        made = made.to(device)
        made.network.backbone.to(dtype).to(memory_format=torch.channels_last)
        if device.type == "cpu" and dtype == torch.bfloat16:
            suit_depthwise(made.network.backbone)
        made.network.head.to(dtype)
        return made


class RetinaNet(OneStage):
    """RetinaNet: nine anchors a cell, a sigmoid for each class."""

    def build(self, pyramid: Pyramid) -> RetinaNetwork:
        """Torchvision's network."""
        sides = [4 * stride for stride in pyramid.strides]
        sizes = [[side, int(side * 2 ** (1 / 3)), int(side * 2 ** (2 / 3))] for side in sides]
        anchors = ExactAnchors(sizes, (0.5, 1.0, 2.0), pyramid.strides)
        return RetinaNetwork(pyramid, self.num_classes, anchor_generator=anchors)

    def scores(self, outputs: Mapping[str, Float[Tensor, "m _"]]) -> Float[Tensor, "m c"]:
        """Sigmoids of the logits."""
        return outputs["cls_logits"].sigmoid()

    def decode(
        self, deltas: Float[Tensor, "m 4"], anchors: Float[Tensor, "m 4"]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels."""
        return self.network.box_coder.decode_single(deltas, anchors)


class FCOS(OneStage):
    """FCOS: one point a cell; a class counts by its centre-ness as well."""

    def build(self, pyramid: Pyramid) -> FCOSNetwork:
        """Torchvision's network."""
        if pyramid.out_channels % NORMALISED:
            raise ValueError(
                f"channels must be a multiple of {NORMALISED} for FCOS, got {pyramid.out_channels}"
            )
        anchors = ExactAnchors([[stride] for stride in pyramid.strides], (1.0,), pyramid.strides)
        return FCOSNetwork(pyramid, self.num_classes, anchor_generator=anchors)

    def scores(self, outputs: Mapping[str, Float[Tensor, "m _"]]) -> Float[Tensor, "m c"]:
        """Square roots of both sigmoids' product, as torchvision has it."""
        # by logarithms, since a root's slope at a product that rounds to 0 is infinite
        logarithm = functional.logsigmoid(outputs["cls_logits"])
        return ((logarithm + functional.logsigmoid(outputs["bbox_ctrness"])) / 2).exp()

    def decode(
        self, deltas: Float[Tensor, "m 4"], anchors: Float[Tensor, "m 4"]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels."""
        return self.network.box_coder.decode(deltas, anchors)
