"""The stages of a job: each maps rows to rows and knows nothing of who moves them.

A stage loads what it needs once, when it is made, and is then called with batches of rows. One row
comes out for each row that goes in: what is wrong with one image is said in its own row.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch.nn import functional

from rayseg.attribution import Attribution, Localization
from rayseg.images import ImageError, decode_image
from rayseg.nets.classifier import load_classifier
from rayseg.palette import decode_labels, encode_labels
from rayseg.records import IGNORE, LabelMap, Seeds
from rayseg.scores import COCO_BOUNDS_PX, Confusion, SizeCounts, ThresholdSweep
from rayseg.store import (
    MAP_STRIDE,
    Folder,
    local_copy,
    pack_maps,
    read_file,
    read_manifest,
    unpack_seeds,
)

Row = dict[str, Any]
Rows = list[Row]

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


class DecodeImages:
    """Manifest rows to rows with pixels: `pixels` holds the RGB bytes, row by row.

    An image that cannot be used has status ``error`` and its reason, one without tags has status
    ``empty``; the others wait for theirs.
    """

    def __init__(self, max_pixels: int = 50_000_000):
        self.max_pixels = max_pixels

    def __call__(self, rows: Rows) -> Rows:
        """Reads the files of a batch side by side, since a remote store answers slowly."""
        with ThreadPoolExecutor(max_workers=8) as pool:
            files = pool.map(read_file, [row["path"] for row in rows])
        return [self._decode(row, data) for row, data in zip(rows, files, strict=True)]

    def _decode(self, row: Row, data: bytes | None) -> Row:
        kept = {name: row[name] for name in ("id", "height", "width")}
        kept |= {"status": "", "error": "", "note": "", "classes": list(row["tags"]), "pixels": b""}
        try:
            decoded = decode_image(data, self.max_pixels)
        except ImageError as error:
            return kept | {"status": "error", "error": f"{row['path']}: {error}"}
        height, width = decoded.pixels.shape[:2]
        kept |= {"height": height, "width": width, "pixels": decoded.pixels.tobytes()}
        if row["tags"]:
            return kept | {"note": decoded.note}
        return kept | {
            "status": "empty",
            "note": "; ".join(filter(None, [decoded.note, "no tags"])),
        }


class MakeSeeds:
    """Decoded rows to rows of SEEDS_SCHEMA, by one attribution method on one classifier.

    Args:
        method: the attribution method.
        weights: the classifier's safetensors file, a path or a URI.
        classes: names that the classifier must have been trained on.
        device: torch device of the network; ``auto`` takes CUDA where there is one.
        threads: threads of torch on the CPU; 0 leaves torch's choice.

    Raises:
        ValueError: the weights are of another network or other classes.
    """

    def __init__(
        self,
        method: Attribution,
        weights: str,
        classes: Sequence[str],
        device: str = "auto",
        threads: int = 0,
    ):
        if threads:
            torch.set_num_threads(threads)
        self.method = method
        network = load_classifier(local_copy(weights), classes).to(choose_device(device))
        self.network = method.prepare(network)

    def __call__(self, rows: Rows) -> Rows:
        """Runs the method on images of one size at a time; rows come back in their order."""
        done = {row["id"]: _outcome(row) for row in rows}
        ready = [row for row in rows if not row["status"]]
        for group in by_size(ready):
            done.update((row["id"], row) for row in self._localize(group))
        return [done[row["id"]] for row in rows]

    def _localize(self, rows: Rows) -> Rows:
        """Seeds of images of one size; a batch that fails is tried again in halves.

        Raises:
            torch.AcceleratorError: the device is lost; no image is to blame.
        """
        start = time.perf_counter()
        try:
            found = self.method.run(
                self.network, _stack(rows), [row["classes"] for row in rows], MAP_STRIDE
            )
            seeds = [_seeds_row(row, one) for row, one in zip(rows, found, strict=True)]
        except torch.AcceleratorError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        else:
            seconds = (time.perf_counter() - start) / len(rows)
            return [row | {"seconds": seconds} for row in seeds]
        # here the error is gone, and with it the tensors that its traceback kept alive
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(rows) == 1:
            logger.warning("no seeds for %s: %s", rows[0]["id"], reason)
            return [_outcome(rows[0], reason)]
        middle = len(rows) // 2
        return self._localize(rows[:middle]) + self._localize(rows[middle:])


def choose_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def by_size(rows: Rows) -> Iterator[Rows]:
    """The rows in groups of one image size, since only those fit into one batch."""

    def size(row: Row) -> tuple[int, int]:
        return row["height"], row["width"]

    for _, group in groupby(sorted(rows, key=size), key=size):
        yield list(group)


def _stack(rows: Rows) -> torch.Tensor:
    shape = (len(rows), rows[0]["height"], rows[0]["width"], 3)
    pixels = np.frombuffer(b"".join(row["pixels"] for row in rows), np.uint8)
    return torch.from_numpy(pixels.reshape(shape).copy())


def _outcome(row: Row, error: str = "") -> Row:
    """A row without a result: the status and reason that it has, or this error."""
    kept = {name: row[name] for name in ("id", "status", "error", "height", "width", "note")}
    return kept | ({"status": "error", "error": error} if error else {})


def _seeds_row(row: Row, found: Localization) -> Row:
    maps = found.maps.cpu().numpy()
    if not np.isfinite(maps).all():
        raise FloatingPointError("maps must be finite, got nan or infinity")
    return _outcome(row) | {
        "status": "ok",
        "classes": row["classes"],
        "maps": pack_maps(maps),
        "scores": found.scores.tolist(),
        "gains": found.gains.tolist(),
        "steps": found.steps,
    }


def enlarge(seeds: Seeds) -> Float[ndarray, "k h w"]:
    """The maps at the image's size, bilinear; stored cells lie over the pixels they came from."""
    if not seeds.classes:
        return np.zeros((0, *seeds.size_hw), np.float32)
    grown = functional.interpolate(
        torch.from_numpy(seeds.maps)[None],
        scale_factor=MAP_STRIDE,
        mode="bilinear",
        align_corners=False,
    )[0]
    return np.ascontiguousarray(grown[:, : seeds.size_hw[0], : seeds.size_hw[1]].numpy())


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
        return [self._refine(row) if row["status"] == "ok" else _outcome(row) for row in rows]

    def _refine(self, row: Row) -> Row:
        start = time.perf_counter()
        try:
            decoded = decode_image(read_file(self.paths[row["id"]]), self.max_pixels)
            seeds = unpack_seeds(row)
            labels = self.refiner(decoded.pixels, enlarge(seeds), seeds.classes)
            mask = LabelMap(row["id"], labels)
        except Exception as error:
            logger.warning("no mask for %s: %s", row["id"], error)
            return _outcome(row, f"{type(error).__name__}: {error}")
        return _outcome(row) | {
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

    def rows(self, rows: Rows) -> Rows:
        """Those that have a result and a true mask to hold it against."""
        return [row for row in rows if row["status"] == "ok" and row["id"] in self.paths]

    def of(self, row: Row) -> UInt8[ndarray, "h w"]:
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


class SweepSeeds:
    """Rows of SEEDS_SCHEMA to one row of counts for all background thresholds.

    Rows that are not ok, or whose image has no truth, are passed over; `skipped` lists the id and
    reason of each whose truth cannot be used.

    Args:
        truths: what to count against.
        thresholds: background values, ascending.
    """

    def __init__(self, truths: Truths, thresholds: Sequence[float]):
        self.truths = truths
        self.thresholds = tuple(thresholds)

    def __call__(self, rows: Rows) -> Rows:
        """One row: `counts`, the integers of a `ThresholdSweep`, flat, `images` and `skipped`."""
        total = ThresholdSweep.zeros(self.truths.num_classes, self.thresholds)
        images, skipped = 0, []
        for row in self.truths.rows(rows):
            try:
                one = self._sweep(row)
            except (ValueError, OSError) as error:
                skipped.append({"id": row["id"], "reason": str(error)})
            else:
                total, images = total + one, images + 1
        return [{"counts": total.counts.ravel(), "images": images, "skipped": skipped}]

    def _sweep(self, row: Row) -> ThresholdSweep:
        truth, seeds = self.truths.of(row), unpack_seeds(row)
        return ThresholdSweep.of(
            truth, enlarge(seeds), seeds.classes, self.truths.num_classes, self.thresholds
        )


class CountLabels:
    """Rows of seeds or masks to one row of counts and the mean IoU of each image.

    Rows are passed over, and skipped, as `SweepSeeds` does.

    Args:
        truths: what to count against.
        threshold: background value that turns seeds into labels; None for rows of masks.
        bounds_px: pixels at which medium and large objects begin, as `SizeCounts` has it.
    """

    def __init__(
        self,
        truths: Truths,
        threshold: float | None = None,
        bounds_px: tuple[int, int] = COCO_BOUNDS_PX,
    ):
        self.truths = truths
        self.threshold = threshold
        self.bounds_px = bounds_px

    def __call__(self, rows: Rows) -> Rows:
        """One row: flat integers of a `Confusion` and a `SizeCounts`, ids and their mean IoU.

        An image whose truth is all to be ignored has a mean IoU of nan.
        """
        num_classes = self.truths.num_classes
        total = Confusion.zeros(num_classes)
        sizes = SizeCounts.zeros(num_classes, self.bounds_px)
        ids, ious, skipped = [], [], []
        for row in self.truths.rows(rows):
            try:
                one = Confusion.of(self.truths.of(row), self._labels(row), num_classes)
            except (ValueError, OSError) as error:
                skipped.append({"id": row["id"], "reason": str(error)})
                continue
            total, sizes = total + one, sizes + SizeCounts.of(one, self.bounds_px)
            ids.append(row["id"])
            ious.append(one.mean_iou())
        parts = (sizes.regions, sizes.intersection, sizes.truth, sizes.predicted)
        counts = {"counts": total.counts.ravel(), "sizes": np.stack(parts).ravel()}
        return [counts | {"ids": ids, "ious": ious, "skipped": skipped}]

    def _labels(self, row: Mapping[str, Any]) -> UInt8[ndarray, "h w"]:
        if self.threshold is None:
            return decode_labels(row["labels"])
        seeds = unpack_seeds(row)
        planes = enlarge(seeds)
        background = np.full((1, *seeds.size_hw), self.threshold, np.float32)
        winners = np.concatenate([background, planes]).argmax(0)
        return np.array([0, *(c + 1 for c in seeds.classes)], np.uint8)[winners]
