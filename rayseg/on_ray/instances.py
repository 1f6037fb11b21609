"""The jobs that train detectors and Mask R-CNNs, and predict instances by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from rayseg.config import (
    PredictInstancesConfig,
    TrainDetectorConfig,
    TrainMaskRCNNConfig,
    as_plain,
)
from rayseg.labels import ObjectLabels, StoredInstances, TrueInstances
from rayseg.nets.registry import NETWORKS
from rayseg.on_ray.bookkeeping import (
    Outcome,
    digest,
    fill_by_images,
    finished_config,
    images_identity,
    open_folder,
    without,
)
from rayseg.on_ray.data import actor_pool
from rayseg.on_ray.objects import fit_detector, fit_mask_rcnn
from rayseg.on_ray.session import gpus_each, session, threads_each
from rayseg.on_ray.start_weights import start_of, weights_identity
from rayseg.on_ray.train import write_figures
from rayseg.stages import InstancePrediction, PredictInstances
from rayseg.store import (
    INSTANCES_SCHEMA,
    Folder,
    claim,
    local_copy,
    read_manifest,
    read_run,
    stored_ids,
)

ROUNDING_ONLY = ("batch_size",)
"""Settings of a prediction that change results by no more than rounding."""


def train_detector(config: TrainDetectorConfig) -> Outcome:
    """Trains the detector of the run on the boxes of one split."""
    run_folder = Folder(config.run)
    folder = run_folder / "detector"
    identity = {"split": config.train_split, "detector": as_plain(config.detector)}
    given = replace(config, detector=start_of(run_folder, config.detector))
    claim(folder, identity | weights_identity(given.detector.weights))
    if not read_run(folder).get("done"):
        with session(config.address, config.run):
            write_figures(folder, fit_detector(given, gpus_each(config.compute)))
    return trained("detector", read_run(folder))


def train_mask_rcnn(config: TrainMaskRCNNConfig) -> Outcome:
    """Trains a Mask R-CNN on each of the labels that are named.

    Raises:
        ValueError: a folder was trained on other images than have labels now.
    """
    run_folder = Folder(config.run)
    if not config.labels:
        raise ValueError("labels must name masks made from boxes or truth, got none")
    images = read_manifest(run_folder / "manifest").select(config.train_split)
    given = replace(config, mask_rcnn=start_of(run_folder, config.mask_rcnn))
    outcome = Outcome()
    # of all before any, since a training takes hours
    sources = [instance_labels(run_folder, name, config.train_split) for name in config.labels]
    with session(config.address, config.run):
        for name, (source, origin) in zip(config.labels, sources, strict=True):
            folder = run_folder / "mask_rcnn" / name
            identity = {"labels": origin, "split": config.train_split}
            identity["mask_rcnn"] = as_plain(config.mask_rcnn)
            identity |= images_identity(images, source.ids)
            claim(folder, identity | weights_identity(given.mask_rcnn.weights))
            if not read_run(folder).get("done"):
                gpus = gpus_each(config.compute)
                write_figures(folder, fit_mask_rcnn(given, folder, source, gpus))
            outcome += trained(f"mask r-cnn {name}", read_run(folder))
    return outcome


def instance_labels(
    run_folder: Folder, name: str, split: str
) -> tuple[ObjectLabels, dict[str, Any]]:
    """The masks of objects of that name, and what made them.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are not complete, or no masks of objects.
    """
    if name == "truth":
        truths = TrueInstances(run_folder / "manifest", split)
        if not truths.ids:
            raise FileNotFoundError(f"no object of split {split!r} has a true mask to train on")
        return truths, read_run(run_folder / "manifest")["config"]
    masks = run_folder / "masks" / name
    facts = read_run(masks)
    if not masks.names(".parquet") or "box_maps" not in facts.get("config", {}):
        have = ", ".join((run_folder / "masks").folders()) or "none"
        raise FileNotFoundError(f"{masks} holds no masks of objects; the run has {have}")
    config = finished_config(masks, "masks", "make-box-masks")
    return StoredInstances(masks), config


def trained(label: str, facts: Mapping[str, Any]) -> Outcome:
    """What to tell of a finished training."""
    last = facts["curve"][-1]
    judged = "".join(
        f", val {name} {100 * value:.1f}"
        for one in facts["judged"][-1:]
        for name, value in one.items()
        if name.startswith("ap") and value is not None
    )
    number, left_out = facts["images"], facts["left_out"]
    lines = [
        f"{label}: loss {last['loss']:.3f} after {last['iteration']} iterations "
        f"on {number} of {number + facts['images_left_out']} images{judged}"
    ]
    if left_out["count"]:
        first = left_out["examples"][0]
        lines.append(
            f"left out: {left_out['count']} boxes, such as one of {first['id']}: {first['reason']}"
        )
    return Outcome(lines, left_out=left_out["count"])


def predict_instances(config: PredictInstancesConfig) -> Outcome:
    """Finds the instances of the val split by each Mask R-CNN that is named, or that there is."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = manifest.select(config.val_split)
    networks = run_folder / "mask_rcnn"
    have = [name for name in networks.folders() if read_run(networks / name).get("done")]
    names = config.labels or tuple(have)
    if not names:
        raise FileNotFoundError(f"{run_folder} has no Mask R-CNN; train one with train-mask-rcnn")
    for name in names:
        if name not in have:
            raise FileNotFoundError(
                f"{networks / name} holds no trained Mask R-CNN; the run has "
                f"{', '.join(have) or 'none'}"
            )
    outcome = Outcome()
    with session(config.address, config.run):
        gpus, threads = gpus_each(compute), threads_each(compute)
        for name in names:
            weights = (networks / name).path(NETWORKS["mask_rcnn"].file)
            # a wrong file is said here
            NETWORKS["mask_rcnn"].load(local_copy(weights), manifest.classes)
            folder = run_folder / "instances" / name
            open_folder(folder, prediction_identity(config.instances, weights), compute)
            waiting = without(chosen.table, stored_ids(folder))
            make = partial(
                PredictInstances, config.instances, weights, manifest.classes, compute.device,
                threads,
            )  # fmt: skip
            pool = actor_pool(compute, make, gpus)
            outcome += fill_by_images(folder, waiting, pool, INSTANCES_SCHEMA, f"instances {name}")
    return outcome


def prediction_identity(prediction: InstancePrediction, weights: str) -> dict[str, object]:
    """What predicted instances follow from, image by image."""
    plain = as_plain(prediction)
    kept = {key: plain[key] for key in plain if key not in ROUNDING_ONLY}
    return {"weights": digest(weights), "instances": kept}
