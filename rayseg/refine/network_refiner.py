"""What refiners have in common that walk on what a network says of an image.

An image takes about 0.6 GB of memory for each million pixels that the network sees (ResNet-50).
Larger images than `max_pixels` are seen smaller, so that one of 4000x3000 takes 2.5 GB.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

from rayseg.nets.inputs import Precision, choose_dtype, normalise
from rayseg.records.bounds import check_least
from rayseg.refine.crf import check_arguments, label_values


@dataclass(frozen=True, kw_only=True)
class NetworkRefiner:
    """A refiner that works on a network.

    Attributes:
        max_pixels: Larger images are seen with no more pixels than this, to save memory.
        precision: Number format of the network.
    """

    max_pixels: int = 4_000_000
    precision: Precision = "auto"

    viewed_as: ClassVar[str]
    """Column of the masks that has what `view` gives."""
    read_off: ClassVar[tuple[str, ...]] = ()
    """Fields whose values all come from one look of the network at an image, and one walk."""

    def __post_init__(self) -> None:
        check_least(self, max_pixels=64)

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Refused: a refiner that works on a network is called once it is prepared.

        Raises:
            TypeError: always.
        """
        raise TypeError("prepare(network, device) gives the refiner that can be called")

    def prepare(self, network: Any, device: torch.device | None = None) -> "Prepared":
        """The refiner on a network; called as every refiner is (see `LabelCRF.__call__`)."""
        device = device or next(network.parameters()).device
        return Prepared(self, network.to(device).eval(), device)

    def look(self, network: Any, image: Float[Tensor, "1 3 h w"]) -> Tensor:
        """What the walk goes by: what the network says of an image."""
        raise NotImplementedError

    def planes(self, looked: Tensor, maps: Float[Tensor, "1 k h w"]) -> Float[Tensor, "1 k+1 h w"]:
        """Scores of background and classes; the greatest of a pixel is its label.

        Args:
            looked: of `look`, at an image of the maps' size.
        """
        (found,) = self.course(looked, maps, [self])
        return found

    def course(
        self, looked: Tensor, maps: Float[Tensor, "1 k h w"], variants: Sequence[Self]
    ) -> Iterator[Float[Tensor, "1 k+1 h w"]]:
        """The planes of each variant of this refiner, which differ in what `read_off` names."""
        raise NotImplementedError

    def view(self, looked: Tensor) -> Float[Tensor, "y x"]:
        """What `look` gives as one plane in [0, 1], for people to see."""
        raise NotImplementedError

    def seen(self, network: Any, images: Tensor) -> Any:
        """What a network says, computed in the refiner's precision."""
        dtype = choose_dtype(self.precision, images.device)
        with torch.autocast(images.device.type, dtype, dtype != torch.float32):
            return network(images)


@dataclass(frozen=True)
class Prepared:
    """A refiner with its network, to be called."""

    refiner: NetworkRefiner
    network: Any
    device: torch.device

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0 and class index + 1 (see `LabelCRF.__call__` for the arguments)."""
        return self.viewed(image, maps, classes)[0]

    def viewed(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> tuple[UInt8[ndarray, "h w"], Float32[ndarray, "y x"] | None]:
        """The labels, and the refiner's `view`; none without classes, as nothing is looked at."""
        check_arguments(image, maps, classes)
        if not len(classes):
            return np.zeros(image.shape[:2], np.uint8), None
        looked, given = self._looked(image, maps)
        (scores,) = self._scores(looked, given, image.shape[:2], [self.refiner])
        view = self.refiner.view(looked).float().cpu().numpy()
        return label_values(classes)[scores.argmax(0)], view

    def course(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
        variants: Sequence[NetworkRefiner],
    ) -> Iterator[UInt8[ndarray, "h w"]]:
        """The labels that each variant of the refiner would give; the network is called once.

        Raises:
            ValueError: a variant differs in more than what the refiner's `read_off` names.
        """
        check_arguments(image, maps, classes)
        for one in variants:
            own = {name: getattr(self.refiner, name) for name in self.refiner.read_off}
            if replace(one, **own) != self.refiner:
                read = ", ".join(own) or "nothing"
                raise ValueError(f"variants must differ in {read}, got {one} of {self.refiner}")
        if not len(classes):
            yield from np.zeros((len(variants), *image.shape[:2]), np.uint8)
            return
        looked, given = self._looked(image, maps)
        for scores in self._scores(looked, given, image.shape[:2], variants):
            yield label_values(classes)[scores.argmax(0)]

    def scores(
        self, image: UInt8[ndarray, "h w 3"], maps: Float32[ndarray, "k h w"]
    ) -> Float32[ndarray, "k+1 h w"]:
        """Of background and of each map's class, at every pixel."""
        (found,) = self._scores(*self._looked(image, maps), image.shape[:2], [self.refiner])
        return found

    @torch.no_grad()
    def _looked(
        self, image: UInt8[ndarray, "h w 3"], maps: Float32[ndarray, "k h w"]
    ) -> tuple[Tensor, Float[Tensor, "1 k y x"]]:
        seen, given = self.given(image, maps)
        return self.refiner.look(self.network, seen), given

    @torch.no_grad()
    def _scores(
        self,
        looked: Tensor,
        given: Float[Tensor, "1 k y x"],
        size_hw: Sequence[int],
        variants: Sequence[NetworkRefiner],
    ) -> Iterator[Float32[ndarray, "k+1 h w"]]:
        for planes in self.refiner.course(looked, given, variants):
            yield _resized(planes, size_hw)[0].cpu().numpy()

    def note(self, size_hw: tuple[int, int]) -> str:
        """What is done to images of that size before the network sees them; empty for nothing."""
        small_hw = _within(size_hw, self.refiner.max_pixels)
        if small_hw == size_hw:
            return ""
        small, own = ("x".join(map(str, reversed(one))) for one in (small_hw, size_hw))
        return f"resized from {own} to {small} for its network (max_pixels)"

    def given(
        self, image: UInt8[ndarray, "h w 3"], maps: Float32[ndarray, "k h w"]
    ) -> tuple[Float[Tensor, "1 3 y x"], Float[Tensor, "1 k y x"]]:
        """Image, normalised, and maps as the network sees them, of no more than `max_pixels`."""
        pixels = torch.from_numpy(image.copy()).to(self.device).permute(2, 0, 1)[None]
        planes = torch.from_numpy(maps.copy()).to(self.device)[None]
        small_hw = _within(image.shape[:2], self.refiner.max_pixels)
        return _resized(normalise(pixels), small_hw), _resized(planes, small_hw)


def _within(size_hw: tuple[int, ...], max_pixels: int) -> tuple[int, int]:
    """The size of an image of no more pixels than that, in its shape."""
    height, width = size_hw
    factor = min((max_pixels / (height * width)) ** 0.5, 1.0)
    return max(int(height * factor), 1), max(int(width * factor), 1)


def _resized(planes: Float[Tensor, "n k h w"], size_hw: Sequence[int]) -> Tensor:
    """The planes in another size, smoothed first where that is a smaller one."""
    if tuple(planes.shape[2:]) == tuple(size_hw):
        return planes
    smaller = planes.shape[2] * planes.shape[3] > size_hw[0] * size_hw[1]
    return functional.interpolate(planes, tuple(size_hw), mode="bilinear", antialias=smaller)
