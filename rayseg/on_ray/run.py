"""All jobs of a run in order, from tags or from boxes; what is done already is skipped."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rayseg.config import RunConfig, as_toml
from rayseg.labels import Truths
from rayseg.on_ray.boxes import make_box_maps, make_box_masks
from rayseg.on_ray.instances import (
    predict_instances,
    train_detector,
    train_mask_rcnn,
)
from rayseg.on_ray.jobs import (
    predict,
    prepare,
    refine_seeds,
    score,
    train_classifier,
    train_ficklenet,
    train_segmenter,
)
from rayseg.on_ray.object_scoring import holds_objects
from rayseg.on_ray.seeds import make_seeds
from rayseg.on_ray.session import session
from rayseg.steps.outcome import Outcome
from rayseg.store import Folder, read_manifest
from rayseg.toml import hint


def run(config: RunConfig) -> Outcome:
    """All jobs in order."""
    outcome = prepare(config)
    run_folder = Folder(config.run)
    run_folder.write("run.toml", as_toml(config).encode())
    if config.until == "segmenters":
        check_labels(config, run_folder)
    splits = read_manifest(run_folder / "manifest").table.column("split").to_pylist()
    judged = config.val_split in splits
    with session(config.address, config.run):
        road = from_boxes if config.supervision == "boxes" else from_tags
        outcome += road(config, judged)
        if config.until == "segmenters" and not judged:
            network = "Mask R-CNNs" if config.supervision == "boxes" else "segmenters"
            lacking = "predictions" if config.labels else f"{network}; --labels trains one anyway"
            outcome += Outcome([f"no image is of split {config.val_split!r}, so no {lacking}"])
        outcome += score(config)
    return outcome


def from_tags(config: RunConfig, judged: bool) -> Outcome:
    """Classifier, seeds, masks, segmenters.

    Args:
        config: of the run.
        judged: whether there are images to judge segmenters on.
    """
    outcome = Outcome()
    if not config.weights and config.needs_classifier:
        outcome += train_classifier(config)
    if not config.ficklenet_weights and "ficklenet" in config.network_kinds:
        outcome += train_ficklenet(config)
    outcome += make_seeds(config)
    if config.until != "seeds":
        outcome += refine_seeds(config)
    if config.until == "segmenters" and (judged or config.labels):
        score(config)  # already here, since a segmenter takes hours
        named = replace(config, labels=config.trained_on())
        outcome += train_segmenter(named)
        outcome += predict(named) if judged else Outcome()
    return outcome


def from_boxes(config: RunConfig, judged: bool) -> Outcome:
    """Detector, box maps, masks of objects, Mask R-CNNs.

    Args:
        config: of the run.
        judged: whether there are images to judge Mask R-CNNs on.
    """
    outcome = Outcome()
    if config.trunks_from_classifier:
        outcome += train_classifier(config)
    if not config.detector_weights:
        outcome += train_detector(config)
    outcome += make_box_maps(config)
    if config.until != "seeds":
        outcome += make_box_masks(config)
    if config.until == "segmenters" and (judged or config.labels):
        score(config)  # already here, since a Mask R-CNN takes hours
        named = replace(config, labels=config.trained_on())
        outcome += train_mask_rcnn(named)
        outcome += predict_instances(named) if judged else Outcome()
    return outcome


def check_labels(config: RunConfig, run_folder: Folder) -> None:
    """Refuses at once what would be missing hours later.

    Raises:
        ValueError: labels that the run will not have.
    """
    masks = run_folder / "masks"
    there = [n for n in masks.folders() if config.supervision == "tags" or holds_objects(masks / n)]
    known = {*config.made_masks(), *there}
    if _has_truth(config, run_folder):
        known.add("truth")
    for name in config.labels:
        if name not in known:
            raise ValueError(
                f"labels must be of {', '.join(sorted(known))}, got {name!r}{hint(name, known)}"
            )


def _has_truth(config: RunConfig, run_folder: Folder) -> bool:
    manifest = run_folder / "manifest"
    if config.supervision == "tags":
        return bool(Truths(manifest, config.train_split).ids)
    table = read_manifest(manifest, true_masks=True).select(config.train_split).table
    masks: Collection[list[bytes]] = table.column("true_masks").to_pylist()
    return any(any(own) for own in masks)
