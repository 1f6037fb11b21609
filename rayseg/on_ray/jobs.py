"""The jobs: a configuration in, a folder of the run filled, what came out said.

Every job can be killed and started again with the same configuration; it finishes the rest. A
folder that was filled under another configuration is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rayseg.config import (
    ClassifierConfig,
    ExportConfig,
    PredictConfig,
    PrepareConfig,
    RefineSeedsConfig,
    ScoreConfig,
    TrainClassifierConfig,
    TrainFickleNetConfig,
    TrainSegmenterConfig,
    as_plain,
)
from rayseg.export import EXPORTERS
from rayseg.labels import LabelSource, StoredMasks, Truths
from rayseg.nets.registry import NETWORKS
from rayseg.on_ray.bookkeeping import (
    Outcome,
    digest,
    fill_by_images,
    fill_from,
    finished_config,
    images_identity,
    open_folder,
    read_ids,
    without,
)
from rayseg.on_ray.classifier import fit_classifier, fit_ficklenet
from rayseg.on_ray.data import actor_pool, task_pool
from rayseg.on_ray.object_scoring import holds_objects
from rayseg.on_ray.scoring import score_run
from rayseg.on_ray.segmenter import fit_segmenter, trainable_ids
from rayseg.on_ray.session import count_cores, gpus_each, session, threads_each
from rayseg.on_ray.start_weights import start_of, weights_identity
from rayseg.on_ray.table import score_table
from rayseg.on_ray.train import write_figures
from rayseg.report import write_report
from rayseg.stages import PredictLabels, RefineSeeds, SaliencyMaps, SmoothLabels
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

MAX_NAMED = 50
"""Masks left out of a training that its run.json names; all are counted."""


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


def train_classifier(config: TrainClassifierConfig) -> Outcome:
    """Trains the classifier of the run."""
    fit = partial(fit_classifier, config)
    return _train_on_tags("classifier", config, config.classifier, fit)


def train_ficklenet(config: TrainFickleNetConfig) -> Outcome:
    """Trains the network of method ficklenet."""
    fit = partial(fit_ficklenet, config)
    return _train_on_tags("ficklenet", config, config.ficklenet_classifier, fit)


def _train_on_tags(
    kind: str,
    config: TrainClassifierConfig | TrainFickleNetConfig,
    network: ClassifierConfig,
    fit: Callable[[float], list[dict[str, Any]]],
) -> Outcome:
    folder = Folder(config.run) / kind
    identity = {"split": config.train_split, kind: as_plain(network)}
    claim(folder, identity | weights_identity(network.weights))
    if not read_run(folder).get("done"):
        with session(config.address, config.run):
            epochs = fit(gpus_each(config.compute))
        write_figures(folder, {"epochs": epochs, "seconds": sum(e["seconds"] for e in epochs)})
    last = read_run(folder)["epochs"][-1]
    return Outcome(
        [
            f"{kind}: loss {last['loss']:.3f}, mAP {last['map']:.3f}, F1 {last['f1']:.3f} "
            f"on {last['judged_on']} after {last['epoch']} epochs"
        ]
    )


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


def train_segmenter(config: TrainSegmenterConfig) -> Outcome:
    """Trains a segmenter on each of the labels that are named.

    Raises:
        ValueError: a folder was trained on other images than have labels now.
    """
    compute, run_folder = config.compute, Folder(config.run)
    if not config.labels:
        raise ValueError(f"labels must name masks or truth, got none{_have(run_folder, 'masks')}")
    images = read_manifest(run_folder / "manifest").select(config.train_split)
    given = replace(config, segmenter=start_of(run_folder, config.segmenter))
    outcome = Outcome()
    # of all before any, since a training takes hours
    sources = [_labels(run_folder, name, config.train_split) for name in config.labels]
    with session(config.address, config.run):
        for name, (source, origin) in zip(config.labels, sources, strict=True):
            folder = run_folder / "segmenters" / name
            identity = {"labels": origin, "split": config.train_split}
            identity["segmenter"] = as_plain(config.segmenter)
            identity |= images_identity(images, source.ids)
            claim(folder, identity | weights_identity(given.segmenter.weights))
            if not read_run(folder).get("done"):
                ids, problems = trainable_ids(config, folder, source)
                facts = fit_segmenter(given, folder, source, ids, gpus_each(compute))
                examples = [{"id": i, "reason": problems[i]} for i in sorted(problems)[:MAX_NAMED]]
                left_out = {"count": len(problems), "examples": examples}
                told = {name: facts[name] for name in ("curve", "judged", "seconds")}
                write_figures(folder, told | {"images": len(ids), "left_out": left_out})
            outcome += _trained(name, read_run(folder))
    return outcome


def _labels(run_folder: Folder, name: str, split: str) -> tuple[LabelSource, dict[str, Any]]:
    """The labels of that name, and what made them.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are not complete.
    """
    if name == "truth":
        truths = Truths(run_folder / "manifest", split)
        if not truths.ids:
            raise FileNotFoundError(f"no image of split {split!r} has a true mask to train on")
        return truths, read_run(run_folder / "manifest")["config"]
    masks = run_folder / "masks" / name
    if not masks.names(".parquet"):
        raise FileNotFoundError(f"{masks} holds no masks{_have(run_folder, 'masks')}")
    job = "make-box-masks" if holds_objects(masks) else "refine-seeds"
    config = finished_config(masks, "masks", job)
    manifest = read_manifest(run_folder / "manifest")
    return StoredMasks(masks, len(manifest.classes)), config


def _have(run_folder: Folder, kind: str) -> str:
    return f"; the run has {', '.join((run_folder / kind).folders()) or 'none'}"


def _trained(name: str, facts: dict[str, Any]) -> Outcome:
    last = facts["curve"][-1]
    judged = [f", val mIoU {100 * one['miou']:.1f}" for one in facts["judged"][-1:]]
    lines = [
        f"segmenter {name}: loss {last['loss']:.3f} after {last['iteration']} iterations "
        f"on {facts['images']} images{''.join(judged)}"
    ]
    left_out = facts["left_out"]
    if left_out["count"]:
        first = left_out["examples"][0]
        lines.append(
            f"left out: {left_out['count']} masks, such as that of {first['id']}: {first['reason']}"
        )
    return Outcome(lines, left_out=left_out["count"])


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
            weights = (run_folder / "segmenters" / name).path(NETWORKS["segmenter"].file)
            # a wrong file is said here
            NETWORKS["segmenter"].load(local_copy(weights), manifest.classes)
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
        raise FileNotFoundError(f"{masks} holds no masks{_have(run_folder, kind)}")
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
