"""One folder of results: the status and the undecided share of every image, and its rows by id."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Int32
from numpy import ndarray

from rayseg.report.view.table import STATUSES, Judged
from rayseg.store import (
    Folder,
    RowsById,
    parts_of,
    peek_index,
    read_rows_about,
    read_shard,
    shard_columns,
    shard_sizes,
)

LIGHT = ("id", "status", "error", "note", "height", "width", "seconds", "labels", "ignored")
"""Columns that a page of many images needs; maps and objects are left on the disk."""
FACTS = ("id", "seconds", "note", "classes", "scores", "gains", "steps")
"""Columns of seeds that are numbers and words."""


@dataclass(frozen=True, eq=False)
class ResultFolder:
    """A folder of results as it was when it was opened.

    Attributes:
        name: such as ``masks/advcam+label_crf``.
        folder: where it lies.
        shards: sizes of its shards in bytes, by name.
        part_of: where the row of each id lies: its shard, and its place in it over GROUP_ROWS.
        status: (n,) place of each image's status in STATUSES.
        undecided: (n,) share of each image's pixels that are 255; nan where it has no mask.
        missing: (n,) share of each image's tags that its mask lacks; nan until it was counted.
    """

    name: str
    folder: Folder
    shards: Mapping[str, int]
    part_of: Mapping[str, tuple[str, int]]
    status: Int32[ndarray, " n"]
    undecided: Float32[ndarray, " n"]
    missing: Float32[ndarray, " n"]

    @classmethod
    def open(cls, run: Folder, name: str, place_of: Mapping[str, int]) -> Self:
        """Reads the index, and of the rows themselves only the undecided share; writes nothing.

        Args:
            place_of: number of each image of the run; rows of other images are left out.
        """
        folder = run / name
        sizes = shard_sizes(folder)
        lines = peek_index(folder).select(["id", "status", "shard"]).to_pylist()
        part_of, parts = {}, dict[tuple[str, int], tuple[str, int]]()
        status = np.zeros(len(place_of), np.int32)
        for line, part in zip(lines, parts_of(lines), strict=True):
            if line["id"] in place_of:
                part_of[line["id"]] = parts.setdefault(part, part)
                status[place_of[line["id"]]] = STATUSES.index(line["status"])
        undecided, missing = (np.full(len(place_of), np.nan, np.float32) for _ in range(2))
        for id_, share in _undecided(folder, {shard for shard, _ in parts}):
            if id_ in part_of:
                undecided[place_of[id_]] = share
        undecided[status != STATUSES.index("ok")] = np.nan
        return cls(name, folder, sizes, part_of, status, undecided, missing)

    @property
    def judged(self) -> Judged:
        """What images are filtered and sorted by."""
        return Judged(self.status, {"undecided": self.undecided, "missing": self.missing})

    @cached_property
    def light(self) -> RowsById:
        """The rows by id, without what is large; those that were read last are held."""
        return self._rows(LIGHT)

    def row(self, id_: str) -> dict[str, Any] | None:
        """The whole row of one image; None where it has none."""
        return self._rows(None)[id_] if id_ in self.part_of else None

    def facts(self, id_: str) -> dict[str, Any] | None:
        """The numbers and words of one image's row, without its maps."""
        return self._rows(FACTS)[id_] if id_ in self.part_of else None

    def _rows(self, columns: tuple[str, ...] | None) -> RowsById:
        have = shard_columns(self.folder, next(iter(self.shards))) if self.shards else []
        wanted = None if columns is None else [name for name in columns if name in have]
        return RowsById(self.part_of, partial(read_rows_about, self.folder, columns=wanted))


def _undecided(folder: Folder, shards: set[str]) -> Iterator[tuple[str, float]]:
    """Ids and undecided shares of the rows of shards that have such a column."""
    for shard in sorted(shards):
        if "ignored" in shard_columns(folder, shard):
            table = read_shard(folder, shard, ["id", "ignored"])
            shares = table.column("ignored").to_numpy()  # nan where there is none
            yield from zip(table.column("id").to_pylist(), shares, strict=True)
