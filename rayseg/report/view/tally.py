"""Tags held against masks: a slow count of all masks beside what is asked for, in the background.

Which classes a mask has is known only once it is decoded, a millisecond or two each.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rayseg.records import IGNORE
from rayseg.records.palette import decode_labels
from rayseg.report.view.results import ResultFolder
from rayseg.report.view.table import ImageTable
from rayseg.store import read_rows_about

_NEEDED = ["id", "status", "labels"]


class TagTally:
    """Counts a folder's masks class by class, once, in a thread of its own.

    Args:
        table: the images with their tags.
        place_of: number of each image.
        results: the folder; the shares of tags that masks lack are written into its `missing`.
        busy: whether somebody waits for something else just now.
    """

    def __init__(
        self,
        table: ImageTable,
        place_of: Mapping[str, int],
        results: ResultFolder,
        busy: Callable[[], bool] = lambda: False,
    ):
        self.total, self.done = len(results.part_of), 0
        self.why = ""
        classes = len(table.classes)
        self.tagged, self.found = (np.zeros(classes, np.int64) for _ in range(2))
        self.covered = np.zeros(classes, np.float64)
        self._table, self._place_of, self._results, self._busy = table, place_of, results, busy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, daemon=True)

    def start(self) -> None:
        """Begins to count."""
        self._thread.start()

    def wait(self) -> None:
        """Until all is counted."""
        self._thread.join()

    def stop(self) -> None:
        """Ends the count where it is."""
        self._stop.set()

    def as_dict(self) -> dict[str, Any]:
        """How far it is, and what was found of each class.

        That is the images with its tag and a mask, how many of these masks have the class, and the
        mean share of these images that it covers.
        """
        rows = zip(self.tagged.tolist(), self.found.tolist(), self.covered.tolist(), strict=True)
        return {
            "done": self.done,
            "total": self.total,
            "why": self.why,
            "classes": [
                {"tagged": n, "found": found, "covered": share / n if n else None}
                for n, found, share in rows
            ],
        }

    def _count(self) -> None:
        for part in dict.fromkeys(self._results.part_of.values()):
            while self._busy() and not self._stop.is_set():
                time.sleep(0.05)
            if self._stop.is_set():
                return
            try:
                rows = read_rows_about(self._results.folder, part, _NEEDED).to_pylist()
                mine = [row for row in rows if self._results.part_of.get(row["id"]) == part]
                for row in mine:
                    self._add(row)
            except (OSError, ValueError) as error:  # written anew just now, or damaged
                self.why = str(error)
                continue
            self.done += len(mine)

    def _add(self, row: Mapping[str, Any]) -> None:
        number = self._place_of[row["id"]]
        tags = self._table.tags_of(number)
        if row["status"] != "ok" or not row.get("labels") or not tags:
            return
        labels = decode_labels(row["labels"])
        shares = np.bincount(labels.ravel(), minlength=IGNORE + 1)[1:IGNORE] / labels.size
        self.tagged[tags] += 1
        self.found[tags] += shares[tags] > 0
        self.covered[tags] += shares[tags]
        self._results.missing[number] = np.mean(shares[tags] == 0)
