"""Masks of objects refined with mask proposals, such as those of MCG, and proposals of our own.

For a mask T and proposals m_i (Lee's dissertation, eq. 5.4),

    T_r = union of m_i for i in S,    S = {i | m_i in T} and argmax_i IoU(m_i, T)

Source: Lee et al., "BBAM", CVPR 2021; the authors' tools/BBAM/make_annotation/BBAM_plus_mcg.py.
MCG: Arbelaez et al., "Multiscale Combinatorial Grouping", CVPR 2014. Its files are rare; proposals
from anywhere are read by `read_proposals`, and `SuperpixelProposals` makes some.
"""

from __future__ import annotations  # skimage.graph is slow to load, and named here only

import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import skimage
from jaxtyping import Bool, Float, Int, Int64, UInt8
from numpy import ndarray
from PIL import Image
from scipy.io import loadmat

from rayseg.records.boxes import box_areas
from rayseg.records.rle import run_lengths
from rayseg.refine.box_masks import BoxMask, Place, box_slices
from rayseg.refine.lattice import check_image
from rayseg.refine.proposals import Proposals


@dataclass(frozen=True)
class ProposalRefinement:
    """The best proposal of a box, together with all proposals that lie in the object's mask.

    Both masks of an object are refined so, the one of what is possible is joined with the other,
    and both are cut to the box. A mask for which there is no best proposal stays as it is.
    The authors take the mask of their lower threshold before it is joined with the sure one.

    Attributes:
        min_side: A box of fewer square pixels than a square of this side is left alone.
        in_box: The best proposal must have more than this share of itself in the box.
        in_mask: The other proposals must have more than this share of themselves in the mask.
        whole_cells: A proposal that holds a cell wholly outside the box is left out. A cell is the
            pixels that the same proposals hold; the authors require this of superpixels.
        iou: How pixels are counted. ``coordinates`` is the authors' code, where a pixel counts as
            its row + its column, in IoU and in both shares, so that what lies low and on the right
            decides; it adds the result of numpy.where instead of its length.
    """

    min_side: int = 32
    in_box: float = 0.95
    in_mask: float = 0.95
    whole_cells: bool = True
    iou: Literal["true", "coordinates"] = "true"

    def __post_init__(self) -> None:
        if self.iou not in {"true", "coordinates"}:
            raise ValueError(f"iou must be 'true' or 'coordinates', got {self.iou!r}")
        if self.min_side < 0 or not (0 <= self.in_box <= 1 and 0 <= self.in_mask <= 1):
            raise ValueError(
                "min_side must not be negative, in_box and in_mask must lie in [0, 1], "
                f"got {self.min_side}, {self.in_box} and {self.in_mask}"
            )

    @classmethod
    def official(cls) -> Self:
        """The values of the authors' public code, with a true IoU."""
        return cls()

    @classmethod
    def as_written(cls) -> Self:
        """Equation 5.4: any box, any proposal for the best, only whole ones in the mask."""
        return cls(min_side=0, in_box=0, in_mask=1, whole_cells=False)

    def __call__(
        self, mask: BoxMask, box_xyxy: Float[ndarray, " 4"], proposals: Proposals
    ) -> BoxMask:
        """The refined mask; the same one for a small box or where no proposal fits."""
        return self.on(proposals)(mask, box_xyxy)

    def on(self, proposals: Proposals) -> Callable[[BoxMask, Float[ndarray, " 4"]], BoxMask]:
        """The same for one object of an image after the other."""
        everywhere = np.ones(proposals.cells.shape, bool)
        areas = proposals.sums(self._counts(proposals, everywhere))
        return partial(self._refine, proposals, areas)

    def _refine(
        self,
        proposals: Proposals,
        areas: Int64[ndarray, " p"],
        mask: BoxMask,
        box_xyxy: Float[ndarray, " 4"],
    ) -> BoxMask:
        size_hw = proposals.cells.shape
        if mask.foreground.shape != size_hw:
            raise ValueError(
                f"proposals must be of the mask's size, {mask.foreground.shape}, got {size_hw}"
            )
        if box_areas(box_xyxy[None])[0] < self.min_side**2:
            return mask
        place = box_slices(box_xyxy, size_hw)
        inside = np.zeros(size_hw, bool)
        inside[place] = True
        allowed = self._allowed(proposals, place)
        kept, areas = replace(proposals, holds=proposals.holds[allowed]), areas[allowed]
        fitting = _exceeds(kept.sums(self._counts(kept, inside)), areas, self.in_box)
        foreground, possible = (
            self._joined(one, inside, kept, areas, fitting)
            for one in (mask.foreground, mask.possible)
        )
        return replace(mask, foreground=foreground, possible=possible | foreground)

    def _joined(
        self,
        mask: Bool[ndarray, "h w"],
        inside: Bool[ndarray, "h w"],
        proposals: Proposals,
        areas: Int64[ndarray, " p"],
        fitting: Bool[ndarray, " p"],
    ) -> Bool[ndarray, "h w"]:
        counts = self._counts(proposals, mask)
        shared = proposals.sums(counts)
        overlaps = fitting * shared / np.maximum(counts.sum() + areas - shared, 1)
        if not overlaps.any():
            return mask
        joined = proposals.holds[_exceeds(shared, areas, self.in_mask)].any(0)
        return (joined | proposals.holds[overlaps.argmax()])[proposals.cells] & inside

    def _counts(self, proposals: Proposals, mask: Bool[ndarray, "h w"]) -> Int64[ndarray, " cells"]:
        """How much of a mask lies in each cell."""
        number = proposals.holds.shape[1]
        if self.iou == "true":
            return np.bincount(proposals.cells[mask], minlength=number)
        rows, columns = np.nonzero(mask)
        # sums of doubles, exact below 2^53
        return np.bincount(proposals.cells[mask], rows + columns, number).astype(np.int64)

    def _allowed(self, proposals: Proposals, place: Place) -> Bool[ndarray, " p"]:
        foreign = np.full(proposals.holds.shape[1], self.whole_cells)
        foreign[proposals.cells[place]] = False
        return np.logical_not(proposals.holds[:, foreign].any(1))


def _exceeds(
    part: Int64[ndarray, " p"], whole: Int64[ndarray, " p"], share: float
) -> Bool[ndarray, " p"]:
    """Whether a part is more than that share of the whole; of 1, all of it."""
    return (whole > 0) & ((part == whole) | (part / np.maximum(whole, 1) > share))


@dataclass(frozen=True)
class SuperpixelProposals:
    """Proposals from a hierarchy of superpixels: its regions, and pairs of neighbours.

    Superpixels of Felzenszwalb and Huttenlocher (IJCV 2004) are merged two by two, those first
    whose merging costs least. The cost of regions of a and b pixels with mean colours u and v in
    CIELAB and a common border of l pixel sides is that of Koepfler, Lopez and Morel, "A multiscale
    algorithm for image segmentation by variational method" (SIAM J. Numer. Anal., 1994):

        a b / (a + b) |u - v|^2 / l

    Every region that ever is, and every two that are neighbours at the same time, are a proposal:
    MCG, too, combines regions of its hierarchy. The same image gives the same proposals.

    Attributes:
        scale: Scale of Felzenszwalb's method; greater gives larger superpixels. On 24 train objects
            of VOC the best proposal has a mean IoU of .76, .78 and .73 at scales 60, 100 and 200
            (of 150 pixels at least), against .71 with 400 superpixels of SLIC.
        sigma: Deviation in pixels of the blur before the segmentation.
        min_size: Pixels of the smallest superpixel.
        max_proposals: Number of proposals kept, those of the last mergings, which are the largest.
    """

    scale: float = 100
    sigma: float = 0.8
    min_size: int = 100
    max_proposals: int = 400

    def __post_init__(self) -> None:
        if self.scale <= 0 or self.sigma < 0 or min(self.min_size, self.max_proposals) < 1:
            raise ValueError(
                "scale, min_size and max_proposals must be positive and sigma not negative, got "
                f"{(self.scale, self.min_size, self.max_proposals)} and {self.sigma}"
            )

    def __call__(self, image: UInt8[ndarray, "h w 3"]) -> Proposals:
        """Different, not empty proposals, the finest first."""
        check_image(image)
        superpixels = skimage.segmentation.felzenszwalb(
            image, self.scale, self.sigma, self.min_size
        )
        groups = merge_regions(superpixels, skimage.color.rgb2lab(image), self.max_proposals)
        return Proposals.of_groups(superpixels, groups)


def merge_regions(
    superpixels: Int[ndarray, "h w"], colours: Float[ndarray, "h w 3"], most: int | None = None
) -> list[list[int]]:
    """The superpixels of every region and of every pair of neighbours, in order of merging.

    Args:
        colours: in which distances mean something.
        most: how many to keep, the last; None keeps all.
    """
    graph = _region_graph(superpixels, colours)
    groups = deque(([int(node)] for node in graph.nodes), most)

    def record(graph: skimage.graph.RAG, source: int, target: int) -> None:
        first, second = graph.nodes[source], graph.nodes[target]
        for node, other in ((source, target), (target, source)):
            groups.extend(
                graph.nodes[node]["labels"] + graph.nodes[neighbour]["labels"]
                for neighbour in graph.neighbors(node)
                if neighbour != other
            )
        groups.append(first["labels"] + second["labels"])
        second["colour"] = second["colour"] + first["colour"]
        second["size"] += first["size"]

    def join(
        graph: skimage.graph.RAG, source: int, target: int, neighbour: int
    ) -> dict[str, float]:
        border = sum(
            graph[node][neighbour]["border"]
            for node in (source, target)
            if graph.has_edge(node, neighbour)
        )
        return {"border": border, "weight": _cost(graph, target, neighbour, border)}

    skimage.graph.merge_hierarchical(
        superpixels,
        graph,
        thresh=np.inf,
        rag_copy=False,
        in_place_merge=True,
        merge_func=record,
        weight_func=join,
    )
    return list(groups)


def _region_graph(
    superpixels: Int[ndarray, "h w"], colours: Float[ndarray, "h w 3"]
) -> skimage.graph.RAG:
    """Neighbours by a side; nodes have a size and a sum of colours, edges a border and a cost."""
    graph = skimage.graph.RAG()
    sizes = np.bincount(superpixels.ravel())
    sums = [np.bincount(superpixels.ravel(), plane.ravel()) for plane in np.moveaxis(colours, 2, 0)]
    for node, (size, colour) in enumerate(zip(sizes, np.stack(sums, 1), strict=True)):
        graph.add_node(node, labels=[node], size=int(size), colour=colour)
    sides = [
        np.stack([a.ravel(), b.ravel()])
        for a, b in ((superpixels[:-1], superpixels[1:]), (superpixels[:, :-1], superpixels[:, 1:]))
    ]
    pairs = np.sort(np.concatenate(sides, axis=1), axis=0)  # (2, sides)
    pairs, borders = np.unique(pairs[:, pairs[0] != pairs[1]], axis=1, return_counts=True)
    for (first, second), border in zip(pairs.T.tolist(), borders.tolist(), strict=True):
        graph.add_edge(first, second, border=border, weight=_cost(graph, first, second, border))
    return graph


def _cost(graph: skimage.graph.RAG, first: int, second: int, border: float) -> float:
    a, b = graph.nodes[first], graph.nodes[second]
    distance = ((a["colour"] / a["size"] - b["colour"] / b["size"]) ** 2).sum()
    return float(a["size"] * b["size"] / (a["size"] + b["size"]) * distance / border)


def read_proposals(
    data: bytes, suffix: str, size_hw: tuple[int, int], max_proposals: int = 2000
) -> Proposals:
    """Mask proposals of one image that others made.

    Args:
        suffix: which says what it is: ``.json``, a list of COCO's RLE objects, counts compressed or
            not; ``.npz``, one array, bool (p, h, w); ``.png``, superpixels, whose number each pixel
            is; ``.mat``, MCG's own file of superpixels and the lists of them that are proposals.
        max_proposals: how many are kept, the first, which in MCG's files are the best; the authors
            read all, which for a large image is gigabytes.

    Raises:
        ValueError: the file is broken or holds something else, or masks of another size.
    """
    readers = {".json": _from_json, ".npz": _from_npz, ".png": _from_png, ".mat": _from_mat}
    if suffix not in readers:
        raise ValueError(f"suffix must be one of {', '.join(readers)}, got {suffix!r}")
    try:
        return readers[suffix](data, size_hw, max_proposals)
    except _WrongSizeError:
        raise
    except Exception as error:
        # decoders of four libraries raise whatever they like on a file that was cut short
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"proposals must be a {suffix} that can be read, got {reason}") from error


class _WrongSizeError(ValueError):
    """The proposals are of another image."""


def _check_size(found: Sequence[int], size_hw: tuple[int, int]) -> None:
    if tuple(found) != tuple(size_hw):
        raise _WrongSizeError(
            f"proposals must have the size of the image, {tuple(size_hw)} pixels (h, w), "
            f"got {tuple(found)}"
        )


def _from_json(data: bytes, size_hw: tuple[int, int], most: int) -> Proposals:
    objects = json.loads(data)
    if not isinstance(objects, list):
        raise ValueError(f"{type(objects).__name__} where a list of RLE objects must be")
    return Proposals.of_masks(_CodedMasks(objects[:most], size_hw), size_hw)


@dataclass(frozen=True)
class _CodedMasks:
    """Masks that are decoded when they are gone through."""

    objects: Sequence[dict[str, Any]]
    size_hw: tuple[int, int]

    def __iter__(self) -> Iterator[Bool[ndarray, "h w"]]:
        for found in self.objects:
            _check_size(found["size"], self.size_hw)
            yield _from_counts(found["counts"], self.size_hw)


def _from_counts(counts: str | list[int], size_hw: tuple[int, int]) -> Bool[ndarray, "h w"]:
    lengths = run_lengths(counts.encode("ascii")) if isinstance(counts, str) else counts
    if sum(lengths) != size_hw[0] * size_hw[1]:
        raise ValueError(f"counts of {sum(lengths)} pixels where {size_hw[0] * size_hw[1]} must be")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(size_hw, order="F")


def _from_npz(data: bytes, size_hw: tuple[int, int], most: int) -> Proposals:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise ValueError(f"{len(arrays.files)} arrays where one must be")
        masks = arrays[arrays.files[0]]
    if masks.dtype != np.bool_ or masks.ndim != 3:
        raise ValueError(f"{masks.dtype.name} {masks.shape} where bool (p, h, w) must be")
    _check_size(masks.shape[1:], size_hw)
    return Proposals.of_masks(masks[:most], size_hw)


def _from_png(data: bytes, size_hw: tuple[int, int], most: int) -> Proposals:
    with Image.open(io.BytesIO(data)) as picture:
        superpixels = np.array(picture)
    if superpixels.ndim != 2:
        raise ValueError(f"colours {superpixels.shape} where one number a pixel must be")
    _check_size(superpixels.shape, size_hw)
    numbers = np.unique(superpixels)
    return Proposals.of_groups(
        np.searchsorted(numbers, superpixels), [[i] for i in range(len(numbers))][:most]
    )


def _from_mat(data: bytes, size_hw: tuple[int, int], most: int) -> Proposals:
    content: dict[str, Any] = loadmat(io.BytesIO(data), variable_names=["superpixels", "labels"])
    superpixels = content["superpixels"].astype(np.int64)
    _check_size(superpixels.shape, size_hw)
    return Proposals.of_groups(
        superpixels, [cell.ravel().astype(np.int64) for cell in content["labels"].ravel()[:most]]
    )
