"""Scores of objects: masks made from boxes against true ones, and AP of predicted instances."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from rayseg.config import ScoreConfig
from rayseg.on_ray.bookkeeping import read_ids
from rayseg.on_ray.data import collect, pending_rows, task_pool
from rayseg.scores import (
    ObjectGuesses,
    ObjectTruths,
    average_best_overlap,
    average_precision,
)
from rayseg.stages import CompareObjects, TrueObjects
from rayseg.store import Folder, Manifest, find_pending, read_manifest, read_rows, read_run

COMPARED_ROWS = 64
"""Rows compared by one task."""
TRUTH = "instances/truth"
"""Predictions of the Mask R-CNN that learnt from true masks."""


def score_objects(run: Folder, config: ScoreConfig) -> dict[str, dict[str, Any]]:
    """Entries of scores.json about single objects; none in a run without boxes.

    ``objects/<masks>`` is the overlap of the masks that were made from boxes with the true masks of
    these objects, where they are known. ``instances/<labels>`` is the AP of a Mask R-CNN on the val
    split, with the share of full supervision that it reaches.
    """
    entries: dict[str, dict[str, Any]] = {}
    made = [name for name in (run / "masks").folders() if holds_objects(run / "masks" / name)]
    if made:
        truths = TrueObjects(run / "manifest", config.split)
        for name in made:
            entries[f"objects/{name}"] = _overlaps(run / "masks" / name, truths, config)
    predicted = (run / "instances").folders()
    if predicted:
        manifest = read_manifest(run / "manifest", true_masks=True).select(config.val_split)
        known = true_instances(manifest)
        for name in predicted:
            entries[f"instances/{name}"] = _precision(run / "instances" / name, manifest, known)
        _add_ratios(run, entries)
    return entries


def holds_objects(masks: Folder) -> bool:
    """Whether a folder of masks was made from boxes."""
    return "box_maps" in read_run(masks).get("config", {})


def _overlaps(folder: Folder, truths: TrueObjects, config: ScoreConfig) -> dict[str, Any]:
    statuses = {row["id"]: row["status"] for row in read_rows(folder, ["id", "status"])}
    asked = truths.rows.keys() & (read_ids(config.ids) or truths.rows.keys())
    left_out = {i for i, status in statuses.items() if status != "ok" or i not in asked}
    found: dict[str, list[Any]] = defaultdict(list)
    pending = find_pending(folder, left_out)
    if pending.rows:
        pool = replace(
            task_pool(config.compute, partial(CompareObjects, truths)), rows=COMPARED_ROWS
        )
        for row in collect(pending_rows(pending, pool.rows), pool):
            for name in ("ious", "areas", "skipped"):
                found[name] += list(row[name])
    ious, areas = np.array(found["ious"]), np.array(found["areas"])
    small, large = config.size_bounds_px
    sizes = {
        "small": areas < small,
        "medium": (areas >= small) & (areas < large),
        "large": areas >= large,
    }
    return {
        "split": config.split,
        "ids": config.ids,
        "objects": len(ious),
        "mean_iou": _mean(ious),
        "iou_over_50": _mean(ious > 0.5),
        **{name: _mean(ious[chosen]) if len(ious) else None for name, chosen in sizes.items()},
        "skipped_count": len(found["skipped"]),
        "config": read_run(folder).get("config", {}),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def true_instances(manifest: Manifest) -> dict[str, ObjectTruths]:
    """The true objects of a manifest's images, with their masks where it has them."""
    return {
        sample.id: ObjectTruths(
            size_hw=(sample.height, sample.width),
            boxes_xyxy=sample.boxes_xyxy,
            classes=sample.box_classes,
            ignored=_marked((*sample.difficult, *sample.crowds), len(sample.box_classes)),
            crowd=_marked(sample.crowds, len(sample.box_classes)),
            masks=sample.true_masks,
        )
        for sample in manifest.samples()
    }


def _marked(places: tuple[int, ...], number: int) -> np.ndarray:
    marks = np.zeros(number, bool)
    marks[list(places)] = True
    return marks


def _precision(
    folder: Folder, manifest: Manifest, truths: dict[str, ObjectTruths]
) -> dict[str, Any]:
    """AP of masks over the images whose objects all have a true mask, of boxes over all."""
    columns = ["id", "status", "boxes_xyxy", "classes", "scores", "foreground"]
    guesses = {
        row["id"]: ObjectGuesses(
            boxes_xyxy=np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4),
            classes=np.array(row["classes"], np.int64),
            scores=np.array(row["scores"], np.float32),
            masks=tuple(row["foreground"]),
        )
        for row in read_rows(folder, columns)
        if row["id"] in truths and row["status"] == "ok"
    }
    number = len(manifest.classes)
    judged = {id_: truths[id_] for id_ in guesses}
    boxes = average_precision(judged, guesses, number, "boxes").as_dict()
    masked = {i: one for i, one in judged.items() if all(one.masks) and _has_all(one)}
    entry: dict[str, Any] = {
        "images": len(judged),
        "images_with_masks": len(masked),
        "boxes": boxes,
        "config": read_run(folder).get("config", {}),
    }
    if not any(one.masks for one in masked.values()):
        return entry
    chosen = {id_: guesses[id_] for id_ in masked}
    masks = average_precision(masked, chosen, number, "masks").as_dict()
    return entry | masks | {"abo": average_best_overlap(masked, chosen, number)}


def _has_all(one: ObjectTruths) -> bool:
    return len(one.masks) == len(one.classes)


def _add_ratios(run: Folder, entries: dict[str, dict[str, Any]]) -> None:
    """Each Mask R-CNN's figures over those of the one that learnt from true masks."""
    full = entries.get(TRUTH)
    for name, entry in entries.items():
        if full is None or entry is full or not name.startswith("instances/"):
            continue
        if full["images"] != entry["images"] or _trained(run, name) != _trained(run, TRUTH):
            continue
        entry["of_full_supervision"] = {
            key: entry[key] / full[key]
            for key in ("ap", "ap25", "ap50", "ap70", "ap75", "abo")
            if entry.get(key) is not None and full.get(key)
        }


def _trained(run: Folder, name: str) -> object:
    """The settings that the Mask R-CNN behind a folder of predictions was trained with."""
    folder = run / "mask_rcnn" / name.removeprefix("instances/")
    return read_run(folder).get("config", {}).get("mask_rcnn")
