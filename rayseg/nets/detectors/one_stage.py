"""RetinaNet and FCOS on a feature pyramid.

Source: Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017; Tian et al., *FCOS*, ICCV
2019. torchvision's networks are inside, their heads, losses and anchors as they are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torchvision.models.detection import FCOS as FCOSNetwork
from torchvision.models.detection import RetinaNet as RetinaNetwork
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import clip_boxes_to_image

from rayseg.detection import Detections, Detector, InputFit, Reading, Window
from rayseg.inputs import DEVIATION_RGB, MEAN_RGB, Precision, choose_dtype
from rayseg.nets.detectors.pyramid import Upsample, build_pyramid
from rayseg.nets.detectors.two_stage import check_window, fit_input, resizing, suppress

FIRST_LEVEL = 3
MOST_READ = 1000
"""Anchors of an image that `detect` looks at: the likeliest."""


class OneStage(Detector):
    """What one-stage detectors share; their candidates are anchors, counted level by level.

    Args:
        trunk: of the pyramid.
        num_classes: foreground classes.
        weights: of the trunk, as `build_trunk` takes them.
        frozen_statistics: batch normalisation stays as the weights have it.
        freeze: the last stage of the trunk that does not train.
        upsample: of the pyramid's coarser levels.
        channels: of the pyramid.
        min_sides: shorter sides of training images; one is drawn each time by torch's generator.
        test_side: shorter side of other images.
        max_side: what no longer side exceeds.

    Raises:
        ValueError: an unknown trunk or other weights.
    """

    score_threshold = 0.05
    window_stride = 128
    feature_layer = "network.backbone.trunk.stage4"
    network: RetinaNetwork | FCOSNetwork

    def __init__(
        self,
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
    ):
        super().__init__()
        self.num_classes, self.test_side, self.max_side = num_classes, test_side, max_side
        self.facts: dict[str, object] = {
            "trunk": trunk, "upsample": upsample, "channels": channels, "test_side": test_side,
            "max_side": max_side,
        }  # fmt: skip
        pyramid = build_pyramid(
            trunk, weights, frozen_statistics, freeze, "p6p7", upsample, channels, FIRST_LEVEL
        )
        self.register_buffer("mean", torch.zeros(3, 1, 1), persistent=False)
        self.fit_test = resizing((test_side,), max_side)
        sizes = {"min_size": tuple(min_sides), "max_size": max_side}
        normal = {"image_mean": list(MEAN_RGB), "image_std": list(DEVIATION_RGB)}
        self.network = self.build(pyramid, num_classes, **sizes, **normal)

    def build(
        self, pyramid: torch.nn.Module, num_classes: int, **options: object
    ) -> RetinaNetwork | FCOSNetwork:
        """Torchvision's network."""
        raise NotImplementedError

    def scores(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n a c"]:
        """Probabilities of the classes at all anchors."""
        raise NotImplementedError

    def decode(
        self, deltas: Float[Tensor, "m 4"], anchors: Float[Tensor, "m 4"]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels."""
        raise NotImplementedError

    def forward(
        self, images: Sequence[Float[Tensor, "3 h w"]], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of training images, to be added up; see `FasterRCNN.forward`."""
        boxed = [{"boxes": t["boxes"], "labels": t["classes"]} for t in targets]
        return self.network(list(images), boxed)

    def fit(self, image_hw: tuple[int, int]) -> InputFit:
        """The shorter side becomes `test_side`, unless the longer one would exceed `max_side`."""
        return fit_input(image_hw, self.test_side, self.max_side)

    def encode(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 y x"]:
        """Resized bilinearly, ImageNet's mean and deviation taken out, zeros around."""
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        planes = images.to(self.mean.device).permute(0, 3, 1, 2).to(dtype) / 255
        return self.fit_test(list(planes))[0].tensors

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
        """The heads at all anchors, of which the candidates are picked."""
        real = torch.promote_types(inputs.dtype, torch.float32)
        scores, deltas, anchors = self._all(inputs)
        own = deltas[owner, candidates].to(real)
        boxes = self.decode(own, anchors[candidates].to(real))
        size = (inputs.shape[2], inputs.shape[3])
        return Reading(
            scores[owner, candidates].to(real),
            torch.zeros(len(owner), dtype=real, device=inputs.device),
            own[:, None],
            clip_boxes_to_image(boxes, size)[:, None],
        )

    def _all(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (n, a, c), deltas (n, a, 4) and anchors (a, 4) of all anchors."""
        features = list(self.network.backbone(inputs.to(self.dtype)).values())
        outputs = self.network.head(features)
        shape = [(inputs.shape[2], inputs.shape[3])]
        like = [level[:1].to(inputs.dtype) for level in features]
        (anchors,) = self.network.anchor_generator(ImageList(inputs[:1], shape), like)
        return self.scores(outputs), outputs["bbox_regression"], anchors

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
        found = []
        for one in inputs[:, None]:
            scores, _, _ = self._all(one)
            likely = scores[0].amax(1).topk(min(MOST_READ, scores.shape[1])).indices
            owner = torch.zeros(len(likely), dtype=torch.int64, device=inputs.device)
            reading = self.read(one, owner, likely)
            every = torch.ones_like(owner, dtype=torch.bool)
            found.append(suppress(reading, every, likely, fit, min_score, max_objects))
        return found

    def lean(self, device: torch.device, precision: Precision) -> Self:
        """A frozen copy with batch normalisation folded; in bf16 where that is chosen."""
        made = copy.deepcopy(self).eval().requires_grad_(False)
        made.network.backbone.fold()
        dtype = self.dtype
        if dtype == torch.float32:
            dtype = choose_dtype(precision, device)
        made = made.to(device)
        made.network.backbone.to(dtype).to(memory_format=torch.channels_last)
        made.network.head.to(dtype)
        return made


class RetinaNet(OneStage):
    """RetinaNet: nine anchors a cell, a sigmoid for each class."""

    def build(self, pyramid: torch.nn.Module, num_classes: int, **options: object) -> RetinaNetwork:
        """Torchvision's network."""
        return RetinaNetwork(pyramid, num_classes, **options)

    def scores(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n a c"]:
        """Sigmoids of the logits."""
        return outputs["cls_logits"].sigmoid()

    def decode(
        self, deltas: Float[Tensor, "m 4"], anchors: Float[Tensor, "m 4"]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels."""
        return self.network.box_coder.decode_single(deltas, anchors)


class FCOS(OneStage):
    """FCOS: one point a cell; a class counts by its centre-ness as well."""

    def build(self, pyramid: torch.nn.Module, num_classes: int, **options: object) -> FCOSNetwork:
        """Torchvision's network."""
        return FCOSNetwork(pyramid, num_classes, **options)

    def scores(self, outputs: Mapping[str, Tensor]) -> Float[Tensor, "n a c"]:
        """Square roots of both sigmoids' product, as torchvision has it."""
        return (outputs["cls_logits"].sigmoid() * outputs["bbox_ctrness"].sigmoid()).sqrt()

    def decode(
        self, deltas: Float[Tensor, "m 4"], anchors: Float[Tensor, "m 4"]
    ) -> Float[Tensor, "m 4"]:
        """Boxes in input pixels."""
        return self.network.box_coder.decode(deltas, anchors)
