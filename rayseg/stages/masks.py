"""Masks from localization maps by a refiner."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from jaxtyping import Float, UInt8
from numpy import ndarray

from rayseg.images import decode_image
from rayseg.palette import encode_labels
from rayseg.records import IGNORE, LabelMap
from rayseg.stages.rows import Row, Rows, outcome
from rayseg.stages.seeds import enlarge
from rayseg.store import Folder, read_file, read_manifest, unpack_seeds

logger = logging.getLogger(__name__)


class Refiner(Protocol):
    """What refiners have in common: (image, maps, classes) to labels."""

    def __call__(
        self,
        image: UInt8[ndarray, "h w 3"],
        maps: Float[ndarray, "k h w"],
        classes: Sequence[int],
    ) -> UInt8[ndarray, "h w"]:
        """Labels 0, class index + 1 or 255 of each pixel."""


class RefineSeeds:
    """Rows of SEEDS_SCHEMA to rows of MASKS_SCHEMA, by one refiner.

    Args:
        refiner: maps to labels.
        manifest: where the images' paths stand.
        max_pixels: as `DecodeImages` has it.
    """

    def __init__(self, refiner: Refiner, manifest: Folder, max_pixels: int = 50_000_000):
        self.refiner = refiner
        self.max_pixels = max_pixels
        self.paths = _image_paths(manifest)

    def __call__(self, rows: Rows) -> Rows:
        """One mask a row; a row without seeds keeps its status and reason."""
        return [self._refine(row) if row["status"] == "ok" else outcome(row) for row in rows]

    def _refine(self, row: Row) -> Row:
        start = time.perf_counter()
        try:
            decoded = decode_image(read_file(self.paths[row["id"]]), self.max_pixels)
            seeds = unpack_seeds(row)
            labels = self.refiner(decoded.pixels, enlarge(seeds), seeds.classes)
            mask = LabelMap(row["id"], labels)
        except Exception as error:
            logger.warning("no mask for %s: %s", row["id"], error)
            return outcome(row, f"{type(error).__name__}: {error}")
        return outcome(row) | {
            "status": "ok",
            "labels": encode_labels(mask.labels),
            "ignored": float((mask.labels == IGNORE).mean()),
            "seconds": time.perf_counter() - start,
        }


@lru_cache(maxsize=1)
def _image_paths(manifest: Folder) -> dict[str, str]:
    """Read once a process: tasks are many and short, the manifest of a large data set is long."""
    table = read_manifest(manifest).table.select(["id", "path"])
    return dict(zip(*table.to_pydict().values(), strict=True))
