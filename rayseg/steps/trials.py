"""A sweep's trials, wherever they run: what makes them, the images that they share, their counts.

What a trial has counted is stored after each slice of images, under a name that follows from its
setting.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch

from rayseg.config import TuneConfig, as_plain
from rayseg.labels import StoredRows, Truths
from rayseg.nets.detectors import load_detector
from rayseg.networks import NETWORKS
from rayseg.scores import thresholds_every
from rayseg.stages import (
    DecodeImages,
    MaskTrial,
    ObjectTrial,
    SeedTrial,
    Trial,
    TrialImage,
    TrueObjects,
    WalkTrial,
    boxed_image,
    choose_device,
    class_numbers,
    lengthened,
    network_kind,
    tagged_image,
)
from rayseg.steps.box_analysis import spread_objects
from rayseg.steps.boxes import READ
from rayseg.steps.engine import Engine
from rayseg.steps.machine import threads_each
from rayseg.steps.refiners import network_of
from rayseg.steps.scoring import labels_of
from rayseg.steps.seeds import SharedBank, identity
from rayseg.steps.sources import asked_for, digest
from rayseg.steps.spaces import Space
from rayseg.steps.weights import choose_detector, find_weights
from rayseg.store import (
    DamagedError,
    Folder,
    hash_ids,
    in_one_line,
    local_copy,
    read_manifest,
    read_run,
    row_digest,
    unpack_seeds,
)

logger = logging.getLogger(__name__)

SEEDS_COLUMNS = ("height", "width", "classes", "maps")
NOTHING: dict[str, Any] = {
    "slices": 0,
    "images": 0,
    "seconds": 0.0,
    "course": [],
    "figures": [],
    "failed": {},
    "stopped": False,
    "done": False,
}
"""What a trial has counted before its first slice."""


@dataclass(frozen=True)
class Plan:
    """What makes a trial of a setting, wherever it runs.

    Attributes:
        config: of the job.
        space: that is searched, its values as they were asked for.
        classes: of the run.
        bank: gives the companions, for a method that uses some.
    """

    config: TuneConfig
    space: Space
    classes: tuple[str, ...]
    bank: Any = None

    @classmethod
    def of(cls, config: TuneConfig, space: Space) -> Plan:
        """The plan; every setting of the grid is tried on the method's fields here.

        Raises:
            ValueError: values that the method or refiner refuses, or a class without such a name.
        """
        places: dict[str, Any] = {
            name: Folder(place).location  # as the driver has them; trials run elsewhere
            for name in ("run", *(network.given_as for network in NETWORKS.values()))
            if (place := getattr(config, name, ""))
        }
        classes = read_manifest(Folder(config.run) / "manifest").classes
        plan = cls(replace(config, **places), space, classes)
        for value in space.read_off.get("num_steps", ()):
            space.setting(plan.asked, {"num_steps": value})
            if value < 1:
                raise ValueError(f"num_steps must be 1 or more in a sweep, got {value}")
        plan._refiners(plan.asked)
        for combined in product(*space.grid.values()):
            space.setting(plan.base, dict(zip(space.grid, combined, strict=True)))
        labels_of(config.over, plan.classes)
        return plan

    @property
    def folder(self) -> Folder:
        """Where the sweep's trials and results lie."""
        name = self.space.name
        own = f"{self.config.seeds_of}+{name}" if self.space.kind == "masks" else name
        return Folder(self.config.run) / "tuning" / (self.config.sweep or own)

    @property
    def asked(self) -> Any:
        """The method or refiner as the flags have it."""
        if self.space.kind == "masks":
            return self.config.refiner(self.space.name, self.config.seeds_of)
        return getattr(self.config, self.space.name)

    @property
    def base(self) -> Any:
        """The same, with the most steps that are read off; a refiner with the most of each."""
        if self.space.kind == "masks":
            most = {name: max(values) for name, values in self.space.read_off.items()}
            return self.space.setting(self.asked, most)
        return lengthened(self.asked, self.space.read_off.get("num_steps", ()))

    @property
    def known(self) -> dict[str, Any]:
        """What the flags say of every field that may be searched or read off."""
        crf = as_plain(self.config.box_crf)
        return as_plain(self.asked) | {f"box_crf.{name}": crf[name] for name in crf}

    def identity(self, chosen: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What counts follow from, beside the searched fields."""
        config, run_folder = self.config, Folder(self.config.run)
        found: dict[str, Any] = {
            "images": hash_ids(row["id"] + _content(row) for row in chosen),
            "slice_images": config.slice_images,
            "read_off": self.space.read_off,
            "threshold_step": config.threshold_step,
            "over": list(config.over),
        }
        if self.space.kind == "seeds":
            kind = self.base.network_kind
            found["method"] = identity(config, self.space.name, digest(find_weights(config, kind)))
        elif self.space.kind == "objects":
            found["detector"] = digest(choose_detector(config).address)
            found["refiner"] = as_plain(config.box_crf)
        else:
            found["seeds"] = read_run(run_folder / "seeds" / config.seeds_of).get("config", {})
            if network_kind(self.base):
                weights = network_of(config, self.space.name, config.seeds_of)
                found["weights"] = digest(weights)
        plain = as_plain(self.base)
        free = {*self.space.domains, *getattr(self.base, "rounding_only", ())}
        kept = {key: plain[key] for key in plain if key not in free}
        found["method"] = found.get("method", {}) | {self.space.name: kept}
        return json.loads(json.dumps(found))

    def choose(self) -> list[dict[str, Any]]:
        """Rows of the manifest: a fixed draw of the images that have a truth.

        Raises:
            ValueError: there is none.
        """
        config = self.config
        manifest = read_manifest(Folder(config.run) / "manifest")
        chosen = asked_for(manifest, config.split, config.ids)
        if self.space.kind == "objects":
            known = spread_objects(chosen, self.true_objects, config.max_images)
            rows = known.table.to_pylist()
        else:
            with_truth = self.truths.ids
            rows = [row for row in chosen.table.to_pylist() if row["id"] in with_truth]
        if not rows:
            raise ValueError(f"no image of split {config.split!r} has a truth to tune by")
        rows.sort(key=lambda row: row["id"])
        order = np.random.default_rng(config.tune_seed).permutation(len(rows))
        return [rows[i] for i in order[: config.max_images or len(rows)]]

    @property
    def truths(self) -> Truths:
        """True labels."""
        return _truths(Folder(self.config.run) / "manifest", self.config.split)

    @property
    def true_objects(self) -> TrueObjects:
        """True masks of objects."""
        return _true_objects(Folder(self.config.run) / "manifest", self.config.split)

    def with_bank(self, engine: Engine) -> Plan:
        """With the companions that the method needs, cut now."""
        if self.space.kind != "seeds" or not self.base.uses_companions:
            return self
        bank = SharedBank(Folder(self.config.run), self.config.companions, engine)
        return Plan(self.config, self.space, self.classes, bank.reader)

    def image(self, row: dict[str, Any]) -> TrialImage:
        """An image of the manifest with its truth."""
        (decoded,) = DecodeImages(untagged=True)([row])
        if self.space.kind == "objects":
            return boxed_image(decoded, self.true_objects)
        seeds = None
        if self.space.kind == "masks":
            folder = Folder(self.config.run) / "seeds" / self.config.seeds_of
            seeds = unpack_seeds(_stored_rows(folder, SEEDS_COLUMNS, "map").row(row["id"]))
        return tagged_image(decoded, self.truths, seeds)

    def trial(self, setting: dict[str, Any]) -> Trial:
        """The trial of a setting."""
        config, kind = self.config, self.space.kind
        made = self.space.setting(self.base, setting)
        over = labels_of(config.over, self.classes)
        threads = threads_each(config.compute)
        torch.set_num_threads(threads)
        device = choose_device(config.compute.device)
        read, refiners = self._refiners(made)
        if kind == "masks":
            if kind_asked := network_kind(made):
                weights = network_of(config, self.space.name, config.seeds_of)
                made = made.prepare(
                    _network(kind_asked, weights, self.classes, str(device)), device
                )
            if self.space.read_off:
                return WalkTrial(made, refiners, read, len(self.classes), over)
            return MaskTrial(made, len(self.classes), over)
        if kind == "seeds":
            weights = find_weights(config, made.network_kind)
            network = _network(made.network_kind, weights, self.classes, str(device))
            prepared = made.prepare(network, device, self.bank() if self.bank else None)
            steps = self.space.read_off.get("num_steps", ())
            thresholds = thresholds_every(config.threshold_step)
            return SeedTrial(made, prepared, steps, thresholds, len(self.classes), over)
        chosen = choose_detector(config)
        named = chosen.classes or self.classes
        detector = made.prepare(load_detector(local_copy(chosen.address), named), device)
        return ObjectTrial(made, detector, class_numbers(self.classes, named), refiners, read)

    def _refiners(self, made: Any) -> tuple[list[dict[str, Any]], list[Any]]:
        """What is read off a map or a walk, and the refiner for each.

        Args:
            made: the method or refiner of a trial.
        """
        base = made if self.space.kind == "masks" else self.config.box_crf
        off = {} if self.space.kind == "seeds" else self.space.read_off
        read = [dict(zip(off, combined, strict=True)) for combined in product(*off.values())]
        own = [{key.rpartition(".")[2]: one[key] for key in one} for one in read]
        return read, [self.space.setting(base, values) for values in own]


@lru_cache(maxsize=2)
def _network(kind: str, weights: str, classes: tuple[str, ...], device: str) -> torch.nn.Module:
    """Loaded once a process; the trials that it runs one after the other share it."""
    return NETWORKS[kind].load(local_copy(weights), classes).to(device)


# once a process each: tasks are many and short, the manifest of a large data set is long
_truths = lru_cache(maxsize=1)(Truths)
_true_objects = lru_cache(maxsize=1)(TrueObjects)
_stored_rows = lru_cache(maxsize=1)(StoredRows)


def run_trial(
    setting: dict[str, Any],
    plan: Plan,
    slices: list[list[Any]],
    left_out: dict[str, str],
    folder: Folder,
    load: Callable[[Any], TrialImage],
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Counts slice after slice, and reports after each; what is stored is not counted again.

    What is stored is reported again, since the search may be a new one. An image that a setting
    fails on counts for nothing in that trial, and is named in its file.
    """
    trial, metric = plan.trial(setting), plan.space.metric
    complete = plan.space.complete(plan.base, setting)
    nothing = {"setting": complete, "left_out": sorted(left_out)} | NOTHING
    name = _name(complete)
    counts, facts = _read_counts(folder, name) or (trial.zeros(), nothing)
    if facts["left_out"] != nothing["left_out"]:  # counts of other images
        counts, facts = trial.zeros(), nothing
    for images, best in facts["course"]:
        report({metric: best, "images": images})
    if facts["stopped"] and plan.config.stop_early != "none":
        return
    for i in range(facts["slices"], len(slices)):
        start, failed = time.perf_counter(), dict(facts["failed"])
        for reference in slices[i]:
            image = load(reference)
            try:
                counts = counts + trial.count(image)
            except (torch.AcceleratorError, torch.OutOfMemoryError):
                raise
            except Exception as error:
                failed[image.id] = f"{type(error).__name__}: {error}"
        images = facts["images"] + len(slices[i])
        if images and len(failed) == images:
            raise ValueError(f"no image can be counted: {next(iter(failed.values()))}")
        if i + 1 == len(slices) and not counts.any():
            raise ValueError("no pixel of the images counts: true masks must have others than 255")
        figures = trial.figures(counts)
        best = max(one[metric] for one in figures)
        facts |= {
            "slices": i + 1,
            "images": images,
            "seconds": facts["seconds"] + time.perf_counter() - start,
            "course": [*facts["course"], [images, best]],
            "figures": figures,
            "failed": failed,
            "stopped": False,
            "done": i + 1 == len(slices),
        }
        _write_counts(folder, name, counts, facts)
        report({metric: best, "images": images})


def mark_stopped(setting: dict[str, Any], plan: Plan, folder: Folder) -> None:
    """Notes that the search ended a trial before its last slice."""
    name = _name(plan.space.complete(plan.base, setting))
    stored = _read_counts(folder, name)
    if stored and not stored[1]["done"]:
        _write_counts(folder, name, stored[0], stored[1] | {"stopped": True})


def _name(complete: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(complete, sort_keys=True).encode()).hexdigest()[:16]


def _write_counts(folder: Folder, name: str, counts: Any, facts: dict[str, Any]) -> None:
    """Counts and what they are of, in one file, so that neither can be without the other."""
    sink = io.BytesIO()
    encoded = np.frombuffer(json.dumps(facts, default=float).encode(), np.uint8)
    np.savez_compressed(sink, counts=counts, facts=encoded)
    (folder / "trials").write(f"{name}.npz", sink.getvalue())


def _read_counts(folder: Folder, name: str) -> tuple[Any, dict[str, Any]] | None:
    if not (folder / "trials").exists(f"{name}.npz"):
        return None
    try:
        return read_trial(folder, f"{name}.npz")
    except DamagedError as error:
        logger.warning("%s is damaged (%s): the trial is counted again", error.path, error.reason)
        return None


def read_trial(folder: Folder, name: str) -> tuple[Any, dict[str, Any]]:
    """What a trial of a sweep has counted, and the facts.

    Raises:
        DamagedError: its file is not as it was written.
    """
    data = (folder / "trials").read(name)
    try:
        with np.load(io.BytesIO(data)) as arrays:  # whose parts have checksums
            return arrays["counts"], json.loads(arrays["facts"].tobytes())
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DamagedError(folder / "trials", name, in_one_line(error, data)) from None


def stored_trials(folder: Folder) -> Iterator[dict[str, Any]]:
    """The result of each trial that the folder holds."""
    for name in (folder / "trials").names(".npz"):
        try:
            yield read_trial(folder, name)[1]
        except DamagedError as error:
            logger.warning("%s is damaged (%s) and left out", error.path, error.reason)


def _content(row: dict[str, Any]) -> str:
    """Digest of what is read of an image; empty where an earlier version did not note it."""
    if not row["image_digest"]:
        return ""
    read = {name: row[name] for name in ("image_digest", "mask_digest", "tags", *READ)}
    return row_digest(read | ({"seen_side": row["seen_side"]} if row["seen_side"] else {}))
