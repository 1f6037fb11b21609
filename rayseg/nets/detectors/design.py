"""What networks on a feature pyramid are built from, and what only their training asks for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypeVar

from rayseg.records.bounds import check_choices

Upsample = Literal["bilinear", "nearest"]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PyramidDesign(ABC):
    """What rebuilds a network: the facts beside its weights.

    Attributes:
        trunk: of the pyramid, one of PYRAMID_TRUNKS.
        classes: names of the foreground classes.
        upsample: of the pyramid's coarser levels; bilinear is BBAM's code, nearest torchvision's.
        channels: of the pyramid.
        width: of the box head; a mask head has a quarter of it, both as published by default.
        anchors: sides in input pixels, one a level of the pyramid.
        test_side: shorter side of an image in the input.
        max_side: what no longer side exceeds.
    """

    trunk: str
    classes: tuple[str, ...]
    upsample: Upsample = "bilinear"
    channels: int = 256
    width: int = 1024
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    test_side: int = 800
    max_side: int = 1333

    @property
    def num_classes(self) -> int:
        """Number of foreground classes c."""
        return len(self.classes)

    @property
    @abstractmethod
    def facts(self) -> dict[str, object]:
        """What `to_safetensors` is to write beside the tensors."""

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """The design that facts tell; what it has no field for is passed over."""
        known = {part.name for part in fields(cls)} & facts.keys()
        plain: dict[str, Any] = {name: facts[name] for name in known}
        return cls(**plain | {k: tuple(v) for k, v in plain.items() if isinstance(v, list)})


@dataclass(frozen=True, kw_only=True)
class DetectorDesign(PyramidDesign):
    """What rebuilds a detector; width, anchors and first level are a Faster R-CNN's alone.

    Attributes:
        kind: one of DETECTORS.
        first_level: of the pyramid: 2 begins at stride 4, 3 at stride 8.
    """

    kind: str = "faster_rcnn"
    first_level: int = 2

    @property
    def facts(self) -> dict[str, object]:
        """What `to_safetensors` is to write beside the tensors."""
        return {"network": self.kind} | {one: getattr(self, one) for one in fact_names(self.kind)}


@dataclass(frozen=True, kw_only=True)
class MaskRCNNDesign(PyramidDesign):
    """What rebuilds a Mask R-CNN."""

    anchors: tuple[int, ...] = (21, 42, 84, 168, 332)
    test_side: int = 512
    max_side: int = 800

    @property
    def facts(self) -> dict[str, object]:
        """What `to_safetensors` is to write beside the tensors."""
        start = {"network": "mask_rcnn", "trunk": self.trunk, "stride": 32}
        names = ("classes", "upsample", "channels", "width", "anchors", "test_side", "max_side")
        return start | {name: getattr(self, name) for name in names}


def fact_names(kind: str) -> tuple[str, ...]:
    """Names of the facts that a detector's file holds beside its kind."""
    head = ("width", "first_level", "anchors") if kind == "faster_rcnn" else ()
    return ("classes", "trunk", "upsample", "channels", *head, "test_side", "max_side")


@dataclass(frozen=True, kw_only=True)
class Learning:
    """What is asked for only to train a network on a pyramid.

    Attributes:
        weights: of the trunk, as `build_trunk` takes them.
        frozen_statistics: batch normalisation of the trunk stays as the weights have it.
        freeze: the last stage of the trunk that does not train, where it has weights.
        min_sides: shorter sides of training images; one is drawn each time by torch's generator.
        regions: proposals of a training image that heads of two stages learn from; at most a
            quarter of them hold an object, and those train a mask head.
    """

    weights: str = "none"
    frozen_statistics: bool = True
    freeze: str = "none"
    min_sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)
    regions: int = 512


@dataclass(frozen=True, kw_only=True)
class MaskLearning(Learning):
    """The same of a Mask R-CNN.

    Attributes:
        grow: whether cells in doubt join a side of which the network is sure.
        sure_foreground: probability above which it is; see `grown_seeds`.
        sure_background: probability below which it is sure of background.
        mask_loss: balanced weighs foreground and background the same; plain weighs cells.

    Raises:
        ValueError: an unknown loss.
    """

    min_sides: tuple[int, ...] = (416, 440, 464, 488, 512)
    grow: bool = True
    sure_foreground: float = 0.9
    sure_background: float = 0.1
    mask_loss: Literal["balanced", "plain"] = "balanced"

    def __post_init__(self) -> None:
        check_choices(self)


UNTRAINED = Learning()
UNTRAINED_MASKS = MaskLearning()


def taken_from(settings: object, wanted: type[T], **given: object) -> T:
    """A design or a `Learning` of what is given, and else of settings of the same names."""
    names = {part.name for part in fields(wanted)} - given.keys()  # type: ignore[arg-type]
    return wanted(**given, **{name: getattr(settings, name) for name in names})
