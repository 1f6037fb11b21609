"""The jobs that make maps of objects from boxes, and masks from the maps."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

from rayseg.config import MakeBoxMapsConfig, MakeBoxMasksConfig, as_plain
from rayseg.nets.detectors import load_detector
from rayseg.stages import MISSED, FolderProposals, MakeBoxMaps, OwnProposals, RefineBoxMaps
from rayseg.steps.chosen import Chosen
from rayseg.steps.engine import Engine
from rayseg.steps.machine import threads_each
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import asked_for, digest, finished_config, read_ids
from rayseg.steps.step import Fill, Step, carry_out
from rayseg.steps.weights import ChosenDetector, choose_detector
from rayseg.store import Folder, local_copy, read_manifest, read_rows

READ = ("boxes_xyxy", "box_classes", "crowds")
"""Columns of the manifest that maps of objects follow from."""


def make_box_maps(config: MakeBoxMapsConfig, engine: Engine) -> Outcome:
    """Makes the maps of each method."""
    manifest = read_manifest(Folder(config.run) / "manifest")
    asked_for(manifest, config.split, config.ids)
    _check(config, choose_detector(config), manifest.classes)
    with engine.open(config.address, config.run):
        return carry_out(box_map_steps(config), engine, config.compute)


def box_map_steps(config: MakeBoxMapsConfig) -> Iterator[Step]:
    """A folder of maps of objects for each method."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = Chosen(run_folder / "manifest", config.split, read_ids(config.ids), READ)
    detector = choose_detector(config)
    fingerprint = digest(detector.address)
    for name in config.box_methods:
        label = f"box maps {name}"
        make = partial(
            MakeBoxMaps, config.box_method(name), detector.address, manifest.classes,
            detector.classes, config.boxes, config.min_score, compute.device,
            threads_each(compute),
        )  # fmt: skip
        yield Step(
            "box_maps",
            run_folder / "box_maps" / name,
            _identity(config, name, fingerprint),
            Fill(chosen, make, weights=detector.address),
            label,
            partial(_without_map, label),
        )


def _check(config: MakeBoxMapsConfig, chosen: ChosenDetector, classes: Sequence[str]) -> None:
    """Refuses here what every image would be refused for, when its folder is already bound."""
    detector = load_detector(local_copy(chosen.address), chosen.classes or classes)
    for name in config.box_methods:
        config.box_method(name).check(detector)


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


def _without_map(label: str, folder: Folder) -> Outcome:
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


def make_box_masks(config: MakeBoxMasksConfig, engine: Engine) -> Outcome:
    """Makes the masks of each method by each refiner."""
    _proposals(config)  # a missing folder fails here
    with engine.open(config.address, config.run):
        return carry_out(box_mask_steps(config), engine, config.compute)


def box_mask_steps(config: MakeBoxMasksConfig) -> Iterator[Step]:
    """A folder of masks of objects for each method and refiner."""
    run_folder, proposals = Folder(config.run), _proposals(config)
    for method, name in product(config.box_methods, config.box_refiners):
        maps = run_folder / "box_maps" / method
        label = config.box_mask_name(method, name)
        refiner = config.box_refiner(name)
        identity = {
            name: as_plain(refiner),
            "box_maps": finished_config(
                run_folder, maps, "maps", f"make-box-maps --box-methods {method}"
            ),
            "semantic_masks": as_plain(config.semantic_masks),
        }
        make = partial(
            RefineBoxMaps,
            refiner,
            run_folder / "manifest",
            proposals,
            config.proposal_refinement,
            keep_nested=config.semantic_masks.keep_nested,
        )
        yield Step(
            "object_masks",
            run_folder / "masks" / label,
            identity | _identity_of(proposals, config),
            Fill(maps, make, keeps_network=False),
            f"masks {label}",
        )


def _identity_of(
    proposals: FolderProposals | OwnProposals | None, config: MakeBoxMasksConfig
) -> dict[str, Any]:
    """What masks follow from besides maps and refiner."""
    if proposals is None:
        return {}
    facts = {"proposal_refinement": as_plain(config.proposal_refinement)}
    if isinstance(proposals, FolderProposals):
        return facts | {"proposals": proposals.folder.location}
    return facts | {"proposals": config.proposals, "superpixels": as_plain(config.superpixels)}


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
