"""How detectors of torchvision's parts are fed."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from rayseg.nets.detection import Detector, InputFit
from rayseg.nets.detectors.design import DetectorDesign, Learning
from rayseg.nets.inputs import DEVIATION_RGB, MEAN_RGB

PADDED_TO = 32


class ResizingDetector(Detector):
    """A detector whose images are resized by their sides and normalised.

    Args:
        design: what it is.
        learning: what its training asks for besides.

    Raises:
        ValueError: an unknown trunk, other weights, or a design that makes no network.
    """

    def __init__(self, design: DetectorDesign, learning: Learning):
        super().__init__()
        self.design, self.learning, self.num_classes = design, learning, design.num_classes
        self.test_side, self.max_side = design.test_side, design.max_side
        self.register_buffer("mean", torch.zeros(3, 1, 1), persistent=False)
        self.fit_test = resizing((design.test_side,), design.max_side)

    def fit(self, image_hw: tuple[int, int]) -> InputFit:
        """The shorter side becomes `test_side`, unless the longer one would exceed `max_side`."""
        return fit_input(image_hw, self.test_side, self.max_side)

    def encode(self, images: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n 3 y x"]:
        """Resized bilinearly, ImageNet's mean and deviation taken out, zeros around."""
        dtype = torch.promote_types(self.mean.dtype, torch.float32)
        planes = images.to(self.mean.device).permute(0, 3, 1, 2).to(dtype) / 255
        return self.fit_test(list(planes))[0].tensors


def resizing(min_sides: Sequence[int], max_side: int) -> GeneralizedRCNNTransform:
    """Torchvision's resizing and normalisation."""
    return GeneralizedRCNNTransform(tuple(min_sides), max_side, list(MEAN_RGB), list(DEVIATION_RGB))


def fit_input(image_hw: tuple[int, int], test_side: int, max_side: int) -> InputFit:
    """How torchvision's transform resizes images."""
    scale = min(test_side / min(image_hw), max_side / max(image_hw))
    content = (math.floor(image_hw[0] * scale), math.floor(image_hw[1] * scale))
    return InputFit(image_hw, content, (_round_up(content[0]), _round_up(content[1])))


def _round_up(side: int) -> int:
    return -(-side // PADDED_TO) * PADDED_TO
