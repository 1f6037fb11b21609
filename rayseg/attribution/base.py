"""What every attribution method shares: scales, flips, normalisation, and a network left untouched.

A method never works on the network that it is given, but on a lean copy of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from rayseg.attribution.lean import LeanNetwork
from rayseg.inputs import Precision, normalise

EPSILON = 1e-5  # maps are divided by their maximum + this, as in IRN's make_cam.py


@dataclass(frozen=True)
class Localization:
    """What a method found in one image.

    Attributes:
        maps: float32 (k, h, w) in [0, 1], one a class in the order asked for.
        scores: float32 (k,), logit of each class on the image itself.
        gains: float32 (k,), logit that the method added to it; 0 where it changes nothing.
        steps: optimisation steps taken a class and scale, the most of all scales.
    """

    maps: Float[Tensor, "k h w"]
    scores: Float[Tensor, " k"]
    gains: Float[Tensor, " k"]
    steps: int = 0


@dataclass(frozen=True)
class ScaleResult:
    """Maps of m pairs of image and class at one scale.

    Attributes:
        maps: float32 (m, h', w'), not negative, not normalised.
        scores: float32 (m,), logit of the class before the method changed anything.
        gains: float32 (m,), logit added.
        steps: optimisation steps taken.
    """

    maps: Float[Tensor, "m h' w'"]
    scores: Float[Tensor, " m"]
    gains: Float[Tensor, " m"]
    steps: int = 0


@dataclass(frozen=True)
class Attribution(ABC):
    """A method that maps (network, image, classes) to localization maps.

    Attributes:
        scales: the image is looked at in each of these sizes and the maps are added.
        flip: each size also mirrored; the mirrored map is turned back and added.
        precision: auto takes bf16 where the device is faster in it.
        max_pairs: pairs of image and class in one batch; 0 chooses by device. Does not change the
            maps beyond rounding.
    """

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: bool = True
    precision: Precision = "auto"
    max_pairs: int = 0

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales must be positive and at least one, got {self.scales}")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision must be auto, fp32 or bf16, got {self.precision!r}")

    @classmethod
    def official(cls) -> Self:
        """The values and order of operations of the authors' public code."""
        return cls()

    @classmethod
    @abstractmethod
    def as_written(cls) -> Self:
        """The dissertation's equations to the letter."""

    def prepare(self, network: nn.Module) -> LeanNetwork:
        """The copy to work on; make it once where many images follow."""
        if isinstance(network, LeanNetwork):
            return network
        return LeanNetwork(network, self.precision)

    def __call__(
        self, network: nn.Module, image: UInt8[Tensor, "h w 3"], classes: Sequence[int]
    ) -> Float[Tensor, "k h w"]:
        """Localization maps of one image, at the image's size.

        Args:
            network: a CAM classifier, or what `prepare` made of it; left as it was.
            image: RGB, 0 to 255, a tensor or an array.
            classes: class indices to localize, in any order.

        Returns:
            Float32 in [0, 1] on the network's device, one map a class in the order of `classes`.

        Raises:
            ValueError: an image of another shape or type, or a class that the network lacks.
        """
        # an array may be read-only or run backwards, which torch does not take
        pixels = image if isinstance(image, Tensor) else torch.as_tensor(image.copy())
        return self.run(network, pixels[None], [classes])[0].maps

    def run(
        self,
        network: nn.Module,
        images: UInt8[Tensor, "n h w 3"],
        classes: Sequence[Sequence[int]],
        map_stride: int = 1,
    ) -> list[Localization]:
        """Localization maps of images of one size.

        Args:
            network: a CAM classifier, or what `prepare` made of it; left as it was.
            images: RGB, 0 to 255.
            classes: class indices of each image; an image may have none.
            map_stride: image pixels a cell of the maps that come back; divides the network's
                stride.

        Raises:
            ValueError: images of another shape or type, a class that the network lacks, or a
                `map_stride` that does not fit.
        """
        lean = self.prepare(network)
        _check_input(images, classes, len(lean.weight))
        if map_stride < 1 or lean.stride % map_stride:
            raise ValueError(
                f"map_stride must divide the network's stride {lean.stride}, got {map_stride}"
            )
        found: list[Localization] = []
        for batch in _batches(classes, self.max_pairs or _default_pairs(lean.device)):
            found += self._run_batch(lean, images[batch], classes[batch], map_stride)
        return found

    def _run_batch(
        self,
        lean: LeanNetwork,
        images: UInt8[Tensor, "n h w 3"],
        classes: Sequence[Sequence[int]],
        map_stride: int,
    ) -> list[Localization]:
        pairs = [(i, c) for i, own in enumerate(classes) for c in own]
        size_hw = (images.shape[1], images.shape[2])
        if not pairs:
            return [_nothing(size_hw, map_stride, lean.device) for _ in classes]
        owner, target = torch.tensor(pairs, device=lean.device).unbind(1)
        planes = images.to(lean.device).permute(0, 3, 1, 2).contiguous()  # (n, 3, h, w)
        results = []
        for scale in self.scales:
            views = _views(planes, scale, self.flip)  # (n, v, 3, h, w)
            results.append(self.locate(lean, views, owner, target, scale))
        total = torch.stack(
            [_resize_maps(result.maps, size_hw, lean.stride, map_stride) for result in results]
        ).sum(0)
        maps = total / (total.amax((1, 2), keepdim=True) + EPSILON)
        native = results[self.scales.index(1.0) if 1.0 in self.scales else 0]
        steps = max(result.steps for result in results)
        counts = [len(own) for own in classes]
        return [
            Localization(own_maps, scores, gains, steps if len(own_maps) else 0)
            for own_maps, scores, gains in zip(
                maps.split(counts),
                native.scores.split(counts),
                native.gains.split(counts),
                strict=True,
            )
        ]

    @abstractmethod
    def locate(
        self,
        network: LeanNetwork,
        views: Float[Tensor, "n v 3 h w"],
        owner: Int[Tensor, " m"],
        target: Int[Tensor, " m"],
        scale: float,
    ) -> ScaleResult:
        """Maps of m pairs of image and class at one scale.

        Args:
            network: the lean copy.
            views: normalised images, each alone or with its mirror image behind it.
            owner: index into `views` of each pair's image.
            target: class index of each pair.
            scale: what `views` were resized by.
        """


def merge_views(maps: Float[Tensor, "m v h' w'"]) -> Float[Tensor, "m h' w'"]:
    """Adds the mirror image's map, turned back, to the image's own."""
    return maps[:, 0] if maps.shape[1] == 1 else maps[:, 0] + maps[:, 1].flip(-1)


def _check_input(images: Tensor, classes: Sequence[Sequence[int]], num_classes: int) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 (n, h, w, 3), got {images.dtype} {tuple(images.shape)}"
        )
    if len(classes) != len(images):
        raise ValueError(f"classes must name those of {len(images)} images, got {len(classes)}")
    wrong = [c for own in classes for c in own if not 0 <= c < num_classes]
    if wrong:
        raise ValueError(f"classes must lie in 0..{num_classes - 1}, got {wrong[0]}")


def _default_pairs(device: torch.device) -> int:
    # a CPU's caches hold the activations of few images; a GPU wants many to be full
    return 2 if device.type == "cpu" else 16


def _batches(classes: Sequence[Sequence[int]], max_pairs: int) -> Iterator[slice]:
    start, pairs = 0, 0
    for i, own in enumerate(classes):
        if i > start and pairs + len(own) > max_pairs:
            yield slice(start, i)
            start, pairs = i, 0
        pairs += len(own)
    if start < len(classes):
        yield slice(start, len(classes))


def _views(planes: UInt8[Tensor, "n 3 h w"], scale: float, flip: bool) -> Tensor:
    height, width = (max(round(side * scale), 1) for side in planes.shape[2:])
    resized = planes if scale == 1 else _resize_bicubic(planes, (height, width))
    images = normalise(resized)
    return torch.stack([images, images.flip(-1)] if flip else [images], 1)


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


def _resize_maps(
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


def _nothing(size_hw: tuple[int, int], map_stride: int, device: torch.device) -> Localization:
    cells = [-(-side // map_stride) for side in size_hw]
    none = torch.zeros(0, device=device)
    return Localization(torch.zeros(0, *cells, device=device), none, none)
