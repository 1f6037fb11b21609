"""Scores of a run's seeds and masks: counts made side by side, added, divided once at the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from rayseg.config import ScoreConfig
from rayseg.on_ray.data import Stage, collect, pending_rows, task_pool
from rayseg.scores import Confusion, SizeCounts, ThresholdSweep
from rayseg.stages import CountLabels, Row, SweepSeeds, Truths
from rayseg.store import Folder, find_pending

SHOWN = 12
"""Best and worst images that scores.json names."""


def score_run(
    run: Folder, config: ScoreConfig, ids: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Scores every folder of seeds and masks against true masks, into scores.json.

    Seeds are turned into labels at the background threshold with the best mean IoU (over
    `config.over` where it is given); masks are taken as they are, ignored pixels as background, as
    the authors' evaluation does.

    Returns:
        What stands in scores.json: an entry for each folder, such as ``seeds/advcam``.

    Raises:
        ValueError: an id is not in the manifest, or no class has the name to take the mean over.
    """
    truths = Truths(run / "manifest", config.split, ids)
    over = _labels_of(config.over, truths.classes)
    scores = {}
    for kind in ("seeds", "masks"):
        for name in (run / kind).folders() if truths.paths else []:
            scores[f"{kind}/{name}"] = _score_folder(run / kind / name, kind, truths, config, over)
    run.write("scores.json", json.dumps(scores, indent=1).encode())
    return scores


def _labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    missing = [name for name in names if name not in classes]
    if missing:
        raise ValueError(f"over must name classes ({', '.join(classes)}), got {missing[0]!r}")
    return [0, *(classes.index(name) + 1 for name in names)] if names else []


def _score_folder(
    folder: Folder, kind: str, truths: Truths, config: ScoreConfig, over: list[int]
) -> dict[str, Any]:
    if kind == "masks":
        return _count(folder, truths, None, config, over)
    sweep = _sweep(folder, truths, config)
    threshold, _ = sweep.best_over(over or None)
    curve = sweep.as_dict()
    curve = {name: curve[name] for name in ("thresholds", "miou", "precision", "recall")}
    return _count(folder, truths, threshold, config, over) | {"sweep": curve}


def _sweep(folder: Folder, truths: Truths, config: ScoreConfig) -> ThresholdSweep:
    thresholds = np.arange(0, 1, config.threshold_step).round(6).tolist()
    total = ThresholdSweep.zeros(truths.num_classes, thresholds)
    for row in _collect(folder, partial(SweepSeeds, truths, thresholds), config):
        counts = np.array(row["counts"], np.int64).reshape(total.counts.shape)
        total = total + ThresholdSweep(total.thresholds, counts)
    return total


def _count(
    folder: Folder, truths: Truths, threshold: float | None, config: ScoreConfig, over: list[int]
) -> dict[str, Any]:
    total, sizes = Confusion.zeros(truths.num_classes), SizeCounts.zeros(truths.num_classes)
    images: list[tuple[float, str]] = []
    for row in _collect(folder, partial(CountLabels, truths, threshold), config):
        total = total + Confusion(np.array(row["counts"], np.int64).reshape(total.counts.shape))
        parts = np.array(row["sizes"], np.int64).reshape(4, *sizes.truth.shape)
        sizes = sizes + SizeCounts(sizes.bounds_px, *parts)
        images += zip(row["ious"], row["ids"], strict=True)
    shown = [{"id": id_, "miou": iou} for iou, id_ in sorted(images)]
    means = {"present": total.present, "over": over}
    return {
        "split": config.split,
        "images": len(images),
        "threshold": threshold,
        **_means(total, None),
        **{name: _means(total, labels) for name, labels in means.items() if labels},
        "per_class": _per_class(total, truths.classes),
        "sizes": sizes.as_dict(),
        "worst": shown[:SHOWN],
        "best": shown[::-1][:SHOWN],
        "confusion": total.counts.tolist(),
    }


def _means(total: Confusion, labels: Sequence[int] | None) -> dict[str, float | None]:
    """Means over labels, all for None; the mean IoU under the field's name for it."""
    means = total.over(labels).as_dict()
    return {"miou": means.pop("iou")} | means


def _per_class(total: Confusion, classes: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {
        name: total.over([label]).as_dict() for label, name in enumerate(["background", *classes])
    }


def _collect(folder: Folder, make: Callable[[], Stage], config: ScoreConfig) -> Iterator[Row]:
    pool = task_pool(config.compute, make)
    return collect(pending_rows(find_pending(folder, set()), pool.rows), pool)
