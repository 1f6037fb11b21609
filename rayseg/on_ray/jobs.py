"""The jobs: a configuration in, a folder of the run filled, what came out said.

Every job can be killed and started again with the same configuration; it finishes the rest. A
folder that was filled under another configuration is refused.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import cast

from rayseg.config import (
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    RefineSeedsConfig,
    ScoreConfig,
    as_plain,
)
from rayseg.export import EXPORTERS
from rayseg.nets.deeplab import load_segmenter
from rayseg.on_ray.bookkeeping import fill_by_images, fill_from, open_folder, without
from rayseg.on_ray.data import actor_pool, task_pool
from rayseg.on_ray.scoring import score_run
from rayseg.on_ray.session import count_cores, gpus_each, session, threads_each
from rayseg.on_ray.table import score_table
from rayseg.on_ray.training_engine import TrainingEngine
from rayseg.report import write_report
from rayseg.stages import PredictLabels, RefineSeeds, SaliencyMaps, SmoothLabels
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import digest, finished_config, others_there, read_ids
from rayseg.steps.training import train
from rayseg.store import (
    MASKS_SCHEMA,
    Folder,
    claim,
    local_copy,
    read_manifest,
    read_rows,
    read_run,
    read_shard,
    stored_ids,
    write_manifest,
    write_run,
)


def prepare(config: PrepareConfig) -> Outcome:
    """Reads the data set and writes the manifest."""
    run_folder = Folder(config.run)
    folder = run_folder / "manifest"
    dataset = config.dataset()
    plain = as_plain(dataset)
    files = {name: digest(value) for name, value in plain.items() if Path(str(value)).is_file()}
    claim(folder, {"data": config.data, config.data: plain, "files": files})
    if not folder.exists("manifest.parquet"):
        workspace = Path((run_folder / "images").location)
        write_manifest(folder, dataset.samples(workspace), dataset.classes, dataset.category_ids)
    manifest = read_manifest(folder)
    counts = Counter(manifest.table.column("split").to_pylist())
    write_run(folder, {"counts": counts})
    splits = ", ".join(f"{number} {split}" for split, number in counts.items())
    return Outcome([f"manifest: {splits}; {len(manifest.classes)} classes"])


def refine_seeds(config: RefineSeedsConfig) -> Outcome:
    """Makes the masks of each method by each refiner."""
    compute, run_folder = config.compute, Folder(config.run)
    saliency = None
    if config.saliency_maps:
        saliency = SaliencyMaps(Folder(config.saliency_maps), config.saliency)
        if not saliency.folder.exists():
            raise FileNotFoundError(f"folder of saliency maps {saliency.folder} does not exist")
    outcome = Outcome()
    with session(config.address, config.run):
        pairs = product(config.methods, config.refiners)
        for (method, name), label in zip(pairs, config.mask_names(), strict=True):
            seeds = run_folder / "seeds" / method
            made = finished_config(seeds, "seeds", "make-seeds")
            refiner = config.refiner(name, method)
            folder = run_folder / "masks" / label
            identity = {name: as_plain(refiner), "seeds": made}
            if saliency:
                identity["saliency"] = as_plain(config.saliency) | {
                    "maps": saliency.folder.location
                }
            open_folder(folder, identity, compute)
            make = partial(RefineSeeds, refiner, run_folder / "manifest", saliency=saliency)
            pool = task_pool(compute, make)
            outcome += fill_from(seeds, folder, pool, MASKS_SCHEMA, f"masks {label}")
    return outcome


train_classifier, train_ficklenet, train_segmenter = (
    partial(train, kind, engine=cast("Engine", TrainingEngine()))
    for kind in ("classifier", "ficklenet", "segmenter")
)


def predict(config: PredictConfig) -> Outcome:
    """Labels the images of the val split by each segmenter that is named, or that there is."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = manifest.select(config.val_split)
    segmenters = run_folder / "segmenters"
    trained = [name for name in segmenters.folders() if read_run(segmenters / name).get("done")]
    names = config.labels or tuple(trained)
    if not names:
        raise FileNotFoundError(f"{run_folder} has no segmenter; train one with train-segmenter")
    for name in names:
        if name not in trained:
            raise FileNotFoundError(
                f"{segmenters / name} holds no trained segmenter; the run has "
                f"{', '.join(trained) or 'none'}"
            )
    outcome = Outcome()
    with session(config.address, config.run):
        gpus = gpus_each(compute)
        if config.crf and not gpus and not compute.actors:  # the CRF needs as much of the cores
            compute = replace(compute, actors=max(count_cores() // 2, 1), threads=1)
        threads = threads_each(compute)
        for name in names:
            weights = (run_folder / "segmenters" / name).path("segmenter.safetensors")
            load_segmenter(local_copy(weights), manifest.classes)  # a wrong file is said here
            label = f"{name}+crf" if config.crf else name
            folder = run_folder / "predictions" / label
            identity = {"weights": digest(weights), "predict": as_plain(config.predict)}
            if config.crf:
                identity["segmenter_crf"] = as_plain(config.segmenter_crf)
                identity["min_probability"] = config.min_probability
            open_folder(folder, identity, compute)
            waiting = without(chosen.table, stored_ids(folder))
            make = partial(
                PredictLabels, config.predict, weights, manifest.classes, compute.device, threads,
                config.crf, config.min_probability,
            )  # fmt: skip
            pool = actor_pool(compute, make, gpus)
            smooth = task_pool(compute, partial(SmoothLabels, config.segmenter_crf))
            outcome += fill_by_images(
                folder, waiting, pool, MASKS_SCHEMA, f"predictions {label}",
                then=smooth if config.crf else None,
            )  # fmt: skip
    return outcome


def score(config: ScoreConfig) -> Outcome:
    """Scores all seeds and masks of the run into scores.json, and writes the report."""
    run_folder = Folder(config.run)
    read_manifest(run_folder / "manifest").select(config.split)
    with session(config.address, config.run):
        scored = score_run(run_folder, config, read_ids(config.ids))
    lines = score_table(scored.entries)
    if scored.skipped:
        id_ = min(scored.skipped)
        number = len(scored.skipped)
        lines.append(f"not scored: {number} of bad truth, such as {id_}: {scored.skipped[id_]}")
    for name, entry in scored.entries.items():
        if entry.get("images_left_out"):
            whole = entry["images"] + entry["images_left_out"]
            lines.append(
                f"{name}: judged on {entry['images']} of {whole} images; the others have no result"
            )
        if "trained_on" in entry:
            own, full = (entry["trained_on"][key] or "unknown" for key in ("images", "full"))
            lines.append(
                f"{name}: its share of full supervision is of networks that were trained on other "
                f"images, {own} and {full} of them"
            )
    lines.append(f"report: {write_report(run_folder, config.split, val_split=config.val_split)}")
    return Outcome(lines, frozenset(scored.skipped))


def export(config: ExportConfig) -> Outcome:
    """Writes the masks, predictions or instances of a run in a foreign format.

    Raises:
        ValueError: none of them is of the split, or they lack what the format needs.
    """
    run_folder = Folder(config.run)
    manifest = read_manifest(run_folder / "manifest").select(config.split)
    kind, name = "masks", config.masks
    if name.startswith(("predictions/", "instances/")):
        kind, _, name = name.partition("/")
    masks = run_folder / kind / name
    if not masks.names(".parquet"):
        raise FileNotFoundError(f"{masks} holds no masks{others_there(run_folder, kind)}")
    exporter = EXPORTERS[config.format]
    have = read_shard(masks, masks.names(".parquet")[0]).column_names
    missing = [column for column in exporter.columns if column not in have]
    if missing:
        raise ValueError(
            f"format {config.format} needs {missing[0]} of each object; {masks} holds labels only"
        )
    table = manifest.table.select(["id", "path"])
    paths = dict(zip(*table.to_pydict().values(), strict=True))
    if config.split and paths.keys().isdisjoint(stored_ids(masks)):
        raise ValueError(
            f"{masks} holds no image of split {config.split!r}; without --split all are written"
        )
    rows = read_rows(masks, ["id", "status", *exporter.columns])
    ready = (
        row | {"path": paths.get(row["id"], "")}
        for row in rows
        if row["status"] in exporter.statuses and (not config.split or row["id"] in paths)
    )
    split = config.split or ("train" if kind == "masks" else "val")
    written = exporter.write(ready, config.out, manifest.classes, manifest.category_ids, split)
    return Outcome([f"export: {written}"])
