"""The jobs that make maps of objects from boxes, and masks from the maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rayseg.config import AskDetectorConfig, MakeBoxMapsConfig, MakeBoxMasksConfig, as_plain
from rayseg.nets.detectors import load_detector
from rayseg.nets.registry import NETWORKS
from rayseg.on_ray.bookkeeping import (
    Outcome,
    digest,
    fill_by_images,
    fill_from,
    finished_config,
    open_folder,
    read_ids,
    without,
)
from rayseg.on_ray.data import actor_pool, task_pool
from rayseg.on_ray.session import gpus_each, session, threads_each
from rayseg.stages import (
    MISSED,
    FolderProposals,
    MakeBoxMaps,
    OwnProposals,
    RefineBoxMaps,
)
from rayseg.store import (
    BOX_MAPS_SCHEMA,
    INSTANCES_SCHEMA,
    Folder,
    local_copy,
    read_manifest,
    read_rows,
    stored_ids,
)


@dataclass(frozen=True)
class ChosenDetector:
    """The detector of a job.

    Attributes:
        address: of its weights.
        classes: its class names; empty where they are the run's.
    """

    address: str
    classes: tuple[str, ...]


def make_box_maps(config: MakeBoxMapsConfig) -> Outcome:
    """Makes the maps of each method."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = manifest.select(config.split, read_ids(config.ids))
    detector = choose_detector(config)
    _check(config, detector, manifest.classes)
    fingerprint = digest(detector.address)
    outcome = Outcome()
    with session(config.address, config.run):
        gpus, threads = gpus_each(compute), threads_each(compute)
        for name in config.box_methods:
            method, label = config.box_method(name), f"box maps {name}"
            folder = run_folder / "box_maps" / name
            open_folder(folder, _identity(config, name, fingerprint), compute)
            waiting = without(chosen.table, stored_ids(folder))
            make = partial(
                MakeBoxMaps, method, detector.address, manifest.classes, detector.classes,
                config.boxes, config.min_score, compute.device, threads,
            )  # fmt: skip
            pool = actor_pool(compute, make, gpus)
            outcome += fill_by_images(folder, waiting, pool, BOX_MAPS_SCHEMA, label)
            outcome += _without_map(folder, label)
    return outcome


def _check(config: MakeBoxMapsConfig, chosen: ChosenDetector, classes: Sequence[str]) -> None:
    """Refuses here what every image would be refused for, when its folder is already bound."""
    detector = load_detector(local_copy(chosen.address), chosen.classes or classes)
    for name in config.box_methods:
        config.box_method(name).check(detector)


def choose_detector(config: AskDetectorConfig) -> ChosenDetector:
    """The detector that is asked for, else the run's own.

    Raises:
        FileNotFoundError: there is none.
    """
    own, file = Folder(config.run) / "detector", NETWORKS["detector"].file
    given = config.detector_weights
    if not given and not own.exists(file):
        raise FileNotFoundError(
            f"{own} holds no {file}; make it with `rayseg train-detector`, or name "
            "one by --detector-weights"
        )
    address = given or own.path(file)
    local = address if "://" in address else str(Path(address).absolute())
    return ChosenDetector(local, config.classes_of_detector(address))


def _identity(config: MakeBoxMapsConfig, name: str, fingerprint: str) -> dict[str, Any]:
    """What the maps of a method follow from, image by image."""
    method = config.box_method(name)
    plain = as_plain(method)
    found: dict[str, Any] = {
        name: {key: plain[key] for key in plain if key not in method.rounding_only}
    }
    found |= {"weights": fingerprint, "boxes": config.boxes}
    if config.detector_classes:
        found["detector_classes"] = list(config.detector_classes)
    return found | ({"min_score": config.min_score} if config.boxes == "predicted" else {})


def _without_map(folder: Folder, label: str) -> Outcome:
    """Says how many objects have no map, and why the first of them has none."""
    missed, others, total = 0, [], 0
    for row in read_rows(folder, ["id", "object_status"]):
        total += len(row["object_status"])
        missed += row["object_status"].count(MISSED)
        others += [(row["id"], s) for s in row["object_status"] if s not in ("ok", MISSED)]
    lines = [f"{label}: {missed} of {total} objects are never found by the detector"]
    if others:
        id_, status = others[0]
        lines.append(f"{label}: {len(others)} objects have no map, such as of {id_}: {status}")
    return Outcome(lines if missed else lines[1:], left_out=len(others))


def make_box_masks(config: MakeBoxMasksConfig) -> Outcome:
    """Makes the masks of each method by each refiner."""
    compute, run_folder = config.compute, Folder(config.run)
    proposals = _proposals(config)
    outcome = Outcome()
    with session(config.address, config.run):
        for method, name in product(config.box_methods, config.box_refiners):
            maps = run_folder / "box_maps" / method
            label = config.box_mask_name(method, name)
            refiner = config.box_refiner(name)
            folder = run_folder / "masks" / label
            identity = {
                name: as_plain(refiner),
                "box_maps": finished_config(maps, "maps", "make-box-maps"),
                "semantic_masks": as_plain(config.semantic_masks),
            }
            open_folder(folder, identity | _identity_of(proposals, config), compute)
            make = partial(
                RefineBoxMaps,
                refiner,
                run_folder / "manifest",
                proposals,
                config.proposal_refinement,
                keep_nested=config.semantic_masks.keep_nested,
            )
            pool = task_pool(compute, make)
            outcome += fill_from(maps, folder, pool, INSTANCES_SCHEMA, f"masks {label}")
    return outcome


def _identity_of(
    proposals: FolderProposals | OwnProposals | None, config: MakeBoxMasksConfig
) -> dict[str, Any]:
    """What masks follow from besides maps and refiner."""
    if proposals is None:
        return {}
    told = {"proposal_refinement": as_plain(config.proposal_refinement)}
    if isinstance(proposals, FolderProposals):
        return told | {"proposals": proposals.folder.location}
    return told | {"proposals": config.proposals, "superpixels": as_plain(config.superpixels)}


def _proposals(config: MakeBoxMasksConfig) -> FolderProposals | OwnProposals | None:
    if config.proposals == "none":
        return None
    if config.proposals == "superpixels":
        return OwnProposals(config.superpixels)
    folder = Folder(config.proposals)
    if not folder.exists():
        raise FileNotFoundError(
            f"proposals must be none, superpixels or a folder; {folder} does not exist"
        )
    return FolderProposals(folder)
