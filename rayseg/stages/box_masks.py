"""Masks of objects from their maps: one binary mask an object, one semantic mask an image."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rayseg.attribution import MISSED, enlarge_grid
from rayseg.boxes import box_problem
from rayseg.images import decode_image
from rayseg.palette import encode_labels
from rayseg.records import IGNORE, LabelMap
from rayseg.refine import BoxMask, ProposalRefinement, semantic_labels
from rayseg.refine.mask_proposals import SuperpixelProposals, read_proposals
from rayseg.rle import encode_mask
from rayseg.stages.masks import image_paths
from rayseg.stages.rows import Row, Rows, outcome
from rayseg.store import Folder, read_file, unpack_grid

ENDINGS = (".json", ".npz", ".mat", ".png")
"""Of the files that hold an image's mask proposals."""

logger = logging.getLogger(__name__)


class BoxRefiner(Protocol):
    """What refiners of box maps have in common: image, maps and boxes to masks."""

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float[ndarray, "o h w"],
        boxes_xyxy: Float[ndarray, "o 4"],
    ) -> list[BoxMask]:
        """One mask an object."""


@dataclass(frozen=True)
class FolderProposals:
    """Mask proposals that others made.

    Attributes:
        folder: holds ``<id>.json``, ``.npz``, ``.mat`` or ``.png`` of each image.
    """

    folder: Folder

    def __call__(self, id_: str, image: UInt8[ndarray, "h w 3"]) -> Bool[ndarray, "p h w"]:
        """The proposals of an image.

        Raises:
            ValueError: there are none, or they are of another size.
        """
        for ending in ENDINGS:
            data = read_file(self.folder.path(f"{id_}{ending}"))
            if data is not None:
                return read_proposals(data, ending, image.shape[:2])
        wanted = ", ".join(ENDINGS)
        raise ValueError(f"mask proposals of {id_!r} must lie in {self.folder} as {wanted}")


@dataclass(frozen=True)
class OwnProposals:
    """Mask proposals from superpixels.

    Attributes:
        superpixels: how they are made.
    """

    superpixels: SuperpixelProposals

    def __call__(self, id_: str, image: UInt8[ndarray, "h w 3"]) -> Bool[ndarray, "p h w"]:
        """The proposals of an image."""
        del id_  # the picture alone says them
        return self.superpixels(image)


class RefineBoxMaps:
    """Rows of BOX_MAPS_SCHEMA to rows of INSTANCES_SCHEMA.

    An object that the detector never finds gets the refiner's answer to an empty map; one whose box
    names no pixels, or whose class the detector does not know, keeps its status and has no mask.

    Args:
        refiner: image, maps and boxes to masks.
        manifest: where the images' paths stand.
        proposals: of masks; None for none.
        refinement: what is made of them.
        max_pixels: as `DecodeImages` has it.
    """

    def __init__(
        self,
        refiner: BoxRefiner,
        manifest: Folder,
        proposals: FolderProposals | OwnProposals | None = None,
        refinement: ProposalRefinement | None = None,
        max_pixels: int = 50_000_000,
    ):
        self.refiner = refiner
        self.proposals = proposals
        self.refinement = refinement or ProposalRefinement()
        self.max_pixels = max_pixels
        self.paths = image_paths(manifest)

    def __call__(self, rows: Rows) -> Rows:
        """One row each; a row without maps keeps its status and reason."""
        return [self._refine(row) if row["status"] == "ok" else outcome(row) for row in rows]

    def _refine(self, row: Row) -> Row:
        start = time.perf_counter()
        try:
            image = decode_image(read_file(self.paths[row["id"]]), self.max_pixels).pixels
            made = self._masks(row, image)
        except Exception as error:
            logger.warning("no masks for %s: %s", row["id"], error)
            return outcome(row, f"{type(error).__name__}: {error}")
        return outcome(row) | made | {"seconds": time.perf_counter() - start}

    def _masks(self, row: Row, image: UInt8[ndarray, "h w 3"]) -> Row:
        size_hw = (image.shape[0], image.shape[1])
        boxes = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
        good = [
            i
            for i, status in enumerate(row["object_status"])
            if status in ("ok", MISSED) and not box_problem(boxes[i], size_hw)
        ]
        masks = self._refined(row["id"], image, _maps(row, good, size_hw), boxes[good])
        classes = [row["classes"][i] for i in good]
        labels = LabelMap(row["id"], semantic_labels(masks, boxes[good], classes, size_hw)).labels
        by_place = dict(zip(good, masks, strict=True))
        notes = {mask.note for mask in masks} - {""}
        return {
            "status": "ok",
            "note": "; ".join(filter(None, [row["note"], *sorted(notes)])),
            "labels": encode_labels(labels),
            "ignored": float((labels == IGNORE).mean()),
            "boxes_xyxy": row["boxes_xyxy"],
            "classes": row["classes"],
            "object_status": row["object_status"],
            "scores": [1.0] * len(boxes),
            "foreground": [_counts(by_place.get(i), "foreground") for i in range(len(boxes))],
            "possible": [_counts(by_place.get(i), "possible") for i in range(len(boxes))],
        }

    def _refined(
        self,
        id_: str,
        image: UInt8[ndarray, "h w 3"],
        maps: Float[ndarray, "o h w"],
        boxes_xyxy: Float[ndarray, "o 4"],
    ) -> Sequence[BoxMask]:
        masks = self.refiner(image, maps, boxes_xyxy) if len(boxes_xyxy) else []
        if not self.proposals or not masks:
            return masks
        proposals = self.proposals(id_, image)
        return [
            self.refinement(mask, box, proposals)
            for mask, box in zip(masks, boxes_xyxy, strict=True)
        ]


def _maps(row: Row, places: Sequence[int], size_hw: tuple[int, int]) -> Float[ndarray, "o h w"]:
    """The objects' maps at the image's size."""
    grids = [torch.from_numpy(unpack_grid(row["maps"][i])) for i in places]
    maps = [enlarge_grid(grid, size_hw).numpy() for grid in grids]
    return np.stack(maps) if maps else np.zeros((0, *size_hw), np.float32)


def _counts(mask: BoxMask | None, part: str) -> bytes:
    return encode_mask(getattr(mask, part)) if mask is not None else b""
