"""How images are looked at, and how maps lie on them again: sizes, mirror images, grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from rayseg.nets.inputs import normalise


@dataclass(frozen=True)
class ViewBatch:
    """Images of one size, and m pairs of image and class to localize in them.

    Attributes:
        planes: uint8 (n, 3, h, w), on the network's device.
        classes: class indices of each image.
        ids: of each image; what is random about it follows from its id.
    """

    planes: UInt8[Tensor, "n 3 h w"]
    classes: Sequence[Sequence[int]]
    ids: Sequence[str]

    @classmethod
    def of(
        cls,
        images: UInt8[Tensor, "n h w 3"],
        classes: Sequence[Sequence[int]],
        ids: Sequence[str],
        device: torch.device,
    ) -> Self:
        """Images as they are read, on a network's device."""
        return cls(images.to(device).permute(0, 3, 1, 2).contiguous(), classes, ids)

    @property
    def pairs(self) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
        """Index of the image and of the class of each pair, image by image."""
        pairs = [(i, c) for i, own in enumerate(self.classes) for c in own]
        owner, target = torch.tensor(pairs, device=self.planes.device).unbind(1)
        return owner, target

    def views(self, scale: float, flip: bool) -> Float[Tensor, "n v 3 h' w'"]:
        """The images in another size, normalised, each with its mirror image behind it."""
        height, width = (max(round(side * scale), 1) for side in self.planes.shape[2:])
        resized = self.planes if scale == 1 else _resize_bicubic(self.planes, (height, width))
        images = normalise(resized)
        return torch.stack([images, images.flip(-1)] if flip else [images], 1)


def merge_views(maps: Float[Tensor, "m v h' w'"]) -> Float[Tensor, "m h' w'"]:
    """Adds the mirror image's map, turned back, to the image's own."""
    return maps[:, 0] if maps.shape[1] == 1 else maps[:, 0] + maps[:, 1].flip(-1)


def _resize_bicubic(planes: UInt8[Tensor, "n 3 h w"], size_hw: tuple[int, int]) -> Tensor:
    """Pillow's bicubic resize of 8-bit images, as the authors' loaders do it."""
    if planes.device.type == "cpu":
        return functional.interpolate(planes, size_hw, mode="bicubic", antialias=True)
    return _resize_in_float(planes, size_hw)


def _resize_in_float(planes: UInt8[Tensor, "n 3 h w"], size_hw: tuple[int, int]) -> Tensor:
    """The same where torch lacks it for bytes: Pillow rounds and cuts after each axis."""
    resized = planes.float()
    for size in ((planes.shape[2], size_hw[1]), size_hw):
        resized = functional.interpolate(resized, size, mode="bicubic", antialias=True)
        resized = resized.round().clamp(0, 255)
    return resized


def resize_maps(
    maps: Float[Tensor, "m h' w'"], size_hw: tuple[int, int], stride: int, map_stride: int
) -> Float[Tensor, "m h w"]:
    """Maps of any scale on the image's grid.

    The authors' ``high_res``: bilinear to the smallest multiple of the stride that holds the image,
    then cropped, so that a feature cell stays over its own pixels.
    """
    canvas = [-(-side // stride) * stride // map_stride for side in size_hw]
    height, width = (-(-side // map_stride) for side in size_hw)
    resized = functional.interpolate(maps[None], canvas, mode="bilinear", align_corners=False)[0]
    return resized[:, :height, :width]
