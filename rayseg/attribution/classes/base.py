"""What every attribution method shares: scales, flips, normalisation, and a network left untouched.

A method never works on the network that it is given, but on a lean copy of it.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from rayseg.attribution.classes.companions import Companions
from rayseg.attribution.classes.lean import LeanNetwork, placed
from rayseg.attribution.classes.views import ViewBatch, resize_maps
from rayseg.nets.inputs import Precision
from rayseg.records.bounds import check_choices

EPSILON = 1e-5  # maps are divided by their maximum + this, as in IRN's make_cam.py


@dataclass(frozen=True)
class Localization:
    """What a method found in one image.

    Attributes:
        maps: float32 (k, h, w) in [0, 1], one a class in the order asked for.
        scores: float32 (k,), logit of each class on the image itself.
        gains: float32 (k,), logit that the method added to it; 0 where it changes nothing.
        steps: optimisation steps taken a class and scale, the most of all scales.
        note: what a person should know of how it went; empty where all went as planned.
    """

    maps: Float[Tensor, "k h w"]
    scores: Float[Tensor, " k"]
    gains: Float[Tensor, " k"]
    steps: int = 0
    note: str = ""


@dataclass(frozen=True)
class ScaleResult:
    """Maps of m pairs of image and class at one scale.

    Attributes:
        maps: float32 (m, h', w'), not negative, not normalised.
        scores: float32 (m,), logit of the class before the method changed anything.
        gains: float32 (m,), logit added.
        steps: optimisation steps taken for each image; empty where none are.
        notes: of each image; empty where there is nothing to say.
    """

    maps: Float[Tensor, "m h' w'"]
    scores: Float[Tensor, " m"]
    gains: Float[Tensor, " m"]
    steps: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribution(ABC):
    """A method that maps (network, image, classes) to localization maps.

    Attributes:
        scales: The image is seen at each of these sizes, and the maps are added.
        flip: The mirrored image is seen too at each size; its map is mirrored back and added.
        precision: Number format of the network; auto takes bf16 where the device is faster in it.
        max_pairs: Pairs of image and class in one batch; 0 chooses by device. It changes maps by
            rounding only.
    """

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    flip: bool = True
    precision: Precision = "auto"
    max_pairs: int = 0

    network_kind: ClassVar[str] = "classifier"
    """What it works on, a key of nets' NETWORKS."""
    own_thresholds: ClassVar[tuple[float, float] | None] = None
    """Background thresholds of its maps, where its scale is another than CAM's."""
    rounding_only: ClassVar[tuple[str, ...]] = ("max_pairs",)
    """Fields that change results by no more than rounding."""

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales must be positive and at least one, got {self.scales}")
        check_choices(self)

    @classmethod
    def official(cls) -> Self:
        """The values and order of operations of the authors' public code."""
        return cls()

    @classmethod
    @abstractmethod
    def as_written(cls) -> Self:
        """The dissertation's equations to the letter."""

    @property
    def uses_companions(self) -> bool:
        """Whether it needs other images beside the one that it looks at."""
        return False

    def prepare(
        self,
        network: nn.Module,
        device: torch.device | None = None,
        companions: Companions | None = None,
    ) -> LeanNetwork:
        """The copy to work on; make it once where many images follow.

        Args:
            network: a CAM classifier, left as it was, or what `prepare` made of one, which is given
                back.
            device: where to work; None is where the network lies.
            companions: other images, for a method that `uses_companions`.
        """
        del companions  # most methods look at nothing but the image
        if isinstance(network, LeanNetwork):
            if not network.serves_all:
                raise ValueError(
                    f"network must be a classifier, got the {type(network).__name__} of another "
                    "method"
                )
            return network
        return LeanNetwork(placed(network, device), self.precision)

    def __call__(
        self,
        network: nn.Module,
        image: UInt8[Tensor, "h w 3"],
        classes: Sequence[int],
        image_id: str = "",
    ) -> Float[Tensor, "k h w"]:
        """Localization maps of one image, at the image's size.

        Args:
            network: a CAM classifier, or what `prepare` made of it; left as it was.
            image: RGB, 0 to 255, a tensor or an array.
            classes: class indices to localize, in any order.
            image_id: what is random follows from it and the method's seed.

        Returns:
            Float32 in [0, 1] on the network's device, one map a class in the order of `classes`.

        Raises:
            ValueError: an image of another shape or type, or a class that the network lacks.
        """
        # an array may be read-only or run backwards, which torch does not take
        pixels = image if isinstance(image, Tensor) else torch.as_tensor(image.copy())
        return self.run(network, pixels[None], [classes], ids=[image_id])[0].maps

    def run(
        self,
        network: nn.Module,
        images: UInt8[Tensor, "n h w 3"],
        classes: Sequence[Sequence[int]],
        map_stride: int = 1,
        ids: Sequence[str] | None = None,
    ) -> list[Localization]:
        """Localization maps of images of one size.

        Args:
            classes: class indices of each image; an image may have none.
            map_stride: image pixels a cell of the maps that come back; divides the network's
                stride.
        """
        lean = self.prepare(network)
        ids = [""] * len(images) if ids is None else ids
        check_input(lean, images, classes, ids, map_stride)
        found: list[Localization] = []
        for batch in _batches(classes, self.max_pairs or _default_pairs(lean.device)):
            part = ViewBatch.of(images[batch], classes[batch], ids[batch], lean.device)
            results = self.localize(lean, part) if any(part.classes) else []
            found += self.assemble(results, lean, part, map_stride)
        return found

    @abstractmethod
    def localize(self, network: LeanNetwork, batch: ViewBatch) -> list[ScaleResult]:
        """Maps of a batch with at least one pair of image and class, one result a scale."""

    def assemble(
        self, results: list[ScaleResult], network: LeanNetwork, batch: ViewBatch, map_stride: int
    ) -> list[Localization]:
        """The scales' maps on the image's grid, added, and divided by their maximum."""
        size_hw = (batch.planes.shape[2], batch.planes.shape[3])
        if not results:
            return [_nothing(size_hw, map_stride, network.device) for _ in batch.classes]
        maps = [result.maps for result in results]
        total = torch.stack(self.laid(maps, size_hw, network.stride, map_stride)).sum(0)
        native = results[self.scales.index(1.0) if 1.0 in self.scales else 0]
        counts = [len(own) for own in batch.classes]
        parts = zip(
            self.normalised(total).split(counts),
            native.scores.split(counts),
            native.gains.split(counts),
            strict=True,
        )
        steps = [max(taken) for taken in zip(*(r.steps for r in results if r.steps), strict=True)]
        return [
            Localization(
                *part,
                steps=steps[i] if steps and counts[i] else 0,
                note=native.notes[i] if native.notes else "",
            )
            for i, part in enumerate(parts)
        ]

    def laid(
        self,
        maps: Sequence[Float[Tensor, "m h' w'"]],
        size_hw: tuple[int, int],
        stride: int,
        map_stride: int,
    ) -> list[Float[Tensor, "m h w"]]:
        """The maps of each scale on the image's grid."""
        return [resize_maps(one, size_hw, stride, map_stride) for one in maps]

    def normalised(self, maps: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
        """The added maps in [0, 1]."""
        return divide_by_maximum(maps)


@dataclass(frozen=True)
class ScaleByScale(Attribution):
    """A method that looks at one size of the image after the other."""

    def localize(self, network: LeanNetwork, batch: ViewBatch) -> list[ScaleResult]:
        """`locate` at each scale."""
        owner, target = batch.pairs
        return [
            self.locate(network, batch.views(scale, self.flip), owner, target, scale)
            for scale in self.scales
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
            views: normalised images, each alone or with its mirror image behind it.
            scale: what `views` were resized by.
        """


def divide_by_maximum(maps: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    """Maps that reach from 0 to 1, as IRN's make_cam.py divides them."""
    return maps / (maps.amax((1, 2), keepdim=True) + EPSILON)


def equation_cam(maps: Float[Tensor, "m h w"]) -> Float[Tensor, "m h w"]:
    """Eq. 2.1: w_c . f over its maximum; 0 where no cell is positive.

    A class that is nowhere has a negative maximum, and dividing by it would turn the map round.
    """
    largest = maps.amax((1, 2), keepdim=True)
    return maps * (largest > 0) / (largest.relu() + EPSILON)


def seeded(seed: int, image_id: str) -> torch.Generator:
    """The generator of one image: the same on every worker and device."""
    digest = hashlib.blake2b(f"{seed}/{image_id}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))


def check_input(
    network: LeanNetwork,
    images: Tensor,
    classes: Sequence[Sequence[int]],
    ids: Sequence[str],
    map_stride: int,
) -> None:
    """Refuses images of another shape or type, unknown classes and strides that do not fit."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"images must be uint8 (n, h, w, 3), got {images.dtype} {tuple(images.shape)}"
        )
    if len(classes) != len(images):
        raise ValueError(f"classes must name those of {len(images)} images, got {len(classes)}")
    if len(ids) != len(images):
        raise ValueError(f"ids must name {len(images)} images, got {len(ids)}")
    last = network.num_classes - 1
    wrong = [c for own in classes for c in own if not 0 <= c <= last]
    if wrong:
        raise ValueError(f"classes must lie in 0..{last}, got {wrong[0]}")
    if map_stride < 1 or network.stride % map_stride:
        raise ValueError(
            f"map_stride must divide the network's stride {network.stride}, got {map_stride}"
        )


def _default_pairs(device: torch.device) -> int:
    # a CPU's caches hold the activations of few images; a GPU needs many to be full
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


def _nothing(size_hw: tuple[int, int], map_stride: int, device: torch.device) -> Localization:
    cells = [-(-side // map_stride) for side in size_hw]
    none = torch.zeros(0, device=device)
    return Localization(torch.zeros(0, *cells, device=device), none, none)
