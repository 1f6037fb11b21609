"""Labels of whole images by a segmenter, at their own size."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from rayseg.nets.backbones import release_depthwise
from rayseg.nets.deeplab import Segmenter
from rayseg.nets.inputs import Precision, choose_dtype, normalise
from rayseg.nets.suited import fold_normalisation


@dataclass(frozen=True)
class Prediction:
    """How a segmenter is applied to a whole image.

    The mean of the softmax over all passes, each brought to the image's size (bilinear) before the
    softmax. The default is one pass, as deeplab-pytorch tests; the input scales that the network
    has inside are no matter of this.

    Attributes:
        scales: Factors of the image's sides, one pass for each; SEAM tests at .5 to 1.75.
        flip: Each pass is repeated on the mirrored image.
        precision: Number format of the network; auto is bf16 where the device is fast in it.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    precision: Precision = "auto"

    network_kind: ClassVar[str] = "segmenter"

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales must be one or more positive factors, got {self.scales}")

    def prepare(self, network: Segmenter, device: torch.device | None = None) -> Segmenter:
        """A copy to predict with: on the device, in the precision, batch normalisation folded."""
        lean = copy.deepcopy(network).eval().requires_grad_(False)
        release_depthwise(lean)
        setattr(lean, "trunk", fold_normalisation(lean.trunk))  # noqa: B010  a traced module is no Sequential
        device = device or next(network.parameters()).device
        dtype = choose_dtype(self.precision, device)
        return lean.to(device, dtype).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(
        self, network: nn.Module, images: UInt8[Tensor, "n h w 3"]
    ) -> Float[Tensor, "n l h w"]:
        """Probabilities of the labels, float32, summing to 1 at each pixel.

        Args:
            network: a `Segmenter` in eval mode, best what `prepare` gave.
            images: RGB of one size, on the network's device.
        """
        some = next(network.parameters())
        planes = normalise(images.permute(0, 3, 1, 2))
        size_hw = (images.shape[1], images.shape[2])
        total: Tensor | float = 0.0
        for scale in self.scales:
            for mirrored in (False, True)[: 1 + self.flip]:
                view = _resized(planes, scale)
                view = view.flip(3) if mirrored else view
                given = view.to(some.dtype).contiguous(memory_format=torch.channels_last)
                logits = network.logits(given).float()  # type: ignore[operator]
                logits = logits.flip(3) if mirrored else logits
                total = total + _enlarged(logits, size_hw).softmax(1)
        assert isinstance(total, Tensor)
        return total / (len(self.scales) * (1 + self.flip))


def _resized(images: Float[Tensor, "n 3 h w"], scale: float) -> Float[Tensor, "n 3 h' w'"]:
    if scale == 1:
        return images
    height, width = (max(round(side * scale), 1) for side in images.shape[2:])
    return functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)


def _enlarged(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    return functional.interpolate(logits, size_hw, mode="bilinear", align_corners=False)
