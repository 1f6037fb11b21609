"""The labels of a run that have names: its masks, and the truth."""

from collections.abc import Callable
from typing import Any

from rayseg.labels import ConfidentPixels, Cues, StoredInstances, StoredMasks, TrueInstances, Truths
from rayseg.steps.sources import finished_config, others_there
from rayseg.store import Folder, holds_objects, kind_of, read_manifest, read_run, shard_names


def mask_labels(run_folder: Folder, name: str, split: str) -> tuple[Any, dict[str, Any]]:
    """The masks of that name, and what made them."""
    if name == "truth":
        truths = Truths(run_folder / "manifest", split)
        if not truths.ids:
            raise FileNotFoundError(f"no image of split {split!r} has a true mask to train on")
        return truths, read_run(run_folder / "manifest")["config"]
    masks = run_folder / "masks" / name
    if not shard_names(masks):
        raise FileNotFoundError(f"{masks} holds no masks{others_there(run_folder, 'masks')}")
    config = finished_config(run_folder, masks, "masks", _maker(masks))
    manifest = read_manifest(run_folder / "manifest")
    return StoredMasks(masks, len(manifest.classes)), config


def instance_labels(run_folder: Folder, name: str, split: str) -> tuple[Any, dict[str, Any]]:
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
    if not shard_names(masks) or not holds_objects(masks):
        others = others_there(run_folder, "masks")
        raise FileNotFoundError(f"{masks} holds no masks of objects{others}")
    config = finished_config(run_folder, masks, "masks", _maker(masks))
    return StoredInstances(masks), config


def _maker(masks: Folder) -> str:
    """The job that fills a folder of masks, with the flags that name it."""
    job, methods, refiners = (
        ("make-box-masks", "box-methods", "box-refiners")
        if kind_of(masks) == "object_masks"
        else ("refine-seeds", "methods", "refiners")
    )
    *method, refiner = masks.location.rpartition("/")[2].split("+")
    if not method or refiner in ("saliency", "superpixels", "proposals"):  # it takes other flags
        return job
    return f"{job} --{methods} {'+'.join(method)} --{refiners} {refiner}"


def cue_labels(run_folder: Folder, name: str, split: str) -> tuple[Any, dict[str, Any]]:
    """The cues of that name, seeds or else masks, and what made them.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are not complete, or do not fit their images any more.
    """
    seeds = run_folder / "seeds" / name
    if not shard_names(seeds):
        masks, config = mask_labels(run_folder, name, split)
        return Cues(masks), config
    config = finished_config(run_folder, seeds, "seeds", f"make-seeds --methods {name}")
    return Cues(ConfidentPixels(seeds)), config


NAMED: dict[str, Callable[[Folder, str, str], tuple[Any, dict[str, Any]]]] = {
    "masks": mask_labels,
    "objects": instance_labels,
    "cues": cue_labels,
}
"""What a training learns from to what opens it by its name in the run, for one split."""
