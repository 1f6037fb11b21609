"""What the analyses of section 5.5 count of each object, image by image."""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from rayseg.analyses.boxes import PositionCounts, head_positions, shake_boxes, threshold_ious
from rayseg.attribution import BoxAttribution, ObjectMap, Objects, enlarge_grid
from rayseg.nets.detectors import load_detector
from rayseg.records.boxes import box_areas, box_problem
from rayseg.scores import mask_iou
from rayseg.stages.box_maps import class_numbers
from rayseg.stages.box_masks import BoxRefiner
from rayseg.stages.rows import Row, Rows, choose_device, one_by_one
from rayseg.stages.true_objects import TrueObjects
from rayseg.store import local_copy

ANALYSES = ("heads", "noise", "strides", "methods")


@dataclass(frozen=True)
class Variant:
    """One of the ways that an analysis compares."""

    name: str
    method: BoxAttribution
    noise: float = 0.0


class AnalyseObjects:
    """Decoded rows to rows of ANALYSES_SCHEMA.

    Objects count that have a true mask with a pixel and a box that names pixels. Pixels that the
    truth ignores, such as VOC's borders, count for no IoU. With noise, which only their masks are
    judged by, those that the detector misses count as well: they have a mask from their box.
    Otherwise an object counts where no variant misses it.

    Args:
        detector_classes: the detector's; empty where they are the run's.
        refiner: maps to masks, for boxes with noise.
        seed: of the noise, with the image's id.
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
        methods = {one.method.precision: one.method for one in variants}
        self.detectors = {
            precision: method.prepare(detector, choose_device(device))
            for precision, method in methods.items()
        }
        self.number_of = class_numbers(classes, named)
        self.truths, self.refiner, self.seed = truths, refiner, seed

    def __call__(self, rows: Rows) -> Rows:
        """One row each; an image that cannot be analysed says why."""
        return one_by_one(rows, self._row, "analysis")

    def _row(self, row: Row) -> Row:
        return {"status": "ok", "objects": json.dumps(self._image(row))}

    def _image(self, row: Row) -> list[dict[str, Any]]:
        size_hw = (row["height"], row["width"])
        given = np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4)
        counted = self.truths.counted(row["id"], size_hw)
        masks = {
            place: mask
            for place, mask in self.truths.masks(row["id"], size_hw).items()
            if self.number_of[row["box_classes"][place]] is not None
            and not box_problem(given[place], size_hw)
            and mask[counted].any()
        }
        if not masks:
            return []
        image = np.frombuffer(row["pixels"], np.uint8).reshape(*size_hw, 3)
        boxes = given[list(masks)]
        numbers = [self.number_of[row["box_classes"][place]] for place in masks]
        figures: list[dict[str, Any]] = [{} for _ in masks]
        for variant in self.variants:  # whose maps are counted at once: all would take gigabytes
            tallies = self._tallies(
                variant, image, boxes, numbers, row["id"], list(masks.values()), counted
            )
            for own, tally in zip(figures, tallies, strict=True):
                own[variant.name] = tally
        shares = box_areas(boxes) / (size_hw[0] * size_hw[1])
        return [
            {"share": float(share), "told": own}
            for share, own in zip(shares, figures, strict=True)
            if None not in own.values()
        ]

    def _tallies(
        self,
        variant: Variant,
        image: UInt8[ndarray, "h w 3"],
        boxes_xyxy: Float[ndarray, "o 4"],
        numbers: Sequence[int | None],
        id_: str,
        truths: Sequence[Bool[ndarray, "h w"]],
        counted: Bool[ndarray, "h w"],
    ) -> list[Any]:
        """The figures of a variant's map of each object; None where the detector misses it."""
        generator = np.random.default_rng([self.seed, zlib.crc32(id_.encode())])
        boxes = shake_boxes(boxes_xyxy, variant.noise, generator)
        objects = Objects(torch.from_numpy(boxes), torch.tensor(numbers))
        (made,) = variant.method.run(
            self.detectors[variant.method.precision],
            torch.from_numpy(image.copy())[None],
            [objects],
            [id_],
        )
        refine = self.refiner.on(image) if self.analysis == "noise" else None
        found: list[Any] = []
        for one, box, truth in zip(made, boxes, truths, strict=True):
            map_ = enlarge_grid(one.grid, (image.shape[0], image.shape[1])).numpy()
            if refine:
                found.append(mask_iou(refine(map_, box).foreground, truth, counted))
            else:
                tally = TALLIES[self.analysis]
                found.append(tally(one, map_, truth, counted) if _counts(one) else None)
        return found


def _counts(made: ObjectMap) -> bool:
    # a head that is switched off may say no number, and a curve is of both heads
    return made.status == "ok" and (made.curve is None or bool(made.curve.isfinite().all()))


def _head(
    made: ObjectMap,
    map_: Float[ndarray, "h w"],
    truth: Bool[ndarray, "h w"],
    counted: Bool[ndarray, "h w"],
) -> dict[str, Any]:
    del counted  # positions are no overlap: a border is near the boundary as well
    counts = PositionCounts.of(head_positions(map_, truth))
    return {
        "density": counts.density.tolist(),
        "near": counts.near,
        "pixels": counts.pixels,
        "curve": made.curve.tolist() if made.curve is not None else [],
    }


def _overlaps(
    made: ObjectMap,
    map_: Float[ndarray, "h w"],
    truth: Bool[ndarray, "h w"],
    counted: Bool[ndarray, "h w"],
) -> list[float]:
    del made  # the map says it
    return threshold_ious(map_, truth, counted).tolist()


TALLIES: dict[str, Callable[..., Any]] = {
    "heads": _head,
    "strides": _overlaps,
    "methods": _overlaps,
}
"""What is counted of one map, by analysis; of noise it is the IoU of the mask."""
