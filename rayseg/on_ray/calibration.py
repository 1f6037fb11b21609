"""How long a run will take, from a few of its images sent through all of its stages.

Each stage is timed as it will run, by the same jobs on the same cluster. What a stage does image by
image says itself how long an image took, so that the time for starting processes is told from the
time for images; a training is measured over a few of its steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rayseg.config import DoctorConfig
from rayseg.labels import Truths
from rayseg.learn import TRAININGS
from rayseg.on_ray.boxes import make_box_maps, make_box_masks
from rayseg.on_ray.data import pool_size
from rayseg.on_ray.instances import predict_instances, train_detector, train_mask_rcnn
from rayseg.on_ray.jobs import (
    predict,
    refine_seeds,
    score,
    train_classifier,
    train_ficklenet,
    train_segmenter,
)
from rayseg.on_ray.seeds import make_seeds
from rayseg.on_ray.session import gpus_each, task_slots
from rayseg.scores import thresholds_every
from rayseg.stages import CountLabels, SweepSeeds
from rayseg.steps.sources import read_ids
from rayseg.store import (
    Folder,
    Manifest,
    claim,
    read_manifest,
    read_rows,
    read_run,
    write_manifest,
)


@dataclass(frozen=True)
class Stage:
    """A stage as it was measured, and what all of it will take.

    Attributes:
        name: of its folder.
        seconds: that it took here.
        items: images, or steps, that it had here.
        all_items: that it will have.
        all_seconds: that it will take.
        unit: image or step.
        processes: side by side.
        all_bytes: that it will store.
    """

    name: str
    seconds: float
    items: int
    all_items: int
    all_seconds: float
    unit: str
    processes: int
    all_bytes: float = 0.0


@dataclass(frozen=True)
class Counts:
    """Images here and in all.

    Attributes:
        train: that become maps and masks here.
        val: that are judged on here.
        all_train: that become maps and masks, of which --ids may name some.
        all_learned: that a classifier learns from.
        all_val: that are judged on.
    """

    train: int
    val: int
    all_train: int
    all_learned: int
    all_val: int


def calibrate(config: DoctorConfig) -> list[Stage]:
    """Runs every stage on a few images, in a folder of its own that is gone afterwards.

    Ray must run already, and the run's manifest be there.

    Raises:
        ValueError: the run's own refusals.
    """
    scratch = Folder(config.run) / "calibration"
    scratch.remove()
    try:
        counts = _few_images(config, scratch / "manifest")
        return [stage for make in _stages(config, scratch, counts) for stage in make()]
    finally:
        scratch.remove()


def _few_images(config: DoctorConfig, folder: Folder) -> Counts:
    manifest = read_manifest(Folder(config.run) / "manifest", true_masks=True)
    train, tagged = (
        manifest.select(config.split),
        manifest.select(config.split, read_ids(config.ids)),
    )
    splits = manifest.table.column("split").to_pylist()
    judged = config.val_split in splits and config.until == "segmenters"
    parts = [_draw(tagged, config.calibrate_images)]
    if judged:
        parts.append(_draw(manifest.select(config.val_split), max(config.calibrate_images // 4, 2)))
    table = pa.concat_tables([part.table for part in parts])
    few = replace(manifest, table=table)
    claim(folder, read_run(Folder(config.run) / "manifest")["config"])
    write_manifest(folder, few.samples(), manifest.classes, manifest.category_ids)
    return Counts(
        parts[0].table.num_rows,
        parts[1].table.num_rows if judged else 0,
        config.images or tagged.table.num_rows,
        config.images or train.table.num_rows,
        splits.count(config.val_split) if judged else 0,
    )


def _draw(manifest: Manifest, number: int) -> Manifest:
    """So many images of a manifest, the same each time."""
    ids = sorted(manifest.table.column("id").to_pylist())
    drawn = np.random.default_rng(0).permutation(len(ids))[:number]
    return manifest.select(ids=[ids[i] for i in drawn])


def _stages(
    config: DoctorConfig, scratch: Folder, counts: Counts
) -> Iterator[Callable[[], list[Stage]]]:
    """What measures each job of the run, in order."""
    few = shortened(config, scratch.location)
    boxes = config.supervision == "boxes"
    by_image = partial(_by_image, config, scratch)
    train, val = (counts.train, counts.all_train), (counts.val, counts.all_val)
    learned = (counts.train, counts.all_learned)

    def trained(kind: str, folder: str, job: Callable[[Any], Any], asked: Any = few) -> Any:
        settings = (getattr(one, TRAININGS[kind].field) for one in (few, config))
        steps = [one.steps(images) for one, images in zip(settings, learned, strict=True)]
        return partial(_steps, scratch, folder, partial(job, asked), *steps)

    if config.trunks_from_classifier if boxes else not config.weights and config.needs_classifier:
        yield trained("classifier", "classifier", train_classifier)
    if boxes:
        if not config.detector_weights:
            yield trained("detector", "detector", train_detector)
        yield partial(by_image, "box_maps", config.box_methods, partial(make_box_maps, few), train)
        masks = tuple(config.box_mask_names())
        made = partial(make_box_masks, few)
    else:
        if not config.ficklenet_weights and "ficklenet" in config.network_kinds:
            yield trained("ficklenet", "ficklenet", train_ficklenet)
        yield partial(by_image, "seeds", config.methods, partial(make_seeds, few), train)
        masks, made = tuple(config.mask_names()), partial(refine_seeds, few)
    if config.until != "seeds":
        yield partial(by_image, "masks", masks, made, train, tasks=True)
    if config.until == "segmenters" and (counts.val or config.labels):
        yield partial(_scores, config, scratch, partial(score, few), counts)
        labels = config.trained_on()
        named = replace(few, labels=labels)
        part = "mask_rcnn" if boxes else "segmenter"
        folder = "mask_rcnn" if boxes else "segmenters"
        job = train_mask_rcnn if boxes else train_segmenter
        for label in labels:
            yield trained(part, f"{folder}/{label}", job, replace(named, labels=(label,)))
        kind, apply = ("instances", predict_instances) if boxes else ("predictions", predict)
        ending = "+crf" if config.crf and not boxes else ""
        names = tuple(f"{label}{ending}" for label in labels)
        if counts.val:
            yield partial(by_image, kind, names, partial(apply, named), val)
    yield partial(_scores, config, scratch, partial(score, few), counts)


def shortened(config: DoctorConfig, run: str) -> DoctorConfig:
    """The run's configuration with trainings of a few steps, for a folder of its own."""
    parts = {
        training.field: getattr(config, training.field).shortened(
            config.calibrate_steps, config.calibrate_images
        )
        for training in TRAININGS.values()
    }
    return replace(config, run=run, ids="", **parts)


def _timed(job: Callable[[], Any]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def _by_image(
    config: DoctorConfig,
    scratch: Folder,
    kind: str,
    names: tuple[str, ...],
    job: Callable[[], Any],
    images: tuple[int, int],
    tasks: bool = False,
) -> list[Stage]:
    """A job that fills a folder for each name with rows that say how long they took."""
    whole = _timed(job)
    here, all_ = images
    processes = task_slots() if tasks else pool_size(config.compute, gpus_each(config.compute))
    told = {name: read_run(scratch / kind / name).get("seconds", 0.0) for name in names}
    around = max(whole - sum(told.values()), 0.0) / len(names)
    found = []
    for name, seconds in told.items():
        rows = list(read_rows(scratch / kind / name, ["seconds"]))
        busy = sum(row["seconds"] for row in rows) / min(processes, max(len(rows), 1))
        start = max(seconds - busy, 0.0) + around
        measured = (seconds + around, here, all_, start + busy * all_ / here)
        folder = scratch / kind / name
        stored = sum(len(folder.read(shard)) for shard in folder.names(".parquet"))
        found.append(Stage(f"{kind}/{name}", *measured, "image", processes, stored * all_ / here))
    return found


def _steps(scratch: Folder, name: str, job: Callable[[], Any], here: int, all_: int) -> list[Stage]:
    """A training, which counts steps."""
    whole = _timed(job)
    seconds = read_run(scratch / name)["seconds"]
    return [Stage(name, whole, here, all_, whole - seconds + seconds * all_ / here, "step", 1)]


def _scores(
    config: DoctorConfig, scratch: Folder, job: Callable[[], Any], counts: Counts
) -> list[Stage]:
    """Scores; how long an image takes is asked of the stages themselves."""
    whole = _timed(job)
    processes = task_slots()
    truths = Truths(scratch / "manifest", config.split)
    counting = 0.0
    if truths.paths:
        thresholds = thresholds_every(config.threshold_step)
        for kind, stages in (
            ("seeds", (SweepSeeds(truths, thresholds), CountLabels(truths, 0.5))),
            ("masks", (CountLabels(truths),)),
        ):
            for name in (scratch / kind).folders() if config.supervision == "tags" else ():
                rows = [r for r in read_rows(scratch / kind / name) if r["status"] == "ok"]
                counting += sum(_timed(partial(stage, rows)) for stage in stages)
    more = counting / processes * (counts.all_train / counts.train - 1)
    return [
        Stage("scores", whole, counts.train, counts.all_train, whole + more, "image", processes)
    ]
