"""The jobs that train detectors and Mask R-CNNs, and predict instances by them."""

from __future__ import annotations

from functools import partial
from typing import cast

from rayseg.config import (
    PredictInstancesConfig,
    as_plain,
)
from rayseg.nets.detectors.mask_rcnn import load_mask_rcnn
from rayseg.on_ray.bookkeeping import fill_by_images, open_folder, without
from rayseg.on_ray.data import actor_pool
from rayseg.on_ray.session import gpus_each, session, threads_each
from rayseg.on_ray.training_engine import TrainingEngine
from rayseg.stages import InstancePrediction, PredictInstances
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import digest
from rayseg.steps.training import train
from rayseg.store import (
    INSTANCES_SCHEMA,
    Folder,
    local_copy,
    read_manifest,
    read_run,
    stored_ids,
)

ROUNDING_ONLY = ("batch_size",)
"""Settings of a prediction that change results by no more than rounding."""


train_detector, train_mask_rcnn = (
    partial(train, kind, engine=cast("Engine", TrainingEngine()))
    for kind in ("detector", "mask_rcnn")
)


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
            weights = (networks / name).path("mask_rcnn.safetensors")
            load_mask_rcnn(local_copy(weights), manifest.classes)  # a wrong file is said here
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
