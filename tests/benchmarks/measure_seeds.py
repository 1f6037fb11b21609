"""Seeds of all tag methods on a list of images: a table, and RIB's course over its steps.

Run from the repository root, on a run folder with a manifest, a classifier and, for FickleNet, its
network; what stands behind ``--`` are flags of ``rayseg make-seeds``:

    python tests/benchmarks/measure_seeds.py --list IDS -- --config FILE.toml

Mean IoU in percent at the best background threshold, which is chosen on these images; over the
classes that are named, and over all that are present.

The course is Figure 3.15's: the maps k = 0..K added, for every K, so that K = 0 is CAM. With
``--rates`` it is taken for each learning rate instead, which is how the rates of
jobs/presets/voc_rib.toml were found, on images of no other list.
"""

import argparse
import json
import multiprocessing
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from rayseg.attribution import RIB, Localization
from rayseg.cli import parse
from rayseg.config import MakeSeedsConfig, as_plain
from rayseg.labels import Truths
from rayseg.networks import NETWORKS
from rayseg.records import Seeds
from rayseg.scores import ThresholdSweep
from rayseg.stages import enlarge, fill_bank
from rayseg.store import MAP_STRIDE, Folder, read_manifest, read_pixels

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "tests/benchmarks/results"
THRESHOLDS = [n / 100 for n in range(100)]
ANIMALS = ["cat", "cow", "dog", "horse", "person", "sheep"]


def methods(config, rates):
    """Name to method; of RIB one for each pooling, or for each pooling and rate."""
    found = {}
    for name in config.methods:
        if name != "rib":
            found[name] = config.method(name)
            continue
        for pooling in ("gap", "gndrp"):
            rib = replace(config.rib, pooling=pooling)
            for rate in rates or [rib.learning_rate]:
                suffix = f" {rate:g}" if rates else ""
                found[f"rib-{pooling}{suffix}"] = replace(rib, learning_rate=rate)
    return found


def courses(method, network, pixels, classes, id_):
    """Localizations of one image: RIB's after each map, any other method's one."""
    if not isinstance(method, RIB):
        return method.run(network, torch.from_numpy(pixels)[None], [classes], MAP_STRIDE, [id_])
    whole = replace(method, add_last=True)
    found = list(whole.course(network, torch.from_numpy(pixels), classes, id_, MAP_STRIDE))
    return found + found[-1:] * (whole.num_steps + 1 - len(found))


def count(config, method, samples):
    """Sweeps over some images, one for each map of the course; seconds; and images' notes."""
    torch.set_num_threads(1)
    run = Folder(config.run)
    manifest = read_manifest(run / "manifest")
    truths = Truths(run / "manifest", config.split)
    kind = method.network_kind
    weights = getattr(config, "weights" if kind == "classifier" else "ficklenet_weights")
    network = NETWORKS[kind].load(
        weights or (run / kind).path(f"{kind}.safetensors"), manifest.classes
    )
    bank = None
    if method.uses_companions:
        tagged = manifest.select(config.companions.split).samples()
        bank = fill_bank(tagged, len(manifest.classes), config.companions)
    prepared = method.prepare(network, companions=bank)
    totals, notes, start = {}, [], time.perf_counter()
    for sample in samples:
        pixels = read_pixels(sample)
        truth = truths.read(sample.id, pixels.shape[:2])
        for k, found in enumerate(courses(method, prepared, pixels, sample.tags, sample.id)):
            sweep = sweep_of(found, sample, truth, len(manifest.classes))
            totals[k] = totals[k] + sweep if k in totals else sweep
        notes.append(found.note)
    return totals, time.perf_counter() - start, notes


def sweep_of(found: Localization, sample, truth, num_classes):
    maps = found.maps.float().cpu().numpy().clip(0, 1)
    full = enlarge(Seeds(sample.id, sample.tags, maps, truth.shape))
    return ThresholdSweep.of(truth, full, sample.tags, num_classes, THRESHOLDS)


def measure(config, method, samples, pool, processes, over):
    """The figures of one method."""
    shares = [samples[i::processes] for i in range(processes)]
    parts = pool.map(partial(count, config, method), shares)
    sweeps = [sum((p[0][k] for p in parts[1:]), parts[0][0][k]) for k in parts[0][0]]
    notes = [note for part in parts for note in part[2] if note]
    kept = sweeps[:-1] if len(sweeps) > 1 and not method.add_last else sweeps
    facts = figures(kept[-1], over) | {
        "seconds_per_image": max(part[1] for part in parts) / max(map(len, shares)),
        "noted": len(notes),
        "notes": sorted(notes)[:3],
    }
    if len(sweeps) > 1:
        facts["course"] = [figures(sweep, over) for sweep in sweeps]
    return facts


def figures(sweep, over):
    curve, present = sweep.mean_iou(over), sweep.mean_iou()
    best = int(np.nanargmax(curve))
    return {
        "miou": round(100 * float(curve[best]), 2),
        "threshold": THRESHOLDS[best],
        "present": round(100 * float(np.nanmax(present)), 2),
    }


def draw(results, path):
    """Figure 3.15: mean IoU over K for each pooling."""
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, facts in results.items():
        if "course" in facts:
            curve = [one["miou"] for one in facts["course"]]
            axes.plot(range(len(curve)), curve, marker="o", markersize=3, label=name)
    axes.set(xlabel="K, steps of RIB", ylabel="seed mIoU in %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", type=Path, help="image ids, one a line")
    parser.add_argument("--over", nargs="+", default=ANIMALS)
    parser.add_argument("--rates", nargs="+", type=float, default=[])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--name", default="seeds", help="of the files in results/ and docs/")
    parser.add_argument("flags", nargs="*", help="behind --: flags of rayseg make-seeds")
    return parser.parse_args()


def main():
    given = options()
    config = parse(MakeSeedsConfig, given.flags, "measure_seeds.py")
    manifest = read_manifest(Folder(config.run) / "manifest")
    ids = given.list.read_text().split() if given.list else None
    samples = list(manifest.select(config.split, ids).samples())
    over = [0, *(manifest.classes.index(name) + 1 for name in given.over)]
    results = {}
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for name, method in methods(config, given.rates).items():
            facts = measure(config, method, samples, pool, given.processes, over)
            results[name] = facts
            course = " ".join(f"{one['miou']:.1f}" for one in facts.get("course", []))
            print(
                f"{name:20} {facts['miou']:5.1f} at {facts['threshold']:.2f}, present "
                f"{facts['present']:5.1f}, {facts['seconds_per_image']:.1f} s an image, "
                f"{facts['noted']} noted {facts['notes'][:1]} {course}",
                flush=True,
            )
    settings = {
        name: {part: as_plain(method) for part, method in config.parts(name).items()}
        for name in config.methods
    }
    facts = {"images": len(samples), "over": given.over, "settings": settings}
    facts["rates"] = given.rates
    facts["companions"] = as_plain(config.companions)
    (RESULTS / f"{given.name}.json").write_text(
        json.dumps(facts | {"results": results}, indent=1) + "\n"
    )
    if any("course" in one for one in results.values()):
        draw(results, ROOT / "docs" / f"{given.name}.png")


if __name__ == "__main__":
    main()
