"""True masks of images, checked at the border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from rayseg.palette import decode_labels
from rayseg.records import IGNORE
from rayseg.store import Folder, read_file, read_manifest


class Truths:
    """True masks of a manifest's images, by id.

    Args:
        manifest: names the mask of each image that has one.
        split: only its images; empty means all.
        ids: only these; None means all.
    """

    def __init__(self, manifest: Folder, split: str = "", ids: Sequence[str] | None = None):
        opened = read_manifest(manifest).select(split, ids)
        self.classes = opened.classes
        self.num_classes = len(opened.classes)
        table = opened.table.select(["id", "mask_path"])
        self.paths = {
            id_: path for id_, path in zip(*table.to_pydict().values(), strict=True) if path
        }

    def rows(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that have a result and a true mask to hold it against."""
        return [row for row in rows if row["status"] == "ok" and row["id"] in self.paths]

    def of(self, row: Mapping[str, Any]) -> UInt8[ndarray, "h w"]:
        """The true labels of a row's image.

        Raises:
            ValueError: the mask is missing, no mask, of another size or with labels of no class.
        """
        path, size_hw = self.paths[row["id"]], (row["height"], row["width"])
        data = read_file(path)
        if data is None:
            raise ValueError(f"true mask {path} is missing")
        try:
            labels = decode_labels(data)
        except ValueError as error:
            raise ValueError(f"true mask {path}: {error}") from None
        if labels.shape != size_hw:
            raise ValueError(f"true mask {path} must be {size_hw} as its image, got {labels.shape}")
        top = int(labels[labels != IGNORE].max(initial=0))
        if top > self.num_classes:
            raise ValueError(
                f"true mask {path} must hold labels up to {self.num_classes} classes, got {top}"
            )
        return labels
