"""The job that repeats the analyses of the dissertation's section 5.5."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np

from rayseg.analyses.boxes import (
    CurveSums,
    HeadAnalysis,
    NoiseAnalysis,
    OverlapAnalysis,
    OverlapSums,
    PositionCounts,
)
from rayseg.analyses.boxes.figures import draw_heads, draw_methods, draw_noise, draw_sizes
from rayseg.config import AnalyseBoxesConfig, as_plain
from rayseg.nets.detectors import load_detector
from rayseg.stages import AnalyseObjects, TrueObjects, Variant
from rayseg.steps.boxes import READ
from rayseg.steps.chosen import Chosen
from rayseg.steps.engine import Engine
from rayseg.steps.machine import threads_each
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import asked_for, digest
from rayseg.steps.step import Fill, Step, carry_out
from rayseg.steps.weights import ChosenDetector, choose_detector
from rayseg.store import Folder, Manifest, local_copy, read_manifest, read_rows, write_run


@dataclass(frozen=True)
class Analysed:
    """The result of an analysis."""

    figures: dict[str, Any]
    picture: bytes
    summary: str


def analyse_boxes(config: AnalyseBoxesConfig, engine: Engine) -> Outcome:
    """Makes the table and picture of each analysis that is asked for."""
    manifest = read_manifest(Folder(config.run) / "manifest")
    _check(config, choose_detector(config), manifest.classes)
    with engine.open(config.address, config.run):
        return carry_out(analysis_steps(config), engine, config.compute)


def analysis_steps(config: AnalyseBoxesConfig) -> Iterator[Step]:
    """A folder of counts for each analysis."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    truths = TrueObjects(run_folder / "manifest", config.split)
    asked = asked_for(manifest, config.split, config.ids)
    chosen = spread_objects(asked, truths, config.max_images)
    detector = choose_detector(config)
    fingerprint = digest(detector.address)
    ids = chosen.table.column("id").to_pylist()
    reads = (*READ, "mask_digest")
    source = Chosen(run_folder / "manifest", ids=ids, reads=reads)
    for name in config.analyses:
        variants = config.variants(name)
        make = partial(
            AnalyseObjects, name, variants, detector.address, manifest.classes, detector.classes,
            truths, config.refiner(), config.noise_seed, compute.device, threads_each(compute),
        )  # fmt: skip
        yield Step(
            "analyses",
            run_folder / "analyses" / name,
            _identity(config, name, detector, fingerprint),
            Fill(source, make, weights=detector.address),
            f"analysis {name}",
            partial(_write, name, [one.name for one in variants], chosen),
        )


def _check(config: AnalyseBoxesConfig, chosen: ChosenDetector, classes: Sequence[str]) -> None:
    """Refuses before the first image what would leave an analysis without any object.

    Raises:
        ValueError: a variant asks what the detector cannot answer.
    """
    detector = load_detector(local_copy(chosen.address), chosen.classes or classes)
    for name in config.analyses:
        for variant in config.variants(name):
            try:
                variant.method.check(detector)
            except ValueError as error:
                raise ValueError(
                    f"analyses must be such as the detector can serve, got {name}, whose "
                    f"{variant.name} it cannot: {error}; name the others by --analyses"
                ) from error


def _identity(
    config: AnalyseBoxesConfig, name: str, detector: ChosenDetector, fingerprint: str
) -> dict[str, Any]:
    """What the numbers of an image's objects follow from."""
    found: dict[str, Any] = {
        "variants": [_plain(one) for one in config.variants(name)],
        "weights": fingerprint,
    }
    if name == "noise":
        found |= {"refiner": as_plain(config.refiner()), "seed": config.noise_seed}
    return found | ({"detector_classes": list(detector.classes)} if detector.classes else {})


def _plain(variant: Variant) -> dict[str, Any]:
    """What its numbers follow from."""
    plain = as_plain(variant)
    own = {k: v for k, v in plain["method"].items() if k not in variant.method.rounding_only}
    return plain | {"method": own}


def spread_objects(manifest: Manifest, truths: TrueObjects, wanted: int) -> Manifest:
    """The images that may hold objects with a truth, or so many of them, evenly spread; 0 is all.

    Raises:
        ValueError: there is none.
    """
    ids = manifest.table.column("id").to_pylist()
    known = sorted(
        id_
        for id_ in ids
        if id_ in truths.rows and (any(truths.rows[id_]["true_masks"]) or id_ in truths.truths.ids)
    )
    if not known:
        raise ValueError("no image has both boxes and a true mask to judge by")
    number = min(wanted, len(known)) or len(known)
    return manifest.select(ids=[known[i * len(known) // number] for i in range(number)])


def _write(name: str, kinds: Sequence[str], chosen: Manifest, folder: Folder) -> Outcome:
    """Makes table and picture of the chosen images' rows; what they come to, in a line.

    Images of an earlier start that are not chosen now keep their rows and do not count.

    Raises:
        ValueError: no object counts.
    """
    stored = {row["id"]: row for row in read_rows(folder, ["id", "error", "objects"])}
    rows = [stored[id_] for id_ in sorted(chosen.table.column("id").to_pylist())]
    objects = [one for row in rows for one in json.loads(row["objects"] or "[]")]
    if not objects:
        why = next((f"; {row['id']}: {row['error']}" for row in rows if row["error"]), "")
        raise ValueError(f"analysis {name} found no object with both a map and a true mask{why}")
    made = ANALYSE[name](kinds, objects)
    folder.write(f"{name}.json", json.dumps(made.figures, indent=1).encode())
    folder.write(f"{name}.png", made.picture)
    write_run(folder, {"said": made.summary, "objects": len(objects)})
    return Outcome([f"{name}: {made.summary}"])


def _analyse_heads(kinds: Sequence[str], objects: list[dict[str, Any]]) -> Analysed:
    parts = [[_of_head(one["told"][kind]) for kind in kinds] for one in objects]
    (box, box_curves), (class_, class_curves) = (
        (reduce(add, counts), reduce(add, curves))
        for counts, curves in (zip(*column, strict=True) for column in zip(*parts, strict=True))
    )
    found = HeadAnalysis(box, class_, box_curves, class_curves)
    summary = (
        f"near the boundary lie {100 * box.near_share:.0f} % of the box head's pixels and "
        f"{100 * class_.near_share:.0f} % of the class head's, {len(objects)} objects"
    )
    return Analysed(found.figures(), draw_heads(found), summary)


def _of_head(figures: dict[str, Any]) -> tuple[PositionCounts, CurveSums]:
    density = np.array(figures["density"], np.int64)
    return (
        PositionCounts(density, figures["near"], figures["pixels"]),
        CurveSums.of(np.array(figures["curve"])),
    )


def _analyse_noise(kinds: Sequence[str], objects: list[dict[str, Any]]) -> Analysed:
    amounts = tuple(float(kind) for kind in kinds)
    values = tuple(float(np.mean([one["told"][kind] for one in objects])) for kind in kinds)
    found = NoiseAnalysis(amounts, values, len(objects))
    shown = ", ".join(f"{a:+.0%} {100 * v:.1f}" for a, v in zip(amounts, values, strict=True))
    return Analysed(found.figures(), draw_noise(found), f"mask IoU by noise: {shown}")


def _analyse_overlaps(
    draw: Callable[[OverlapAnalysis], bytes], kinds: Sequence[str], objects: list[dict[str, Any]]
) -> Analysed:
    sums = {
        kind: reduce(
            add, (OverlapSums.of(np.array(one["told"][kind]), one["share"]) for one in objects)
        )
        for kind in kinds
    }
    found = OverlapAnalysis(sums)
    shown = ", ".join(f"{name} {100 * one.figures()['iou']:.1f}" for name, one in sums.items())
    summary = f"IoU of maps at their best threshold: {shown}, {len(objects)} objects"
    return Analysed(found.figures(), draw(found), summary)


ANALYSE: dict[str, Callable[[Sequence[str], list[dict[str, Any]]], Analysed]] = {
    "heads": _analyse_heads,
    "noise": _analyse_noise,
    "strides": partial(_analyse_overlaps, draw_sizes),
    "methods": partial(_analyse_overlaps, draw_methods),
}
"""What is made of the objects' numbers, by analysis."""
