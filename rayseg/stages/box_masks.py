"""Masks of objects from their maps: one binary mask an object, one semantic mask an image."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rayseg.attribution import MISSED, enlarge_grid
from rayseg.records import IGNORE
from rayseg.records.boxes import box_problem
from rayseg.records.file_names import file_stem
from rayseg.records.palette import encode_labels
from rayseg.records.rle import decode_mask, encode_mask
from rayseg.refine import BoxMask, ProposalRefinement, semantic_labels
from rayseg.refine.box_masks import MaskMaker
from rayseg.refine.mask_proposals import SuperpixelProposals, read_proposals
from rayseg.refine.proposals import Proposals
from rayseg.stages.decoding import SeenImages
from rayseg.stages.rows import Row, Rows, one_by_one
from rayseg.store import Folder, read_file, read_manifest, unpack_grid

ENDINGS = (".json", ".npz", ".mat", ".png")
"""Of the files that hold an image's mask proposals."""
NO_MASK = "no object has a mask"


class BoxRefiner(Protocol):
    """What refiners of box maps have in common: image, maps and boxes to masks."""

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float[ndarray, "o h w"],
        boxes_xyxy: Float[ndarray, "o 4"],
    ) -> list[BoxMask]:
        """One mask an object."""

    def on(self, image: UInt8[ndarray, "h w 3"]) -> MaskMaker:
        """The same for one object of an image after the other."""


@dataclass(frozen=True)
class FolderProposals:
    """Mask proposals that others made.

    Attributes:
        folder: holds ``<id>.json``, ``.npz``, ``.mat`` or ``.png`` of each image.
    """

    folder: Folder

    def __call__(self, id_: str, image: UInt8[ndarray, "h w 3"]) -> Proposals:
        """The proposals of an image.

        Raises:
            ValueError: there are none, or they are of another size.
        """
        for ending in ENDINGS:
            data = read_file(self.folder.path(f"{file_stem(id_)}{ending}"))
            if data is not None:
                return read_proposals(data, ending, image.shape[:2])
        wanted = ", ".join(ENDINGS)
        raise ValueError(f"mask proposals of {id_!r} must lie in {self.folder} as {wanted}")


@dataclass(frozen=True)
class OwnProposals:
    """Mask proposals from superpixels."""

    superpixels: SuperpixelProposals

    def __call__(self, id_: str, image: UInt8[ndarray, "h w 3"]) -> Proposals:
        """The proposals of an image."""
        del id_  # the picture alone says them
        return self.superpixels(image)


@dataclass(frozen=True)
class CodedMask:
    """A `BoxMask` as run-length codes, which take a thousandth of its memory or less.

    Attributes:
        foreground_counts: COCO's counts of what is surely the object.
        possible_counts: ... of what may be.
        note: what is to be known of it, empty if nothing.
        size_hw: height and width of the image.
    """

    foreground_counts: bytes
    possible_counts: bytes
    note: str
    size_hw: tuple[int, int]

    @classmethod
    def of(cls, mask: BoxMask) -> Self:
        """The codes of a mask."""
        size_hw = (mask.foreground.shape[0], mask.foreground.shape[1])
        return cls(encode_mask(mask.foreground), encode_mask(mask.possible), mask.note, size_hw)

    @property
    def foreground(self) -> Bool[ndarray, "h w"]:
        """Surely the object, decoded anew each time."""
        return decode_mask(self.foreground_counts, self.size_hw)

    @property
    def possible(self) -> Bool[ndarray, "h w"]:
        """What may be the object, decoded anew each time."""
        return decode_mask(self.possible_counts, self.size_hw)


class RefineBoxMaps:
    """Rows of BOX_MAPS_SCHEMA to rows of INSTANCES_SCHEMA.

    An object that the detector never finds gets the refiner's answer to an empty map; one whose box
    names no pixels, or that has no map for another reason, such as a class that the detector does
    not know, keeps its status and has no mask. In the boxes of those that name pixels, and of
    crowds, the semantic mask is 255 where it would be background. A row in which no object has a
    mask has status `empty` and no semantic mask.

    Objects are refined one after the other: all maps and masks of a large image with many objects
    would take gigabytes.

    Args:
        manifest: says where the images lie, at which size they are seen, and what is a crowd.
        proposals: of masks; None for none.
    """

    def __init__(
        self,
        refiner: BoxRefiner,
        manifest: Folder,
        proposals: FolderProposals | OwnProposals | None = None,
        refinement: ProposalRefinement | None = None,
        keep_nested: bool = True,
    ):
        self.refiner = refiner
        self.proposals = proposals
        self.refinement = refinement or ProposalRefinement()
        self.keep_nested = keep_nested
        self.images = SeenImages(manifest)
        self.crowds = crowd_boxes(manifest)

    def __call__(self, rows: Rows) -> Rows:
        """One row each; a row without maps keeps its status and reason."""
        return one_by_one(rows, self._masks, "masks", ready="ok")

    def _masks(self, row: Row) -> Row:
        image = self.images.pixels(row["id"])
        size_hw = (image.shape[0], image.shape[1])
        boxes = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
        sound = [i for i, box in enumerate(boxes) if not box_problem(box, size_hw)]
        mapped = [i for i in sound if row["object_status"][i] in ("ok", MISSED)]
        masks = self._refined(row, image, boxes, mapped)
        notes = {mask.note for mask in masks.values()} | ({NO_MASK} if not masks else set())
        coded = [masks.get(i) for i in range(len(boxes))]
        return self._semantic(row, boxes, sound, masks, size_hw) | {
            "note": "; ".join(filter(None, [row["note"], *sorted(notes)])),
            "boxes_xyxy": row["boxes_xyxy"],
            "classes": row["classes"],
            "object_status": row["object_status"],
            "places": row.get("places") or [],  # none in rows of before
            "scores": [1.0] * len(boxes),
            "foreground": [one.foreground_counts if one else b"" for one in coded],
            "possible": [one.possible_counts if one else b"" for one in coded],
        }

    def _refined(
        self,
        row: Row,
        image: UInt8[ndarray, "h w 3"],
        boxes_xyxy: Float[ndarray, "o 4"],
        places: Sequence[int],
    ) -> dict[int, CodedMask]:
        """The masks of the objects in these places, by place."""
        if not places:
            return {}
        make = self.refiner.on(image)
        proposals = self.proposals(row["id"], image) if self.proposals else None
        refine = self.refinement.on(proposals) if proposals is not None else None
        masks = {}
        for i in places:
            grid = torch.from_numpy(unpack_grid(row["maps"][i]))
            map_ = enlarge_grid(grid, (image.shape[0], image.shape[1])).numpy()
            mask = make(map_, boxes_xyxy[i])
            masks[i] = CodedMask.of(refine(mask, boxes_xyxy[i]) if refine else mask)
        return masks

    def _semantic(
        self,
        row: Row,
        boxes_xyxy: Float[ndarray, "o 4"],
        sound: Collection[int],
        masks: dict[int, CodedMask],
        size_hw: tuple[int, int],
    ) -> Row:
        """Status and semantic mask."""
        if not masks:
            return {"status": "empty"}
        crowds = self.crowds.get(row["id"], boxes_xyxy[:0])
        lacking = [boxes_xyxy[i] for i in sound if i not in masks]
        lacking += [box for box in crowds if not box_problem(box, size_hw)]
        labels = semantic_labels(
            list(masks.values()),
            boxes_xyxy[list(masks)],
            [row["classes"][i] for i in masks],
            size_hw,
            self.keep_nested,
            np.array(lacking, np.float32).reshape(-1, 4),
        )
        return {
            "status": "ok",
            "labels": encode_labels(labels),
            "ignored": float((labels == IGNORE).mean()),
        }


@lru_cache(maxsize=1)
def crowd_boxes(manifest: Folder) -> dict[str, Float[ndarray, "o 4"]]:
    """The boxes of crowds in pixels, by the id of each image that has some; read once a process."""
    table = read_manifest(manifest).table.select(["id", "boxes_xyxy", "crowds"])
    rows = table.filter([bool(crowds) for crowds in table.column("crowds").to_pylist()])
    return {
        row["id"]: np.array(row["boxes_xyxy"], np.float32)[row["crowds"]]
        for row in rows.to_pylist()
    }
