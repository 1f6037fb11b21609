"""Masks from localization maps by a refiner."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from rayseg.labels import enlarge
from rayseg.networks import NETWORKS
from rayseg.records import IGNORE, LabelMap
from rayseg.records.file_names import file_stem
from rayseg.records.images import ImageError, decode_image
from rayseg.records.palette import encode_labels
from rayseg.refine.network_refiner import Prepared
from rayseg.stages.decoding import SeenImages
from rayseg.stages.rows import Row, Rows, choose_device, one_by_one
from rayseg.store import Folder, local_copy, pack_maps, read_file, read_manifest, unpack_seeds


class Refiner(Protocol):
    """What refiners have in common: (image, maps, classes) to labels."""

    def __call__(
        self, image: UInt8[ndarray, "h w 3"], maps: Float[ndarray, "k h w"], classes: Sequence[int]
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0, class index + 1 or 255 of each pixel."""


def network_kind(refiner: Refiner) -> str:
    """The kind of network that a refiner works on; empty for none.

    One that names a kind has ``prepare(network, device)``, which gives what is called.
    """
    return getattr(refiner, "network_kind", "")


def finds_objects(refiner: Refiner) -> bool:
    """Whether a refiner says which pixels are of which object.

    One that does has ``find``, once it is prepared, called as the refiner is.
    """
    return getattr(refiner, "finds_objects", False)


@dataclass(frozen=True)
class SaliencyMaps:
    """Saliency as extra supervision: a folder of grey maps and what to make of them.

    Attributes:
        folder: holds ``<id>.png`` or ``<id>.jpg`` of each image, of the image's size; for a photo
            that is seen smaller, of the photo's size or of that.
        agreement: labels and map, uint8, to labels.
    """

    folder: Folder
    agreement: Callable[[UInt8[ndarray, "h w"], UInt8[ndarray, "h w"]], UInt8[ndarray, "h w"]]

    def __call__(
        self, id_: str, labels: UInt8[ndarray, "h w"], seen_side: int = 0
    ) -> UInt8[ndarray, "h w"]:
        """The labels of an image after its map was heard.

        Args:
            id_: of the image.
            labels: as a refiner made them.
            seen_side: at which the image was seen, as `Sample` has it.

        Raises:
            ValueError: the map is missing, no picture, not grey or of another size.
        """
        addresses = [self.folder.path(f"{file_stem(id_)}{ending}") for ending in (".png", ".jpg")]
        found = ((address, read_file(address)) for address in addresses)
        address, data = next((one for one in found if one[1] is not None), (addresses[0], None))
        try:
            levels = decode_image(data, seen_side).pixels
        except ImageError as error:
            raise ValueError(f"saliency map {address}: {error}") from None
        if (levels != levels[..., :1]).any():
            raise ValueError(f"saliency map {address} must be grey, got colours")
        if levels.shape[:2] != labels.shape:
            raise ValueError(
                f"saliency map {address} must be {labels.shape} as its image, "
                f"got {levels.shape[:2]}"
            )
        return self.agreement(labels, np.ascontiguousarray(levels[..., 0]))


class RefineSeeds:
    """Rows of SEEDS_SCHEMA to rows of MASKS_SCHEMA, by one refiner.

    They are rows of INSTANCES_SCHEMA where the refiner finds objects; saliency changes their labels
    and no object. An image in which no object is found has status ok and its labels.
    Of one that works on a network rows of WALKED_SCHEMA, with what it saw.

    Args:
        manifest: says where the images lie, and at which size they are seen.
        saliency: maps that the labels must agree with; None for none.
    """

    def __init__(
        self,
        refiner: Refiner,
        manifest: Folder,
        saliency: SaliencyMaps | None = None,
        weights: str = "",
        device: str = "auto",
    ):
        self.refiner, self.finds_objects = refiner, finds_objects(refiner)
        if kind := network_kind(refiner):
            network = NETWORKS[kind].load(local_copy(weights), read_manifest(manifest).classes)
            self.refiner = refiner.prepare(network, choose_device(device))  # type: ignore[attr-defined]
        self.saliency = saliency
        self.images = SeenImages(manifest)

    def __call__(self, rows: Rows) -> Rows:
        """One mask a row; a row without seeds keeps its status and reason."""
        return one_by_one(rows, self._refine, "mask", ready="ok")

    def _refine(self, row: Row) -> Row:
        pixels = self.images.pixels(row["id"])
        seeds = unpack_seeds(row)
        given = pixels, enlarge(seeds), seeds.classes
        columns: Row = {}
        if isinstance(self.refiner, Prepared) and len(seeds.classes):
            notes = row["note"], self.refiner.note(seeds.size_hw)
            columns["note"] = "; ".join(filter(None, notes))
        if self.finds_objects:
            found = self.refiner.find(*given)  # type: ignore[attr-defined]
            labels = found.labels(pixels.shape[:2])
            columns |= found.scored().columns()
        elif isinstance(self.refiner, Prepared):
            labels, view = self.refiner.viewed(*given)
            if view is not None:
                columns[self.refiner.refiner.viewed_as] = pack_maps(view[None])[0]
        else:
            labels = self.refiner(*given)
        if self.saliency:
            labels = self.saliency(row["id"], labels, self.images.seen_side(row["id"]))
        return {
            "status": "ok",
            "labels": encode_labels(LabelMap(row["id"], labels).labels),
            "ignored": float((labels == IGNORE).mean()),
            **columns,
        }
