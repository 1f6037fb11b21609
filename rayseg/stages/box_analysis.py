"""What the analyses of section 5.5 count of each object, image by image."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rayseg.attribution import BoxAttribution, ObjectMap, Objects, enlarge_grid
from rayseg.box_analysis import PositionCounts, head_positions, shake_boxes, threshold_ious
from rayseg.boxes import box_areas, box_problem
from rayseg.nets.detectors import load_detector
from rayseg.stages.box_maps import class_numbers
from rayseg.stages.box_masks import BoxRefiner
from rayseg.stages.rows import Row, Rows, choose_device
from rayseg.stages.true_objects import TrueObjects
from rayseg.store import local_copy

ANALYSES = ("heads", "noise", "strides", "methods")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Variant:
    """One of the ways that an analysis compares.

    Attributes:
        name: of it in the table and picture.
        method: that makes the maps.
        noise: of the boxes, a share of their sides.
    """

    name: str
    method: BoxAttribution
    noise: float = 0.0


class AnalyseObjects:
    """Decoded rows to rows of `id`, `objects` (JSON, a dictionary an object) and `error`.

    Objects count that have a true mask and a box that names pixels. With noise, which only their
    masks are judged by, those that the detector misses count as well: they have a mask from their
    box. Otherwise an object counts where no variant misses it.

    Args:
        analysis: one of ANALYSES.
        variants: what it compares.
        weights: of the detector.
        classes: the run's class names.
        detector_classes: the detector's; empty where they are the run's.
        truths: true masks of the objects that count.
        refiner: maps to masks, for boxes with noise.
        seed: of the noise, with the image's id.
        device: torch device of the detector; ``auto`` takes CUDA where there is one.
        threads: threads of torch on the CPU; 0 leaves torch's choice.
    """

    def __init__(
        self,
        analysis: str,
        variants: Sequence[Variant],
        weights: str,
        classes: Sequence[str],
        detector_classes: Sequence[str],
        truths: TrueObjects,
        refiner: BoxRefiner,
        seed: int = 0,
        device: str = "auto",
        threads: int = 0,
    ):
        if threads:
            torch.set_num_threads(threads)
        self.analysis, self.variants = analysis, variants
        named = tuple(detector_classes) or tuple(classes)
        detector = load_detector(local_copy(weights), named)
        self.detector = variants[0].method.prepare(detector, choose_device(device))
        self.number_of = class_numbers(classes, named)
        self.truths, self.refiner, self.seed = truths, refiner, seed

    def __call__(self, rows: Rows) -> Rows:
        """One row each; an image that cannot be analysed says why."""
        return [self._row(row) for row in rows]

    def _row(self, row: Row) -> Row:
        if row["status"]:
            return {"id": row["id"], "objects": "[]", "error": row["error"]}
        try:
            told = self._image(row)
        except torch.AcceleratorError:
            raise
        except Exception as error:
            logger.warning("no analysis of %s: %s", row["id"], error)
            return {"id": row["id"], "objects": "[]", "error": f"{type(error).__name__}: {error}"}
        return {"id": row["id"], "objects": json.dumps(told), "error": ""}

    def _image(self, row: Row) -> list[dict[str, Any]]:
        size_hw = (row["height"], row["width"])
        given = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
        masks = {
            place: mask
            for place, mask in self.truths.masks(row["id"], size_hw).items()
            if self.number_of[row["box_classes"][place]] is not None
            and not box_problem(given[place], size_hw)
        }
        if not masks:
            return []
        image = np.frombuffer(row["pixels"], np.uint8).reshape(*size_hw, 3)
        boxes = given[list(masks)]
        numbers = [self.number_of[row["box_classes"][place]] for place in masks]
        answers = [self._ask(one, image, boxes, numbers, row["id"]) for one in self.variants]
        shares = box_areas(boxes) / (size_hw[0] * size_hw[1])
        found = []
        for i, mask in enumerate(masks.values()):
            maps = [answer[i] for answer in answers]
            if mask.any() and all(one is not None for one in maps):
                found.append(COUNT[self.analysis](self.variants, maps, mask, float(shares[i])))
        return found

    def _ask(
        self,
        variant: Variant,
        image: UInt8[ndarray, "h w 3"],
        boxes_xyxy: Float[ndarray, "o 4"],
        numbers: Sequence[int | None],
        id_: str,
    ) -> list[_Answer | None]:
        """What a variant makes of each object; None where the detector misses it."""
        generator = np.random.default_rng([self.seed, zlib.crc32(id_.encode())])
        boxes = shake_boxes(boxes_xyxy, variant.noise, generator)
        objects = Objects(torch.from_numpy(boxes), torch.tensor(numbers))
        (made,) = variant.method.run(
            self.detector, torch.from_numpy(image.copy())[None], [objects], [id_]
        )
        size_hw = (image.shape[0], image.shape[1])
        maps = np.stack([enlarge_grid(one.grid, size_hw).numpy() for one in made])
        masks = [None] * len(made)
        if self.analysis == "noise":
            masks = [one.foreground for one in self.refiner(image, maps, boxes)]
        return [
            _Answer(one, map_, mask) if self.analysis == "noise" or _counts(one) else None
            for one, map_, mask in zip(made, maps, masks, strict=True)
        ]


def _counts(made: ObjectMap) -> bool:
    # a head that is switched off may say no number, and a curve is of both heads
    return made.status == "ok" and (made.curve is None or bool(made.curve.isfinite().all()))


@dataclass(frozen=True)
class _Answer:
    told: ObjectMap
    map_: Float[ndarray, "h w"]
    mask: Bool[ndarray, "h w"] | None


def _heads(
    variants: Sequence[Variant],
    answers: Sequence[_Answer],
    mask: Bool[ndarray, "h w"],
    share: float,
) -> dict[str, Any]:
    del share  # positions are relative already
    found = {}
    for variant, answer in zip(variants, answers, strict=True):
        counts = PositionCounts.of(head_positions(answer.map_, mask))
        curve = answer.told.curve
        found[variant.name] = {
            "density": counts.density.tolist(),
            "near": counts.near,
            "pixels": counts.pixels,
            "curve": curve.tolist() if curve is not None else [],
        }
    return found


def _noise(
    variants: Sequence[Variant],
    answers: Sequence[_Answer],
    mask: Bool[ndarray, "h w"],
    share: float,
) -> dict[str, Any]:
    del share  # all sizes count alike
    found = {}
    for variant, answer in zip(variants, answers, strict=True):
        made = np.zeros_like(mask) if answer.mask is None else answer.mask
        found[variant.name] = float((made & mask).sum() / (made | mask).sum())
    return found


def _overlaps(
    variants: Sequence[Variant],
    answers: Sequence[_Answer],
    mask: Bool[ndarray, "h w"],
    share: float,
) -> dict[str, Any]:
    ious = {
        variant.name: threshold_ious(answer.map_, mask).tolist()
        for variant, answer in zip(variants, answers, strict=True)
    }
    return {"share": share, "ious": ious}


COUNT: dict[str, Callable[..., dict[str, Any]]] = {
    "heads": _heads,
    "noise": _noise,
    "strides": _overlaps,
    "methods": _overlaps,
}
"""What is counted of one object, by analysis."""
