"""The jobs that apply segmenters and Mask R-CNNs to the images of a split."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from rayseg.config import Compute, PredictConfig, PredictInstancesConfig, as_plain
from rayseg.networks import NETWORKS
from rayseg.stages import InstancePrediction, PredictInstances, PredictLabels, SmoothLabels
from rayseg.steps.chosen import Chosen
from rayseg.steps.engine import Engine
from rayseg.steps.machine import count_cores, threads_each
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import digest
from rayseg.steps.step import Fill, Step, carry_out
from rayseg.store import Folder, local_copy, read_manifest, read_run

ROUNDING_ONLY = ("batch_size",)
"""Settings of a prediction that change results by no more than rounding."""


def predict(config: PredictConfig, engine: Engine) -> Outcome:
    """Labels the images of the val split by each segmenter that is named, or that there is."""
    _check(config, "segmenter")
    with engine.open(config.address, config.run):
        compute = config.compute
        slots = engine.slots(compute)
        if config.crf and not slots.gpus and not compute.actors and slots.actors > 1:
            # the CRF needs as much of the cores
            compute = replace(compute, actors=max(count_cores() // 2, 1), threads=1)
        return carry_out(prediction_steps(config, compute), engine, compute)


def prediction_steps(config: PredictConfig, compute: Compute) -> Iterator[Step]:
    """A folder of labels for each segmenter."""
    run_folder = Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = Chosen(run_folder / "manifest", config.val_split)
    for name, weights in _trained(config, "segmenter").items():
        label = f"{name}+crf" if config.crf else name
        identity = {"weights": digest(weights), "predict": as_plain(config.predict)}
        if config.crf:
            identity["segmenter_crf"] = as_plain(config.segmenter_crf)
            identity["min_probability"] = config.min_probability
        make = partial(
            PredictLabels, config.predict, weights, manifest.classes, compute.device,
            threads_each(compute), config.crf, config.min_probability,
        )  # fmt: skip
        smooth = partial(SmoothLabels, config.segmenter_crf) if config.crf else None
        yield Step(
            "predictions",
            run_folder / "predictions" / label,
            identity,
            Fill(chosen, make, then=smooth, weights=weights),
            f"predictions {label}",
        )


def predict_instances(config: PredictInstancesConfig, engine: Engine) -> Outcome:
    """Finds the instances of the val split by each Mask R-CNN that is named, or that there is."""
    _check(config, "mask_rcnn")
    with engine.open(config.address, config.run):
        return carry_out(instance_steps(config), engine, config.compute)


def instance_steps(config: PredictInstancesConfig) -> Iterator[Step]:
    """A folder of instances for each Mask R-CNN."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = Chosen(run_folder / "manifest", config.val_split)
    for name, weights in _trained(config, "mask_rcnn").items():
        make = partial(
            PredictInstances, config.instances, weights, manifest.classes, compute.device,
            threads_each(compute),
        )  # fmt: skip
        yield Step(
            "instances",
            run_folder / "instances" / name,
            prediction_identity(config.instances, weights),
            Fill(chosen, make, weights=weights),
            f"instances {name}",
        )


def prediction_identity(prediction: InstancePrediction, weights: str) -> dict[str, Any]:
    """What predicted instances follow from, image by image."""
    plain = as_plain(prediction)
    kept = {key: plain[key] for key in plain if key not in ROUNDING_ONLY}
    return {"weights": digest(weights), "instances": kept}


def _check(config: PredictConfig | PredictInstancesConfig, kind: str) -> None:
    """Says here what is wrong with a file of weights, or with the split."""
    manifest = read_manifest(Folder(config.run) / "manifest")
    manifest.select(config.val_split)
    for weights in _trained(config, kind).values():
        NETWORKS[kind].load(local_copy(weights), manifest.classes)


def _trained(config: PredictConfig | PredictInstancesConfig, kind: str) -> dict[str, str]:
    """The weights of each network that is named, or that the run has trained.

    Raises:
        FileNotFoundError: there is none, or not the one that is named.
    """
    network, run_folder = NETWORKS[kind], Folder(config.run)
    folder = run_folder / network.place
    have = [name for name in folder.folders() if read_run(folder / name).get("done")]
    names = config.labels or tuple(have)
    if not names:
        raise FileNotFoundError(f"{run_folder} has no {network.noun}; train one with {network.job}")
    for name in names:
        if name not in have:
            raise FileNotFoundError(
                f"{folder / name} holds no trained {network.noun}; the run has "
                f"{', '.join(have) or 'none'}"
            )
    return {name: (folder / name).path(network.file) for name in names}
