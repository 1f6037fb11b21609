"""Masks by the random walk on what a network has learnt: IRNet's edges or AffinityNet's features.

Both walks spread maps over pixels that belong together, and every pixel gets a label, no 255.

`IRNetRefinement` is IRN's step/make_sem_seg_labels.py (Ahn et al., CVPR 2019), `PSARefinement`
PSA's infer_aff.py (Ahn and Kwak, CVPR 2018); METHODS 1.6, 1.7 and 2. The dissertation follows both
(2.3.2) and names none of their constants, so that `as_written` differs in Eq. 2.5 alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from rayseg.nets.affinity import CELL as AFFINITY_CELL
from rayseg.nets.affinity import AffinityNet
from rayseg.nets.irnet import CELL, IRNet
from rayseg.nets.taps import grid_of
from rayseg.records.bounds import check_least
from rayseg.refine.affinities import mean_affinity
from rayseg.refine.crf import ON_SEAM
from rayseg.refine.network_refiner import NetworkRefiner
from rayseg.refine.walk import EdgeWalk, FeatureWalk

# (cam_power, background_threshold) that each method's public code walks with on VOC (METHODS 1.7);
# RIB has .22 on COCO. Grad-CAM has no code for this; it is CAM's map here, and takes CAM's values.
# SEAM's code walks as PSA does alone: that its maps take CAM's values, and those of AdvCAM on SEAM
# AdvCAM's, is ours.
OFFICIAL_WALKS = {
    "cam": (1.0, 0.25),
    "gradcam": (1.0, 0.25),
    "advcam": (1.5, 0.25),
    "rib": (1.3, 0.27),
    "wood": (1.5, 0.22),
    "seam": (1.0, 0.25),
    "advcam_seam": (1.5, 0.25),
}


@dataclass(frozen=True, kw_only=True)
class IRNetRefinement(NetworkRefiner):
    """IRNet's walk: maps spread where its edges are weak.

    Attributes:
        cam_power: Exponent of the maps before the walk; in a run `walks` sets it for each method.
        background_threshold: Value of the background, where the greatest of all classes is 1.
        radius: Distance in cells of four pixels that no pair reaches.
        beta: Exponent of the affinities.
        log_steps: Binary logarithm of the number of steps.
        pad: The network sees images with zeros to the right and below up to this side in pixels; 0
            is that of the crops it was trained on, 1 adds nothing. The authors have 512 for both,
            at which they also cut larger images, which are left whole here.
        max_pixels: Larger images are seen with no more pixels than this, to save memory.
        precision: Number format of the network; auto is bf16 where the device is fast in it.
    """

    radius: int = 5
    beta: float = 10.0
    log_steps: int = 8
    cam_power: float = 1.0
    background_threshold: float = 0.25
    pad: int = 0

    network_kind: ClassVar[str] = "irnet"
    learns_from: ClassVar[str] = "label_crf"
    """The refiner whose masks its network learns from."""
    from_walks: ClassVar[tuple[str, ...]] = ("cam_power", "background_threshold")
    """Fields that a run sets for each method."""
    viewed_as: ClassVar[str] = "edges"
    read_off: ClassVar[tuple[str, ...]] = ("log_steps", "background_threshold")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, pad=0)
        if not self.cam_power > 0 or not 0 <= self.background_threshold <= 1:
            raise ValueError(
                "cam_power must be positive and background_threshold lie in [0, 1], "
                f"got {self.cam_power} and {self.background_threshold}"
            )
        self.walk  # noqa: B018  refuses what the walk refuses

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """The values of an attribution method's public code; see OFFICIAL_WALKS.

        Raises:
            ValueError: there are none.
        """
        if method not in OFFICIAL_WALKS:
            raise ValueError(
                f"no official walk for {method!r}; there are some for "
                f"{', '.join(OFFICIAL_WALKS)}; otherwise give cam_power and background_threshold"
            )
        power, threshold = OFFICIAL_WALKS[method]
        return cls(cam_power=power, background_threshold=threshold)

    @classmethod
    def as_written(cls, method: str = "cam") -> Self:
        """IRN's values whatever the method: the dissertation states no others."""
        return cls()

    @property
    def walk(self) -> EdgeWalk:
        """The walk with these constants."""
        return EdgeWalk(radius=self.radius, beta=self.beta, log_steps=self.log_steps)

    def look(self, network: IRNet, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 y x"]:
        """The edges."""
        return self.edges(network, image)

    def view(self, looked: Float[Tensor, "1 y x"]) -> Float[Tensor, "y x"]:
        """The edges as they are, on cells of four pixels."""
        return looked[0]

    def course(
        self,
        looked: Float[Tensor, "1 y x"],
        maps: Float[Tensor, "1 k h w"],
        variants: Sequence[Self],
    ) -> Iterator[Float[Tensor, "1 k+1 h w"]]:
        """The background's constant, and maps after the walk divided by the greatest of all.

        One walk has all numbers of steps; a threshold only compares after it.
        """
        steps = sorted({one.log_steps for one in variants})
        walks = self.walk.course(on_cells(maps, CELL) ** self.cam_power, looked, steps)
        height, width = maps.shape[2:]
        for log_steps, alike in groupby(variants, attrgetter("log_steps")):
            grown = functional.interpolate(
                walks[steps.index(log_steps)],
                scale_factor=CELL, mode="bilinear", align_corners=False,
            )[..., :height, :width]  # fmt: skip
            # maps of zeros stay so: all is background
            grown = grown / grown.amax((1, 2, 3), keepdim=True).clamp(min=1e-5)
            for one in alike:
                background = torch.full_like(grown[:, :1], one.background_threshold)
                yield torch.cat([background, grown], 1)

    def edges(self, network: IRNet, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 y x"]:
        """Boundaries on cells of four pixels: of the mean logit of image and mirrored image."""
        seen = self.seen(network.edges, self.both_ways(network, image))
        return mean_edges(seen, image.shape[2:])

    def both_ways(
        self, network: IRNet, image: Float[Tensor, "1 3 h w"]
    ) -> Float[Tensor, "2 3 p q"]:
        """The image and its mirror image, as the network sees them."""
        # to whole cells of the trunk, so that those of the mirrored image lie over the same pixels
        wanted = [max(self.pad or network.canvas, side) for side in image.shape[2:]]
        room = [
            side + -side % network.stride - own
            for side, own in zip(wanted, image.shape[2:], strict=True)
        ]
        padded = functional.pad(image, (0, room[1], 0, room[0]))
        return torch.cat([padded, padded.flip(3)])


@dataclass(frozen=True, kw_only=True)
class PSARefinement(NetworkRefiner):
    """PSA's walk: maps and their background spread where AffinityNet's features are alike.

    Attributes:
        alpha: Exponent of the background, (1 - max of maps) ** alpha; 6 on SEAM's maps.
        radius: Distance in cells of eight pixels that no pair reaches.
        beta: Exponent of the affinities.
        log_steps: Binary logarithm of the number of steps; 6 on SEAM's maps.
        borders: Pairs that count near the border; quirk is the authors' code (see `FeatureWalk`).
        max_pixels: Larger images are seen with no more pixels than this, to save memory.
        precision: Number format of the network; auto is bf16 where the device is fast in it.
    """

    radius: int = 5
    beta: float = 8.0
    log_steps: int = 8
    alpha: float = 16.0
    borders: Literal["quirk", "clipped"] = "quirk"

    network_kind: ClassVar[str] = "affinity"
    learns_from: ClassVar[str] = "affinity_labels"
    """The refiner whose masks its network learns from."""
    viewed_as: ClassVar[str] = "affinities"
    read_off: ClassVar[tuple[str, ...]] = ("log_steps",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}")
        self.walk  # noqa: B018  refuses what the walk refuses

    @classmethod
    def official(cls, method: str = "cam") -> Self:
        """PSA's values, or SEAM's on maps of SEAM and of AdvCAM on it (METHODS 2)."""
        return cls(alpha=6.0, log_steps=6) if method in ON_SEAM else cls()

    @classmethod
    def as_written(cls, method: str = "cam") -> Self:
        """Every pair; other values are the code's. The sum of Eq. 2.5 is the network's."""
        return cls(borders="clipped")

    @property
    def walk(self) -> FeatureWalk:
        """The walk with these constants."""
        return FeatureWalk(
            radius=self.radius, beta=self.beta, log_steps=self.log_steps, borders=self.borders
        )

    def look(self, network: AffinityNet, image: Float[Tensor, "1 3 h w"]) -> Tensor:
        """The features (1, 448, y, x), of the image on zeros up to whole cells.

        The walk compares them by the mean over channels. Where the network was trained on the sum,
        they are multiplied by the number of channels, which makes that mean the sum.
        """
        features = self.seen(network, _on_whole_cells(image)).float()
        return features * features.shape[1] if network.distance == "sum" else features

    def view(self, looked: Float[Tensor, "1 448 y x"]) -> Float[Tensor, "y x"]:
        """Mean of each cell's affinities to the eight around it, to the power that the walk takes.

        On cells of eight pixels. That of a cell with none around it is 0.
        """
        return mean_affinity(looked, beta=self.beta)[0]

    def course(
        self,
        looked: Float[Tensor, "1 448 y x"],
        maps: Float[Tensor, "1 k h w"],
        variants: Sequence[Self],
    ) -> Iterator[Float[Tensor, "1 k+1 h w"]]:
        """Background and maps after the walk, on zeros up to whole cells."""
        height, width = maps.shape[2:]
        background = (1 - maps.amax(1, keepdim=True)) ** self.alpha
        planes = _on_whole_cells(torch.cat([background, maps], 1))
        steps = sorted({one.log_steps for one in variants})
        walks = self.walk.course(functional.avg_pool2d(planes, AFFINITY_CELL), looked, steps)
        for one in variants:
            grown = functional.interpolate(
                walks[steps.index(one.log_steps)],
                planes.shape[2:], mode="bilinear", align_corners=False,
            )  # fmt: skip
            yield grown[..., :height, :width]


def mean_edges(logits: Float[Tensor, "2 1 p q"], size_hw: Sequence[int]) -> Float[Tensor, "1 y x"]:
    """Boundaries on the cells of an image of that size, from logits of it and its mirror image."""
    rows, columns = grid_of(size_hw, CELL)
    first, second = logits.float()
    return (first / 2 + second.flip(2) / 2).sigmoid()[:, :rows, :columns]


def _on_whole_cells(planes: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k a b"]:
    rest = [-side % AFFINITY_CELL for side in planes.shape[2:]]
    return functional.pad(planes, (0, rest[1], 0, rest[0]))


def on_cells(maps: Float[Tensor, "n k h w"], cell: int) -> Float[Tensor, "n k y x"]:
    """The maps' values at the centres of cells; what reaches over the image is its border's."""
    rest = [-side % cell for side in maps.shape[2:]]
    whole = functional.pad(maps, (0, rest[1], 0, rest[0]), mode="replicate")
    return functional.interpolate(
        whole, scale_factor=1 / cell, mode="bilinear", align_corners=False
    )
