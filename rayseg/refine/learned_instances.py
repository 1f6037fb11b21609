"""Objects from maps of classes alone, by the edges and displacements that IRNet has learnt.

Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel Relations", CVPR
2019 (IRNet), section 5; step/make_ins_seg_labels.py of its code (METHODS 1.7). Displacements are
those of the image itself; of its mirror image only the edges count, as in that code (recalled).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from rayseg.nets.irnet import CELL, IRNet
from rayseg.nets.taps import grid_of
from rayseg.records.rle import decode_mask
from rayseg.refine.crf import check_arguments
from rayseg.refine.learned_walks import IRNetRefinement, mean_edges, on_cells
from rayseg.refine.network_refiner import Prepared
from rayseg.refine.tag_instances import FoundInstances, TagInstances, join_objects


@dataclass(frozen=True, kw_only=True)
class IRNetInstances(IRNetRefinement):
    """IRNet's instances: maps are cut where displacements part, and each part walks by itself.

    Attributes:
        rounds: Most rounds that a pixel follows the displacements; fewer where nothing moves.
        weak_displacement: Length in cells of four pixels below which a displacement is weak.
        fragment_share: A smaller share of the image than this is no object; the semantic mask has
            it all the same.
    """

    rounds: int = 300
    weak_displacement: float = 2.5
    fragment_share: float = 0.01

    finds_objects: ClassVar[bool] = True
    from_walks: ClassVar[tuple[str, ...]] = ("cam_power",)
    """The background of instances is the authors' one value, whatever made the maps."""
    read_off: ClassVar[tuple[str, ...]] = ()
    """Each part walks by itself, so that nothing is read off one walk."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.grouping  # noqa: B018  refuses what the grouping refuses

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """The values of IRN's public code, and the exponent of an attribution method's.

        Raises:
            ValueError: no exponent of this method is known.
        """
        return cls(cam_power=IRNetRefinement.official(method).cam_power)

    @property
    def grouping(self) -> TagInstances:
        """The inference with these constants, of maps on cells."""
        return TagInstances(
            walk=self.walk, rounds=self.rounds, weak_displacement=self.weak_displacement,
            background=self.background_threshold, fragment_share=self.fragment_share,
        )  # fmt: skip

    def prepare(self, network: Any, device: torch.device | None = None) -> "PreparedInstances":
        """The refiner on a network; gives labels where it is called, objects by ``find``."""
        made = super().prepare(network, device)
        return PreparedInstances(self, made.network, made.device)

    def objects(
        self,
        network: IRNet,
        image: Float[Tensor, "1 3 h w"],
        maps: Float[Tensor, "1 k h w"],
        classes: Sequence[int],
    ) -> FoundInstances:
        """The objects of an image as the network sees it, fragments among them."""
        height, width = image.shape[2:]
        logits, displacements = self.seen(network, self.both_ways(network, image))
        rows, columns = grid_of((height, width), CELL)
        return self.grouping(
            on_cells(maps, CELL)[0] ** self.cam_power,
            classes,
            mean_edges(logits, (height, width))[0],
            displacements[0].float()[:, :rows, :columns],
            (height, width),
            CELL,
        )


@dataclass(frozen=True)
class PreparedInstances(Prepared):
    """`IRNetInstances` with its network."""

    refiner: IRNetInstances

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0 and class index + 1 (see `LabelCRF.__call__` for the arguments)."""
        return self.find(image, maps, classes).labels((image.shape[0], image.shape[1]))

    @torch.no_grad()
    def find(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float32[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> FoundInstances:
        """The objects of an image, none where no map has a value; arguments as when called.

        Masks of an image of more than `max_pixels` are enlarged from those of the smaller one.
        """
        check_arguments(image, maps, classes)
        if not len(classes):
            return join_objects([])
        seen, planes = self.given(image, maps)
        found = self.refiner.objects(self.network, seen, planes, classes)
        small_hw, size_hw = (seen.shape[2], seen.shape[3]), (image.shape[0], image.shape[1])
        return found if small_hw == size_hw else _enlarged(found, small_hw, size_hw)


def _enlarged(
    found: FoundInstances, small_hw: tuple[int, int], size_hw: tuple[int, int]
) -> FoundInstances:
    """The same objects on a larger image; each pixel is that of the small one in its place."""
    rows, columns = (
        np.arange(side) * small // side for small, side in zip(small_hw, size_hw, strict=True)
    )
    return join_objects(
        (int(index), float(score), decode_mask(counts, small_hw)[np.ix_(rows, columns)])
        for index, score, counts in zip(found.classes, found.scores, found.masks, strict=True)
    )
