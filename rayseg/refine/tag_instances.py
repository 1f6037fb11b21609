"""Instances from tags alone: IRNet's displacements gather pixels, its edges bound them.

Each pixel follows the displacement field to a centroid, round after round. Where the field is weak
the centroids end; the pixels whose centroid ends in one connected weak region are one group, and
those that end in none are a group of their own. The maps of each class are cut into groups, each
piece walks by itself (`EdgeWalk`), and the pixels where a piece wins are its instances, one for
each connected part.

Source: Ahn et al., "Weakly Supervised Learning of Instance Segmentation with Inter-pixel
Relations", CVPR 2019 (IRNet), section 5; step/make_ins_seg_labels.py and misc/indexing.py of its
code (METHODS 1.7). Recalled from that code, not run against it: the group of its own, that parts
connect by four neighbours, and that an object's score is its greatest value.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from numpy import ndarray
from scipy.ndimage import find_objects
from scipy.ndimage import label as connected_parts
from torch import Tensor
from torch.nn import functional

from rayseg.records.boxes import mask_extent
from rayseg.records.rle import encode_mask, paint
from rayseg.refine.walk import EdgeWalk

_WALKED = 2**22
"""Cells, over all pieces, that walk at once."""


@dataclass(frozen=True)
class FoundInstances:
    """The objects of an image with a mask each, by class, then group, then place.

    Attributes:
        boxes_xyxy: float32 (o, 4) in pixels, around the masks.
        classes: int64 (o,) class indices.
        scores: float32 (o,) in [0, 1]; 0 of fragments.
        masks: COCO's counts of each object; no two objects share a pixel.
    """

    boxes_xyxy: Float32[ndarray, "o 4"]
    classes: Int64[ndarray, " o"]
    scores: Float32[ndarray, " o"]
    masks: tuple[bytes, ...]

    def scored(self) -> Self:
        """Those that are no fragments: what a Mask R-CNN is to learn."""
        kept = np.flatnonzero(self.scores > 0)
        masks = tuple(self.masks[i] for i in kept)
        return type(self)(self.boxes_xyxy[kept], self.classes[kept], self.scores[kept], masks)

    def labels(self, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The semantic mask, 0 or class index + 1, of fragments too."""
        made = np.zeros(size_hw, np.uint8, order="F")
        for index, counts in zip(self.classes, self.masks, strict=True):
            paint(made, counts, int(index) + 1)
        return np.ascontiguousarray(made)

    def columns(self) -> dict[str, Any]:
        """The objects as a row of instances holds them."""
        number = len(self.masks)
        return {
            "boxes_xyxy": self.boxes_xyxy.tolist(),
            "classes": self.classes.tolist(),
            "object_status": ["ok"] * number,
            "places": [-1] * number,
            "scores": self.scores.tolist(),
            "foreground": list(self.masks),
            "possible": [b""] * number,
        }


@dataclass(frozen=True, kw_only=True)
class TagInstances:
    """IRNet's instance inference.

    Attributes:
        walk: The random walk of each piece.
        rounds: Most rounds that a pixel follows the field; fewer where nothing moves any more.
        weak_displacement: Length in cells of the grid below which a displacement is weak.
        background: Share of the image's greatest value that a pixel of an object must exceed.
        fragment_share: An object of a smaller share of the image than this gets score 0.
    """

    walk: EdgeWalk = EdgeWalk()
    rounds: int = 300
    weak_displacement: float = 2.5
    background: float = 0.25
    fragment_share: float = 0.01

    def __post_init__(self) -> None:
        if self.rounds < 0 or not self.weak_displacement > 0:
            raise ValueError(
                "rounds must not be negative and weak_displacement be positive, "
                f"got {self.rounds} and {self.weak_displacement}"
            )
        if not (0 <= self.background < 1 and 0 <= self.fragment_share <= 1):
            raise ValueError(
                "background must lie in [0, 1) and fragment_share in [0, 1], "
                f"got {self.background} and {self.fragment_share}"
            )

    @classmethod
    def official(cls) -> Self:
        """The values of the authors' code."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """The dissertation does not describe instances; the values of the code."""
        return cls()

    def __call__(
        self,
        maps: Float[Tensor, "k y x"],
        classes: Sequence[int],
        edges: Float[Tensor, "y x"],
        displacements: Float[Tensor, "2 y x"],
        size_hw: tuple[int, int],
        stride: int = 4,
    ) -> FoundInstances:
        """The instances of one image.

        Args:
            maps: localization maps of the present classes on the grid, 0 or more.
            classes: class index of each map.
            edges: probability that a cell lies on a boundary.
            displacements: down and right to the centroid of the cell's object, in cells.
            size_hw: of the image.
            stride: pixels of a cell's side; the grid covers the image.

        Raises:
            ValueError: shapes do not fit, or a map or displacement is no number.
        """
        _check(maps, classes, edges, displacements, size_hw, stride)
        groups = displacement_groups(
            displacements.detach().cpu().numpy(), self.rounds, self.weak_displacement
        )
        best = np.zeros(size_hw, np.float32)
        owner = np.full(size_hw, -1)  # class's place times the number of groups, plus the group
        for number, piece in self._pieces(maps, groups, edges, size_hw, stride):
            won = piece > best
            best[won], owner[won] = piece[won], number
        greatest = best.max()
        if not greatest > 0:
            return join_objects([])
        scores = best / greatest
        owner[~(scores > self.background)] = -1
        return join_objects(self._objects(owner, scores, classes, groups.max() + 1))

    def _pieces(
        self,
        maps: Float[Tensor, "k y x"],
        groups: Int64[ndarray, "y x"],
        edges: Float[Tensor, "y x"],
        size_hw: tuple[int, int],
        stride: int,
    ) -> Iterator[tuple[int, Float32[ndarray, "h w"]]]:
        """Each class's part in each group after the walk, at the image's size, with its number.

        Few at a time: a noisy field has hundreds of groups. A part of zeros is left out, as it wins
        nowhere.
        """
        number = int(groups.max()) + 1
        members = torch.from_numpy(groups).to(maps.device)
        filled = [
            (k, int(g)) for k, one in enumerate(maps) for g in np.unique(groups[_above_zero(one)])
        ]
        at_once = max(1, _WALKED // groups.size)
        for start in range(0, len(filled), at_once):
            chosen = filled[start : start + at_once]
            parts = torch.stack([maps[k] * (members == g) for k, g in chosen])
            walked = self.walk(parts[None], edges[None])
            for (k, g), piece in zip(chosen, walked.split(1, 1), strict=True):
                large = functional.interpolate(
                    piece, scale_factor=stride, mode="bilinear", align_corners=False
                )[0, 0, : size_hw[0], : size_hw[1]]
                yield k * number + g, large.float().cpu().numpy()

    def _objects(
        self,
        owner: Int64[ndarray, "h w"],
        scores: Float32[ndarray, "h w"],
        classes: Sequence[int],
        num_groups: int,
    ) -> Iterator[tuple[int, float, Bool[ndarray, "h w"]]]:
        """Class, score and mask of each connected part of what a piece has won."""
        for number, window in enumerate(find_objects(owner + 1)):
            if window is None:
                continue
            parts, count = connected_parts(owner[window] == number)
            for part in range(1, count + 1):
                mask = np.zeros(owner.shape, bool)
                inside = mask[window]
                inside[...] = parts == part
                large = np.count_nonzero(inside) >= self.fragment_share * owner.size
                score = float(scores[window][inside].max()) if large else 0.0
                yield classes[number // num_groups], score, mask


def displacement_groups(
    displacements: Float[ndarray, "2 y x"], rounds: int = 300, weak_displacement: float = 2.5
) -> Int64[ndarray, "y x"]:
    """The group of each cell, 0, 1, ...; cells of one group have their centroid in one weak region.

    Args:
        displacements: down and right, in cells.
        rounds: see `TagInstances`.
        weak_displacement: likewise.
    """
    weak = np.hypot(*displacements.astype(np.float64)) < weak_displacement
    regions, _ = connected_parts(weak)
    rows, columns = _centroids(displacements.astype(np.float64), rounds)
    _, groups = np.unique(regions[rows, columns], return_inverse=True)
    return groups.reshape(weak.shape).astype(np.int64)


def _centroids(field: Float[ndarray, "2 y x"], rounds: int) -> Int64[ndarray, "2 y x"]:
    """Where each cell is after it has followed the field, which is bilinear between cells."""
    _, height, width = field.shape
    flat, limits = field.reshape(2, -1), np.array([[height - 1], [width - 1]], float)
    points = np.indices((height, width), float).reshape(2, -1)
    for _ in range(rounds):
        low = np.floor(points).astype(np.int64)
        down, right = points - low  # shares of the cells below and to the right
        top, left = low
        bottom, far = np.ceil(points).astype(np.int64)
        step = (
            flat[:, bottom * width + far] * down * right
            + flat[:, bottom * width + left] * down * (1 - right)
            + flat[:, top * width + far] * (1 - down) * right
            + flat[:, top * width + left] * (1 - down) * (1 - right)
        )
        moved = np.clip(points + step, 0, limits)
        if np.array_equal(moved, points):
            break
        points = moved
    return np.rint(points).astype(np.int64).reshape(2, height, width)


def _above_zero(plane: Tensor) -> Bool[ndarray, "y x"]:
    return (plane > 0).cpu().numpy()


def join_objects(found: Iterable[tuple[int, float, Bool[ndarray, "h w"]]]) -> FoundInstances:
    """The objects as one record; each mask is encoded before the next is made."""
    entries = [
        (class_index, score, mask_extent(mask), encode_mask(mask))
        for class_index, score, mask in found
    ]
    return FoundInstances(
        np.array([box for _, _, box, _ in entries], np.float32).reshape(-1, 4),
        np.array([class_index for class_index, *_ in entries], np.int64),
        np.array([score for _, score, _, _ in entries], np.float32),
        tuple(counts for *_, counts in entries),
    )


def _check(
    maps: Tensor,
    classes: Sequence[int],
    edges: Tensor,
    displacements: Tensor,
    size_hw: tuple[int, int],
    stride: int,
) -> None:
    if min(size_hw) < 1 or stride < 1:
        raise ValueError(f"size_hw and stride must be 1 or more, got {size_hw} and {stride}")
    height, width = (-(-side // stride) for side in size_hw)
    for name, tensor, leading in (
        ("maps", maps, (len(classes),)),
        ("edges", edges, ()),
        ("displacements", displacements, (2,)),
    ):
        shape = (*leading, height, width)
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floating {shape} for an image of {tuple(size_hw)} and stride "
                f"{stride}, got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if not bool(displacements.isfinite().all() and maps.isfinite().all() and (maps >= 0).all()):
        raise ValueError("maps must be finite and not negative, and displacements finite")
