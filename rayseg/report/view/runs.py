"""A run that is looked at: its images by number, its folders of results, one image in full."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from rayseg.records import IGNORE, Sample
from rayseg.records.palette import decode_labels
from rayseg.report.contents import RESULTS, Score, final_score, number, read_scores, reading_order
from rayseg.report.examples import Example, make_example
from rayseg.report.panels import LabelNames, Mark
from rayseg.report.view.cache import Recent
from rayseg.report.view.results import ResultFolder
from rayseg.report.view.table import STATUSES, ImageTable
from rayseg.report.view.tally import TagTally
from rayseg.store import (
    KINDS,
    MANIFEST_SCHEMA,
    Folder,
    Manifest,
    manifest_rows_by_id,
    rows_to_table,
    shard_names,
    shard_sizes,
)

MASKS = tuple(
    dict.fromkeys(k.folder for k in KINDS.values() if k.schema and "labels" in k.schema.names)
)
"""Folders of a run whose folders hold masks."""
ZOOMED = 900
"""Pixels of the longer side of an image that is looked at alone."""
_FACTS_HELD = 20_000
_BUSY_SECONDS = 0.4
_OF_OBJECTS = ("boxes_xyxy", "box_classes", "difficult", "crowds", "true_masks")
_LIGHT = [name for name in MANIFEST_SCHEMA.names if name not in _OF_OBJECTS]


@dataclass(frozen=True)
class Seen:
    """What one mask shows of an image.

    Attributes:
        status: of the row, one of STATUSES.
        why: why there is no mask, or what was done to the image.
        undecided: share of pixels that are 255; None without a mask.
        shares: (label, share of the pixels) of each class, the largest first.
        marks: letters of the labels, where they are.
    """

    status: str
    why: str = ""
    undecided: float | None = None
    shares: tuple[tuple[int, float], ...] = ()
    marks: tuple[Mark, ...] = ()


class ViewedRun:
    """A run folder, read and never written; for many threads.

    `asked` is the monotonic time at which somebody last asked for something; counts wait then.

    Args:
        run: its folder.

    Raises:
        FileNotFoundError: the run has no manifest.
        ValueError: its manifest is damaged.
    """

    def __init__(self, run: Folder):
        self.run = run
        self.name = run.location.rstrip("/").rpartition("/")[2]
        self.table = ImageTable.read(run)
        self.names = LabelNames(self.table.classes)
        self.place_of = {id_: place for place, id_ in enumerate(self.table.ids)}
        self.asked = 0.0
        self._manifest_rows = manifest_rows_by_id(run / "manifest", self.table.ids, _LIGHT)
        self._opened: dict[str, ResultFolder] = {}
        self._tallies: dict[str, TagTally] = {}
        self._seen = Recent[Seen](_FACTS_HELD, lambda _: 1)
        self._lock = threading.RLock()

    def _is_busy(self) -> bool:
        return time.monotonic() - self.asked < _BUSY_SECONDS

    def renew(self) -> None:
        """Forgets folders of results that have changed since they were opened."""
        with self._lock:
            for name, opened in list(self._opened.items()):
                if shard_sizes(self.run / name) != opened.shards:
                    del self._opened[name]
                    if name in self._tallies:
                        self._tallies.pop(name).stop()

    def close(self) -> None:
        """Ends the counts."""
        with self._lock:
            for tally in self._tallies.values():
                tally.stop()

    def stages(self) -> list[str]:
        """Folders of results, in the order in which a run makes them."""
        names = [f"{kind}/{name}" for kind in RESULTS for name in (self.run / kind).folders()]
        return sorted((n for n in names if shard_names(self.run / n)), key=reading_order)

    def results(self) -> list[str]:
        """Those of them that hold masks, the one to begin with first: the best, or the last."""
        found = [name for name in self.stages() if name.partition("/")[0] in MASKS]
        best = final_score(self._scores)
        masks = [name for name in found if name.startswith("masks/")]
        first = best.name if best and best.name in masks else (masks or found or [""])[-1]
        return [first, *(name for name in found if name != first)] if found else []

    @cached_property
    def _scores(self) -> list[Score]:
        return read_scores(self.run)

    def result(self, name: str) -> ResultFolder:
        """A folder of results that the run has.

        Raises:
            LookupError: it has no such folder.
        """
        with self._lock:
            if name not in self._opened:
                if name not in self.stages():
                    raise LookupError(f"{self.run} has no {name}")
                self._opened[name] = ResultFolder.open(self.run, name, self.place_of)
            return self._opened[name]

    def tally(self, name: str) -> TagTally:
        """The count of tags against a folder's masks, begun now where it was not.

        Raises:
            LookupError: there is no such folder.
        """
        opened = self.result(name)
        with self._lock:
            if name not in self._tallies:
                made = TagTally(self.table, self.place_of, opened, self._is_busy)
                self._tallies[name] = made
                made.start()
            return self._tallies[name]

    def sample(self, id_: str, true_masks: bool = False) -> Sample:
        """The manifest's row of an image.

        Args:
            true_masks: with its objects, their boxes and true masks.

        Raises:
            LookupError: the run has no such image.
        """
        if id_ not in self.place_of:
            raise LookupError(f"{self.run} has no image {id_!r}")
        rows = self._manifest_rows
        if true_masks:
            rows = manifest_rows_by_id(self.run / "manifest", [id_], MANIFEST_SCHEMA.names)
        table = rows_to_table([rows[id_]], MANIFEST_SCHEMA)
        return next(Manifest(self.table.classes, table).samples())

    def labels_png(self, result: str, id_: str) -> bytes:
        """The stored mask, an indexed PNG; empty where there is none.

        Raises:
            LookupError: there is no such folder.
        """
        opened = self.result(result)
        return (opened.light[id_].get("labels") or b"") if id_ in opened.part_of else b""

    def seen(self, result: str, id_: str) -> Seen:
        """What the mask of an image shows.

        Raises:
            LookupError: there is no such folder.
        """
        opened = self.result(result)
        if id_ not in opened.part_of:
            return Seen(STATUSES[0], "not made yet")
        return self._seen.get((result, id_, opened.part_of[id_]), lambda: self._look(opened, id_))

    def _look(self, opened: ResultFolder, id_: str) -> Seen:
        row = opened.light[id_]
        why = row.get("error") or row.get("note") or ""
        if row["status"] != "ok" or not row.get("labels"):
            return Seen(row["status"], why)
        labels = decode_labels(row["labels"])
        counts = np.bincount(labels.ravel(), minlength=IGNORE + 1) / labels.size
        order = sorted(np.flatnonzero(counts[1:IGNORE]) + 1, key=lambda label: -counts[label])
        shares = tuple((int(label), float(counts[label])) for label in order)
        return Seen("ok", why, float(counts[IGNORE]), shares, self.names.marks(labels))

    def example(self, id_: str) -> Example:
        """One image with its truth and all its results, as the report shows it, but larger.

        Raises:
            LookupError: the run has no such image.
        """
        rows = {name: {id_: row} for name in self.stages() if (row := self.result(name).row(id_))}
        of_objects = any("object_status" in row[id_] for row in rows.values())
        cuts = {score.name: score.number("threshold") for score in self._scores}
        thresholds = {name: cut for name, cut in cuts.items() if cut is not None}
        sample = self.sample(id_, true_masks=of_objects)
        return make_example(sample, self.names, rows, thresholds, ZOOMED)

    def seeds_facts(self, id_: str) -> Iterator[dict[str, Any]]:
        """Of each folder of seeds what it says of an image: seconds, steps, scores and gains."""
        for name in self.stages():
            if name.startswith("seeds/") and (facts := self.result(name).facts(id_)):
                of_classes = zip(facts["classes"], facts["scores"], facts["gains"], strict=False)
                yield {
                    "name": name,
                    "steps": facts["steps"],
                    "seconds": number(facts["seconds"]),
                    "classes": [(index, number(s), number(g)) for index, s, g in of_classes],
                }
