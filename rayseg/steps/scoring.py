"""Scores of a run's seeds and masks: counts made side by side, added, divided once at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from rayseg.config import ScoreConfig
from rayseg.labels import Truths
from rayseg.scores import Confusion, SizeCounts, ThresholdSweep, thresholds_every
from rayseg.stages import CountLabels, Row, SweepSeeds
from rayseg.steps.engine import Engine, Pool, Stage, Stored
from rayseg.steps.judging import JudgedMasks, as_entry, judge_masks
from rayseg.steps.object_scoring import score_objects, skipped_facts, unlike_images
from rayseg.store import (
    KINDS,
    QUALITY,
    Folder,
    Kind,
    find_pending,
    read_manifest,
    read_rows,
    read_run,
)

SHOWN = 12
"""Best and worst images that scores.json names."""
COUNTED_ROWS = 256
"""Rows counted together: few, wide rows of counts come back to be added."""


@dataclass(frozen=True)
class Scored:
    """What scoring a run gives.

    Attributes:
        entries: the content of scores.json, an entry for each folder, such as ``seeds/advcam``.
        skipped: why the true mask of an image could not be used, by id.
        judged: what is known without truth, which scores.json has under `QUALITY`.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    judged: JudgedMasks = field(default_factory=dict)


def score_run(
    run: Folder, config: ScoreConfig, engine: Engine, ids: Sequence[str] | None = None
) -> Scored:
    """Scores every folder of seeds, masks and predictions against true masks, into scores.json.

    Seeds are turned into labels at the background threshold with the best mean IoU (over
    `config.over` where it is given); masks are taken as they are, ignored pixels as background, as
    the authors' evaluation does. Predictions are those of the val split; each gets the share of
    full supervision that it reaches, where a segmenter was trained on true masks as well. Masks
    from tags are also judged without truth.
    """
    manifest = read_manifest(run / "manifest")
    over = labels_of(config.over, manifest.classes)
    seen = Truths(run / "manifest", config.split, ids)
    unseen = None
    if config.val_split in ("", *manifest.table.column("split").to_pylist()):
        unseen = Truths(run / "manifest", config.val_split)
    scored = Scored()
    for kind in (one for one in KINDS.values() if one.scored in ("maps", "labels")):
        truths = unseen if kind.predicted else seen
        if not truths or not truths.paths:
            continue
        scoring = _Scoring(config, engine, truths, over)
        for name in (run / kind.folder).folders():
            entry, skipped = scoring.score(run / kind.folder / name, kind)
            scored.entries[f"{kind.folder}/{name}"] = entry
            scored.skipped.update(skipped)
    _add_ratios(run, scored.entries)
    entries, skipped = score_objects(run, config, engine)
    scored.entries.update(entries)
    scored.skipped.update(skipped)
    scored.judged.update(judge_masks(run, config, engine, ids))
    found = scored.entries | ({QUALITY: as_entry(scored.judged)} if scored.judged else {})
    run.write("scores.json", json.dumps(found, indent=1, allow_nan=False).encode())
    return scored


def _add_ratios(run: Folder, entries: dict[str, dict[str, Any]]) -> None:
    """Each prediction's mean IoU over that of the segmenter trained on true masks.

    Only where both were trained and applied with the same settings and judged on as many images.
    Where they were trained on other images, ``trained_on`` says so.
    """
    for name, entry in entries.items():
        if not name.startswith("predictions/"):
            continue
        truth = "predictions/truth+crf" if name.endswith("+crf") else "predictions/truth"
        full = entries.get(truth)
        if full is None or full is entry or full["images"] != entry["images"]:
            continue
        if _settings(run, name) != _settings(run, truth):
            continue
        pairs = {
            "miou": (entry["miou"], full["miou"]),
            "over": (entry["over"]["miou"], full["over"]["miou"]),
            "present": (entry["present"]["miou"], full["present"]["miou"]),
        }
        entry["of_full_supervision"] = {
            key: own / whole if own is not None and whole else None
            for key, (own, whole) in pairs.items()
        }
        entry.update(unlike_images(_training(run, name), _training(run, truth)))


def _settings(run: Folder, name: str) -> list[object]:
    """How the segmenter behind a folder of predictions was trained and applied."""
    applied = read_run(run / name).get("config", {})
    kept = {key: value for key, value in applied.items() if key != "weights"}
    return [kept, _training(run, name).get("segmenter")]


def _training(run: Folder, name: str) -> dict[str, Any]:
    """The configuration that the segmenter behind a folder of predictions was trained with."""
    trained = read_run(run / "segmenters" / name.removeprefix("predictions/").removesuffix("+crf"))
    config: dict[str, Any] = trained.get("config", {})
    return config


def labels_of(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Background and the labels of these classes; none where none is named."""
    missing = [name for name in names if name not in classes]
    if missing:
        raise ValueError(f"over must name classes ({', '.join(classes)}), got {missing[0]!r}")
    return [0, *(classes.index(name) + 1 for name in names)] if names else []


@dataclass(frozen=True)
class _Scoring:
    """How the folders of a run are scored."""

    config: ScoreConfig
    engine: Engine
    truths: Truths
    over: list[int]

    def score(self, folder: Folder, kind: Kind) -> tuple[dict[str, Any], dict[str, str]]:
        """A folder's entry, and the images without a usable truth."""
        statuses = {row["id"]: row["status"] for row in read_rows(folder, ["id", "status"])}
        asked = {id_: status for id_, status in statuses.items() if id_ in self.truths.paths}
        usable = {id_ for id_, status in asked.items() if status == "ok"}
        rows = _Rows(folder, statuses.keys() - usable, self.config, self.engine)
        left_out = Counter(asked.values())
        curves: dict[str, Any] = {}
        skipped: dict[str, str] = {}
        threshold = None
        if kind.scored == "maps":
            sweep = self._sweep(rows, skipped)
            threshold = sweep.best(self.over or None)
            if threshold is None:  # none of these classes was seen
                threshold = sweep.best()
            curves = {"sweep": sweep.as_dict(self.over or None)}
        countable = kind.scored != "maps" or threshold is not None
        figures = self._count(rows if countable else None, threshold, skipped)
        facts = {
            "split": self.config.val_split if kind.predicted else self.config.split,
            "ids": "" if kind.predicted else self.config.ids,
            "images": figures.pop("images"),
            **{status: left_out[status] for status in ("empty", "error", "poison")},
            "missing": len(self.truths.paths) - len(asked),
            **skipped_facts(skipped),
            "config": read_run(folder).get("config", {}),
        }
        return facts | figures | curves, skipped

    def _sweep(self, rows: _Rows, skipped: dict[str, str]) -> ThresholdSweep:
        thresholds = thresholds_every(self.config.threshold_step)
        total = ThresholdSweep.zeros(self.truths.num_classes, thresholds)
        for row in rows.through(partial(SweepSeeds, self.truths, thresholds)):
            counts = np.array(row["counts"], np.int64).reshape(total.counts.shape)
            total = total + ThresholdSweep(total.thresholds, counts)
            skipped.update((item["id"], item["reason"]) for item in row["skipped"])
        return total

    def _count(
        self, rows: _Rows | None, threshold: float | None, skipped: dict[str, str]
    ) -> dict[str, Any]:
        bounds_px = self.config.size_bounds_px
        total = Confusion.zeros(self.truths.num_classes)
        sizes = SizeCounts.zeros(self.truths.num_classes, bounds_px)
        number, images, undecided, pixels = 0, [], 0, 0
        make = partial(CountLabels, self.truths, threshold, bounds_px)
        for row in rows.through(make) if rows else []:
            total = total + Confusion(np.array(row["counts"], np.int64).reshape(total.counts.shape))
            parts = np.array(row["sizes"], np.int64).reshape(4, *sizes.truth.shape)
            sizes = sizes + SizeCounts(bounds_px, *parts)
            number += len(row["ids"])
            undecided, pixels = undecided + row["undecided"], pixels + row["pixels"]
            pairs = zip(row["ious"], row["ids"], strict=True)
            images += [(iou, id_) for iou, id_ in pairs if not np.isnan(iou)]
            skipped.update((item["id"], item["reason"]) for item in row["skipped"])
        shown = [{"id": id_, "miou": iou} for iou, id_ in sorted(images)]
        return {
            "images": number,
            "threshold": threshold,
            **_means(total, None),
            "undecided": undecided / pixels if pixels else None,
            "present": self._named_means(total, total.present),
            "over": self._named_means(total, self.over),
            "per_class": {
                name: total.over([label]).as_dict() for label, name in enumerate(self._names)
            },
            "sizes": sizes.as_dict(),
            "worst": shown[:SHOWN],
            "best": shown[::-1][:SHOWN],
            "confusion": total.counts.tolist(),
        }

    @property
    def _names(self) -> list[str]:
        return ["background", *self.truths.classes]

    def _named_means(self, total: Confusion, labels: Sequence[int]) -> dict[str, Any]:
        """Means over labels with their names; None in all where there is no label."""
        return {"names": [self._names[label] for label in labels], **_means(total, labels)}


def _means(total: Confusion, labels: Sequence[int] | None) -> dict[str, float | None]:
    """Means over labels, all for None; the mean IoU under the field's name for it."""
    means = total.over(labels).as_dict()
    return {"miou": means.pop("iou")} | means


@dataclass(frozen=True)
class _Rows:
    """The rows of a folder that are counted."""

    folder: Folder
    left_out: set[str]
    config: ScoreConfig
    engine: Engine

    def through(self, make: Callable[[], Stage]) -> Iterator[Row]:
        """What a stage makes of them; the engine is left alone where there are none."""
        pending = find_pending(self.folder, self.left_out)
        if not pending.rows:
            return iter(())
        pool = Pool(make, rows=COUNTED_ROWS)
        return self.engine.collect(Stored(pending), pool, self.config.compute)
