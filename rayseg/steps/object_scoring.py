"""Scores of objects: masks made from boxes against true ones, and AP of predicted instances."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from functools import partial
from typing import Any

import numpy as np

from rayseg.config import ScoreConfig
from rayseg.labels import true_instances
from rayseg.scores import (
    MaskQuality,
    ObjectGuesses,
    ObjectTruths,
    average_best_overlap,
    average_precision,
)
from rayseg.stages import CompareObjects, TrueObjects
from rayseg.steps.engine import Engine, Pool, Stored
from rayseg.steps.sources import asked_for, read_ids
from rayseg.store import KINDS, Folder, find_pending, kind_of, read_manifest, read_rows, read_run

logger = logging.getLogger(__name__)

COMPARED_ROWS = 64
"""Rows compared by one task."""
MAX_SKIPPED = 50
"""Images without a usable truth that scores.json names; all are counted."""
TRUTH = "instances/truth"
"""Predictions of the Mask R-CNN that learnt from true masks."""


def score_objects(
    run: Folder, config: ScoreConfig, engine: Engine
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Entries of scores.json about single objects; none in a run without boxes.

    ``objects/<masks>`` is the overlap of the masks that were made from boxes with the true masks of
    these objects, where they are known, and of masks that were made from tags the AP, as ``found``.
    Pixels that a labelled truth ignores (255: VOC's borders) are left out of both, of instances
    too. ``instances/<labels>`` is the AP of a Mask R-CNN on the images of the val split that it has
    a result of, with the share of full supervision that it reaches.

    Returns:
        The entries, and why the true masks of an image could not be used, by id.
    """
    entries: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    masks = run / "masks"
    made = _named(masks, "objects")
    if made:
        truths = TrueObjects(run / "manifest", config.split)
        for name in made:
            entry, own = _overlaps(run / "masks" / name, truths, config, engine)
            entries[f"objects/{name}"] = entry
            skipped.update(own)
    if found := _named(masks, "instances"):
        entries |= _score_found(run, found, config)
    return entries | _score_instances(run, config), skipped


def _named(masks: Folder, scored: str) -> list[str]:
    """The folders of masks that are scored so."""
    kinds = {name: KINDS.get(kind_of(masks / name)) for name in masks.folders()}
    return [name for name, kind in kinds.items() if kind and kind.scored == scored]


def _score_found(run: Folder, names: Sequence[str], config: ScoreConfig) -> dict[str, Any]:
    """Entries of objects that were found from tags, on the images that masks are scored on."""
    manifest = read_manifest(run / "manifest", true_masks=True)
    truths = true_instances(asked_for(manifest, config.split, config.ids))
    if not any(len(one.classes) for one in truths.values()):
        return {}
    entries = {}
    for name in names:
        guesses = _guesses(run / "masks" / name, truths.keys())
        found = _precision(truths, guesses, len(manifest.classes), config.size_bounds_px)
        entries[f"objects/{name}"] = {
            "split": config.split,
            "ids": config.ids,
            "objects": sum(int((~truths[id_].ignored).sum()) for id_ in guesses),
            "images": len(guesses),
            "images_left_out": len(truths) - len(guesses),
            "found": found,
            "config": read_run(run / "masks" / name).get("config", {}),
        }
    return entries


def _score_instances(run: Folder, config: ScoreConfig) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    names = (run / "instances").folders()
    if not names:
        return entries
    manifest = read_manifest(run / "manifest", true_masks=True).select(config.val_split)
    truths = true_instances(manifest)
    judged: dict[str, Set[str]] = {}
    for name in names:
        folder, key = run / "instances" / name, f"instances/{name}"
        guesses = _guesses(folder, truths.keys())
        judged[key] = frozenset(guesses)
        entries[key] = {
            "images_left_out": len(truths) - len(guesses),
            **_precision(truths, guesses, len(manifest.classes), config.size_bounds_px),
            "config": read_run(folder).get("config", {}),
        }
    _add_ratios(run, entries, judged)
    return entries


def _overlaps(
    folder: Folder, truths: TrueObjects, config: ScoreConfig, engine: Engine
) -> tuple[dict[str, Any], dict[str, str]]:
    statuses = {row["id"]: row["status"] for row in read_rows(folder, ["id", "status"])}
    asked = truths.rows.keys() & (read_ids(config.ids) or truths.rows.keys())
    left_out = {
        i for i, status in statuses.items() if status not in ("ok", "empty") or i not in asked
    }
    found: dict[str, list[Any]] = defaultdict(list)
    pending = find_pending(folder, left_out)
    if pending.rows:
        pool = Pool(partial(CompareObjects, truths), rows=COMPARED_ROWS)
        for row in engine.collect(Stored(pending), pool, config.compute):
            for name in ("ious", "areas", "skipped"):
                found[name] += list(row[name])
    quality = MaskQuality(
        np.array(found["ious"], float), np.array(found["areas"], np.int64), config.size_bounds_px
    )
    skipped = {item["id"]: item["reason"] for item in found["skipped"]}
    return {
        "split": config.split,
        "ids": config.ids,
        **quality.as_dict(),
        **skipped_facts(skipped),
        "config": read_run(folder).get("config", {}),
    }, skipped


def skipped_facts(skipped: Mapping[str, str]) -> dict[str, Any]:
    """What scores.json says of the images without a usable truth: their number, the first few."""
    first = sorted(skipped)[:MAX_SKIPPED]
    return {
        "skipped_count": len(skipped),
        "skipped": [{"id": id_, "reason": skipped[id_]} for id_ in first],
    }


def _guesses(folder: Folder, ids: Set[str]) -> dict[str, ObjectGuesses]:
    """What was found in those of the images that have a result."""
    columns = ["id", "status", "boxes_xyxy", "classes", "scores", "foreground"]
    return {
        row["id"]: ObjectGuesses(
            boxes_xyxy=np.array(row["boxes_xyxy"], np.float32).reshape(-1, 4),
            classes=np.array(row["classes"], np.int64),
            scores=np.array(row["scores"], np.float32),
            masks=tuple(row["foreground"]),
        )
        for row in read_rows(folder, columns)
        if row["id"] in ids and row["status"] == "ok"
    }


def _precision(
    truths: Mapping[str, ObjectTruths],
    guesses: Mapping[str, ObjectGuesses],
    num_classes: int,
    bounds_px: tuple[int, int],
) -> dict[str, Any]:
    """AP of masks over the images whose objects all have a true mask, of boxes over all."""
    judged = {id_: truths[id_] for id_ in guesses}
    boxes = average_precision(judged, guesses, num_classes, "boxes", bounds_px).as_dict()
    masked = {
        i: one for i, one in judged.items() if all(one.masks) and len(one.masks) == len(one.classes)
    }
    entry = {"images": len(judged), "images_with_masks": len(masked), "boxes": boxes}
    if not any(one.masks for one in masked.values()):
        return entry
    chosen = {id_: guesses[id_] for id_ in masked}
    masks = average_precision(masked, chosen, num_classes, "masks", bounds_px).as_dict()
    return entry | masks | {"abo": average_best_overlap(masked, chosen, num_classes)}


def _add_ratios(
    run: Folder, entries: dict[str, dict[str, Any]], judged: Mapping[str, Set[str]]
) -> None:
    """Each Mask R-CNN's figures over those of the one that learnt from true masks.

    Only where both were trained with the same settings and judged on the same images. Where they
    were trained on other images, ``trained_on`` says so.
    """
    full = entries.get(TRUTH)
    for name, entry in entries.items():
        if full is None or entry is full:
            continue
        own, whole = (_training(run, one) for one in (name, TRUTH))
        if judged[TRUTH] != judged[name] or own.get("mask_rcnn") != whole.get("mask_rcnn"):
            continue
        entry["of_full_supervision"] = {
            key: entry[key] / full[key]
            for key in ("ap", "ap25", "ap50", "ap70", "ap75", "abo")
            if entry.get(key) is not None and full.get(key)
        }
        entry.update(unlike_images(own, whole))


def unlike_images(own: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, Any]:
    """How many images two networks were trained on, where these are not the same.

    Returns:
        ``trained_on`` with the number of ``images`` and that of ``full`` supervision, None where an
        older rayseg did not record it; empty where the images are the same.
    """
    lists = [one.get("trained_on") or {"images": None, "list": None} for one in (own, full)]
    if lists[0] == lists[1]:
        return {}
    return {"trained_on": {"images": lists[0]["images"], "full": lists[1]["images"]}}


def _training(run: Folder, name: str) -> dict[str, Any]:
    """The configuration that the Mask R-CNN behind a folder of predictions was trained with."""
    folder = run / "mask_rcnn" / name.removeprefix("instances/")
    config: dict[str, Any] = read_run(folder).get("config", {})
    return config
