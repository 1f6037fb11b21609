"""How long a run will take, from a few of its images sent through all of its parts.

Each part is timed as it will run, by the same jobs on the same cluster. What a part does image by
image says itself how long an image took, so that starting processes is not counted as time for
images; a training that counts steps is measured over a few of them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from rayseg.config import DoctorConfig
from rayseg.labels import Truths
from rayseg.learn import TRAININGS
from rayseg.scores import thresholds_every
from rayseg.stages import CountLabels, SweepSeeds
from rayseg.steps.engine import Engine
from rayseg.steps.parts import Part, settings_of
from rayseg.steps.recipe import recipe
from rayseg.steps.sources import asked_for
from rayseg.store import (
    KINDS,
    Folder,
    Manifest,
    claim,
    kind_of,
    lease,
    read_manifest,
    read_rows,
    read_run,
    shard_sizes,
    write_manifest,
)


@dataclass(frozen=True)
class Measured:
    """A part of a run as it was measured, and what all of it will take.

    Attributes:
        name: of its folder.
        seconds: that it took here.
        items: images, or steps, that it had here.
        all_items: that it will have.
        all_seconds: that it will take.
        unit: image or step.
        processes: side by side.
        all_bytes: that it will store.
    """

    name: str
    seconds: float
    items: int
    all_items: int
    all_seconds: float
    unit: str
    processes: int
    all_bytes: float = 0.0


@dataclass(frozen=True)
class Counts:
    """Images here and in all.

    Attributes:
        train: that become maps and masks here.
        val: that are judged on here.
        all_train: that become maps and masks, of which --ids may name some.
        all_learned: that a classifier learns from.
        all_val: that are judged on.
    """

    train: int
    val: int
    all_train: int
    all_learned: int
    all_val: int


def calibrate(config: DoctorConfig, engine: Engine) -> list[Measured]:
    """Runs every part of the run on a few images, in a folder of its own that is gone afterwards.

    The engine must be open, and the run's manifest be there.

    Raises:
        ValueError: the run's own refusals.
    """
    scratch = Folder(config.run) / "calibration"
    with lease(Folder(config.run), "doctor"):
        scratch.remove()
        try:
            counts, few = _few_images(config, scratch / "manifest"), scratch.location
            measuring = _Measuring(config, engine, scratch, counts, shortened(config, few))
            parts = recipe(config, counts.val > 0)
            return [one for part in parts for one in measuring.measure(part)]
        finally:
            scratch.remove()


def _few_images(config: DoctorConfig, folder: Folder) -> Counts:
    manifest = read_manifest(Folder(config.run) / "manifest", true_masks=True)
    train, tagged = (manifest.select(config.split), asked_for(manifest, config.split, config.ids))
    splits = manifest.table.column("split").to_pylist()
    judged = config.val_split in splits and config.until == "segmenters"
    parts = [_draw(tagged, config.calibrate_images)]
    if judged:
        parts.append(_draw(manifest.select(config.val_split), max(config.calibrate_images // 4, 2)))
    table = pa.concat_tables([part.table for part in parts])
    few = replace(manifest, table=table)
    claim(folder, read_run(Folder(config.run) / "manifest")["config"])
    write_manifest(folder, few.samples(), manifest.classes, manifest.category_ids)
    return Counts(
        parts[0].table.num_rows,
        parts[1].table.num_rows if judged else 0,
        config.images or tagged.table.num_rows,
        config.images or train.table.num_rows,
        splits.count(config.val_split) if judged else 0,
    )


def _draw(manifest: Manifest, number: int) -> Manifest:
    """So many images of a manifest, the same each time."""
    ids = sorted(manifest.table.column("id").to_pylist())
    drawn = np.random.default_rng(0).permutation(len(ids))[:number]
    return manifest.select(ids=[ids[i] for i in drawn])


def shortened(config: DoctorConfig, run: str) -> DoctorConfig:
    """The run's configuration with trainings of a few steps, for a folder of its own."""
    images, steps = config.calibrate_images, config.calibrate_steps
    parts = {
        training.field: settings_of(config, kind).shortened(steps, images)
        for kind, training in TRAININGS.items()
    }
    return replace(config, run=run, ids="", **parts)


def _timed(job: Callable[[], Any]) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


@dataclass(frozen=True)
class _Measuring:
    """How the parts of a run are measured."""

    config: DoctorConfig
    engine: Engine
    scratch: Folder
    counts: Counts
    few: DoctorConfig

    def measure(self, part: Part) -> list[Measured]:
        """Does a part's job on the few images; an entry for each folder that it fills."""
        if not part.kind:
            return self._scores(part)
        if part.kind in TRAININGS:
            return [one for name in part.names for one in self._training(part, name)]
        return self._by_image(part)

    def _seconds(self, part: Part, labels: tuple[str, ...]) -> float:
        few = replace(self.few, labels=labels) if labels else self.few
        return _timed(partial(part.job, few, self.engine))

    def _by_image(self, part: Part) -> list[Measured]:
        """A job that fills a folder for each name with rows that say how long they took."""
        whole, kind, counts = self._seconds(part, part.labels), KINDS[part.kind], self.counts
        here, all_ = (counts.val, counts.all_val) if kind.predicted else (
            counts.train, counts.all_train
        )  # fmt: skip
        slots = self.engine.slots(self.config.compute)
        folders = {name: self.scratch / kind.folder / name for name in part.names}
        spent = {name: read_run(one).get("seconds", 0.0) for name, one in folders.items()}
        around = max(whole - sum(spent.values()), 0.0) / len(part.names)
        found = []
        for name, seconds in spent.items():
            folder = folders[name]
            processes = slots.actors if read_run(folder).get("in_actors") else slots.tasks
            rows = list(read_rows(folder, ["seconds"]))
            busy = sum(row["seconds"] for row in rows) / min(processes, max(len(rows), 1))
            start = max(seconds - busy, 0.0) + around
            measured = (seconds + around, here, all_, start + busy * all_ / here)
            stored = sum(shard_sizes(folder).values())
            found.append(
                Measured(
                    f"{kind.folder}/{name}", *measured, "image", processes, stored * all_ / here
                )
            )
        return found

    def _training(self, part: Part, name: str) -> list[Measured]:
        """A training, which counts steps."""
        whole = self._seconds(part, (name,) if name else ())
        label = f"{KINDS[part.kind].folder}/{name}".rstrip("/")
        seconds = read_run(self.scratch / label)["step_seconds"]  # without checkpoints
        settings = settings_of(self.few, part.kind), settings_of(self.config, part.kind)
        images = self.counts.train, self.counts.all_learned
        here, all_ = (one.steps(number) for one, number in zip(settings, images, strict=True))
        takes = whole - seconds + seconds * all_ / here
        return [Measured(label, whole, here, all_, takes, "step", 1)]

    def _scores(self, part: Part) -> list[Measured]:
        """Scores; how long an image takes is asked of the stages themselves."""
        whole, counts = self._seconds(part, ()), self.counts
        processes = self.engine.slots(self.config.compute).tasks
        truths = Truths(self.scratch / "manifest", self.config.split)
        counting = sum(self._counting(truths)) if truths.paths else 0.0
        more = counting / processes * (counts.all_train / counts.train - 1)
        here = (counts.train, counts.all_train)
        return [Measured("scores", whole, *here, whole + more, "image", processes)]

    def _counting(self, truths: Truths) -> Iterator[float]:
        thresholds = thresholds_every(self.config.threshold_step)
        sweep, count = SweepSeeds(truths, thresholds), CountLabels(truths, 0.5)
        stages = {"seeds": (sweep, count), "masks": (CountLabels(truths),)}
        for kind, own in stages.items():
            for name in (self.scratch / kind).folders():
                if kind_of(self.scratch / kind / name) != kind:
                    continue
                rows = [r for r in read_rows(self.scratch / kind / name) if r["status"] == "ok"]
                yield from (_timed(partial(stage, rows)) for stage in own)
