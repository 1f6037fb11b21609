"""The jobs: a configuration in, a folder of the run filled, what came out said.

Every job can be killed and started again with the same configuration; it finishes the rest. A
folder that was filled under another configuration is refused.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa

from rayseg.config import (
    Compute,
    ExportConfig,
    MakeSeedsConfig,
    PrepareConfig,
    RefineSeedsConfig,
    RunConfig,
    ScoreConfig,
    TrainClassifierConfig,
    as_plain,
    as_toml,
)
from rayseg.export import EXPORTERS
from rayseg.nets.classifier import load_classifier
from rayseg.on_ray.data import (
    actor_pool,
    decoded,
    manifest_rows,
    pending_rows,
    task_pool,
    write_rows,
)
from rayseg.on_ray.scoring import score_run
from rayseg.on_ray.session import gpus_each, session, threads_each
from rayseg.on_ray.train import WEIGHTS, fit_classifier, write_figures
from rayseg.report import write_report
from rayseg.stages import DecodeImages, MakeSeeds, RefineSeeds
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    claim,
    count_status,
    failed_ids,
    find_pending,
    forget_failed,
    forget_repeats,
    local_copy,
    read_file,
    read_manifest,
    read_rows,
    read_run,
    stored_ids,
    write_manifest,
    write_run,
)


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        lines: what to tell the user.
        failed: ids of images that have a row saying why they have no result.
    """

    lines: list[str] = field(default_factory=list)
    failed: frozenset[str] = frozenset()

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.lines + other.lines, self.failed | other.failed)


def prepare(config: PrepareConfig) -> Outcome:
    """Reads the data set and writes the manifest."""
    run_folder = Folder(config.run)
    folder = run_folder / "manifest"
    dataset = config.dataset()
    plain = as_plain(dataset)
    files = {name: _digest(value) for name, value in plain.items() if Path(str(value)).is_file()}
    claim(folder, {"data": config.data, config.data: plain, "files": files})
    if not folder.exists("manifest.parquet"):
        workspace = Path((run_folder / "images").location)
        write_manifest(folder, dataset.samples(workspace), dataset.classes)
    manifest = read_manifest(folder)
    counts = Counter(manifest.table.column("split").to_pylist())
    write_run(folder, {"counts": counts})
    splits = ", ".join(f"{number} {split}" for split, number in counts.items())
    return Outcome([f"manifest: {splits}; {len(manifest.classes)} classes"])


def train_classifier(config: TrainClassifierConfig) -> Outcome:
    """Trains the classifier of the run."""
    folder = Folder(config.run) / "classifier"
    identity = {"split": config.train_split, "classifier": as_plain(config.classifier)}
    if Path(config.classifier.weights).is_file():
        identity["weights"] = _digest(config.classifier.weights)
    claim(folder, identity)
    if not read_run(folder).get("done"):
        with session(config.address):
            epochs = fit_classifier(config, gpus_each(config.compute))
        write_figures(folder, epochs)
    last = read_run(folder)["epochs"][-1]
    return Outcome(
        [
            f"classifier: loss {last['loss']:.3f}, mAP {last['map']:.3f}, F1 {last['f1']:.3f} "
            f"on {last['judged_on']} after {last['epoch']} epochs"
        ]
    )


def make_seeds(config: MakeSeedsConfig) -> Outcome:
    """Makes the localization maps of each method."""
    compute, run_folder = config.compute, Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    chosen = manifest.select(config.split, read_ids(config.ids))
    weights = config.weights or (run_folder / "classifier").path(WEIGHTS)
    weights = weights if "://" in weights else str(Path(weights).absolute())
    load_classifier(local_copy(weights), manifest.classes)  # a wrong file is said here
    fingerprint = _digest(weights)
    outcome = Outcome()
    with session(config.address):
        gpus, threads = gpus_each(compute), threads_each(compute)
        for name in config.methods:
            method = config.method(name)
            folder = run_folder / "seeds" / name
            identity = as_plain(method)
            del identity["max_pairs"]  # changes rounding only
            _open(folder, {name: identity, "weights": fingerprint}, compute)
            waiting = _without(chosen.table, stored_ids(folder))
            if waiting.num_rows:
                make = partial(
                    MakeSeeds, method, weights, manifest.classes, compute.device, threads
                )
                rows = manifest_rows(waiting, folder / "pending", compute.block_rows)
                source = decoded(rows, DecodeImages(), folder)
                pool = actor_pool(compute, make, gpus)
                seconds = write_rows(
                    source, waiting.num_rows, pool, folder, SEEDS_SCHEMA, f"seeds {name}"
                )
                (folder / "pending").remove()
                _add_seconds(folder, seconds)
            outcome += _close(folder, f"seeds {name}")
    return outcome


def refine_seeds(config: RefineSeedsConfig) -> Outcome:
    """Makes the masks of each method by each refiner."""
    compute, run_folder = config.compute, Folder(config.run)
    outcome = Outcome()
    with session(config.address):
        for method, name in product(config.methods, config.refiners):
            seeds = run_folder / "seeds" / method
            if not seeds.names(".parquet"):
                raise FileNotFoundError(f"{seeds} holds no seeds; make them with make-seeds")
            refiner = config.refiner(name, method)
            label = f"{method}+{name}"
            folder = run_folder / "masks" / label
            identity = {name: as_plain(refiner), "seeds": read_run(seeds)["config"]}
            _open(folder, identity, compute)
            pending = find_pending(seeds, stored_ids(folder))
            if pending.rows:
                make = partial(RefineSeeds, refiner, run_folder / "manifest")
                pool = task_pool(compute, make)
                source = pending_rows(pending, compute.block_rows)
                seconds = write_rows(
                    source, pending.rows, pool, folder, MASKS_SCHEMA, f"masks {label}"
                )
                _add_seconds(folder, seconds)
            outcome += _close(folder, f"masks {label}")
    return outcome


def score(config: ScoreConfig) -> Outcome:
    """Scores all seeds and masks of the run into scores.json, and writes the report."""
    run_folder = Folder(config.run)
    read_manifest(run_folder / "manifest").select(config.split)
    with session(config.address):
        scored = score_run(run_folder, config, read_ids(config.ids))
    lines = _table(scored.entries)
    if scored.skipped:
        id_ = min(scored.skipped)
        number = len(scored.skipped)
        lines.append(f"not scored: {number} of bad truth, such as {id_}: {scored.skipped[id_]}")
    lines.append(f"report: {write_report(run_folder, config.split)}")
    return Outcome(lines, frozenset(scored.skipped))


def _table(scores: dict[str, dict[str, Any]]) -> list[str]:
    """The scores as a person reads them: per cent, seeds before masks.

    ``over`` is the mIoU over the classes that the job was given, ``present`` the one over the
    labels that the truth holds.
    """
    if not scores:
        return ["scores: none, no true mask in the split or no seeds and masks in the run"]
    names = sorted(scores, key=lambda name: (not name.startswith("seeds"), name))
    shown = [name for name in names if scores[name]["images"]]
    rows = [_table_row(scores[name]) for name in shown]
    width = max(len(name) for name in names)
    titles = [title for title in (rows[0] if rows else {}) if any(row[title] for row in rows)]
    lines = [" " * width + "".join(f"  {title:>9}" for title in titles)] if rows else []
    for name, row in zip(shown, rows, strict=True):
        lines.append(f"{name:{width}}" + "".join(f"  {row[title]:>9}" for title in titles))
    none = [name for name in names if name not in shown]
    return lines + [f"{name}: no image has both a result and a usable true mask" for name in none]


def _table_row(entry: dict[str, Any]) -> dict[str, str]:
    """The figures of an entry by the title of their column; empty where there is none."""
    figures = {
        "mIoU": entry["miou"],
        "over": entry["over"]["miou"],
        "present": entry["present"]["miou"],
        "precision": entry["precision"],
        "recall": entry["recall"],
        "F1": entry["f1"],
    }
    shown = {name: "" if share is None else f"{100 * share:.1f}" for name, share in figures.items()}
    threshold = entry["threshold"]
    return shown | {"threshold": "" if threshold is None else f"{threshold:.2f}"}


def run(config: RunConfig) -> Outcome:
    """All jobs in order; what is done already is skipped."""
    outcome = prepare(config)
    Folder(config.run).write("run.toml", as_toml(config).encode())
    with session(config.address):
        if not config.weights:
            outcome += train_classifier(config)
        outcome += make_seeds(config)
        outcome += refine_seeds(config)
        outcome += score(config)
    return outcome


def export(config: ExportConfig) -> Outcome:
    """Writes the masks of a run in a foreign format."""
    run_folder = Folder(config.run)
    manifest = read_manifest(run_folder / "manifest")
    masks = run_folder / "masks" / config.masks
    if not masks.names(".parquet"):
        have = ", ".join((run_folder / "masks").folders()) or "none"
        raise FileNotFoundError(f"{masks} holds no masks; the run has {have}")
    rows = read_rows(masks, ["id", "status", "labels"])
    ready = ((row["id"], row["labels"]) for row in rows if row["status"] == "ok")
    number = EXPORTERS[config.format](ready, config.out, manifest.classes, config.split)
    return Outcome([f"export: {number} masks in {config.out}"])


# What the jobs share


def read_ids(path: str) -> list[str] | None:
    """Image ids of a text file, one a line; None where no file is named.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path:
        return None
    data = read_file(path)
    if data is None:
        raise FileNotFoundError(f"list of image ids {path} does not exist")
    return data.decode("utf-8-sig").split()


def _digest(address: str) -> str:
    return hashlib.sha256(read_file(address) or b"").hexdigest()


def _open(folder: Folder, identity: dict[str, object], compute: Compute) -> None:
    claim(folder, identity)
    if compute.retry_failed:
        forget_failed(folder)


def _without(table: pa.Table, stored: set[str]) -> pa.Table:
    return table.filter([id_ not in stored for id_ in table.column("id").to_pylist()])


def _add_seconds(folder: Folder, seconds: float) -> None:
    """Wall seconds add up over the runs that a folder took."""
    write_run(folder, {"seconds": read_run(folder).get("seconds", 0.0) + seconds})


def _close(folder: Folder, label: str) -> Outcome:
    forget_repeats(folder)
    counts = count_status(folder)
    write_run(folder, {"counts": counts})
    said = ", ".join(f"{number} {status}" for status, number in counts.items())
    return Outcome([f"{label}: {said}"], failed_ids(folder))
