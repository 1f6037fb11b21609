"""Receipts of shards: what was written goes into the index without being read again."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from rayseg.store.folder import Folder
from rayseg.store.index import add_to_index, lines_of
from rayseg.store.shards import place_of_new, put_shard, read_shard, shard_name

SECONDS = 60.0
"""Between two writes of the index; what a killed job has written since is read from its shards."""


def store_rows(folder: Folder, table: pa.Table) -> dict[str, Any]:
    """Writes the rows as one shard and returns its receipt.

    Returns:
        A row: the ``shard``, its size in ``bytes``, its number of ``rows``, and its ``lines`` of
        the index as an Arrow stream.
    """
    name, size = put_shard(folder, table)
    return _receipt(name, size, lines_of(table, name))


def receipt_of_stored(folder: Folder, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The receipt of a shard that lies there and was made of just these rows; None without one.

    A process may be lost with the receipt of what it has stored.

    Args:
        rows: of the source, each with its `id`, and its `digest` where it has one.
    """
    name = place_of_new(folder, shard_name(row["id"] for row in rows))
    try:
        lines, size = lines_of(read_shard(folder, name), name), folder.size(name)
    except (OSError, ValueError, KeyError):  # not there, or damaged: it is made
        return None
    made_of = dict(zip(*lines.select(["id", "follows"]).to_pydict().values(), strict=True))
    fits = made_of == {row["id"]: row.get("digest") or "" for row in rows}
    return _receipt(name, size, lines) if fits else None


def _receipt(name: str, size: int, lines: pa.Table) -> dict[str, Any]:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, lines.schema) as writer:
        writer.write_table(lines)
    packed = sink.getvalue().to_pybytes()
    return {"shard": name, "bytes": size, "rows": lines.num_rows, "lines": packed}


class Receipts:
    """The receipts of a folder's shards, which go into its index now and then.

    Args:
        folder: of the shards.
        seconds: between two writes of the index.
    """

    def __init__(self, folder: Folder, seconds: float = SECONDS):
        self.folder, self.seconds = folder, seconds
        self._taken: dict[str, Mapping[str, Any]] = {}
        self._written = time.monotonic()

    def take(self, receipt: Mapping[str, Any]) -> None:
        """Takes what `store_rows` returned; of a shard that was written twice, the last."""
        self._taken[receipt["shard"]] = receipt
        if time.monotonic() - self._written > self.seconds:
            self.write()

    def write(self) -> None:
        """Puts what was taken into the index."""
        if self._taken:
            lines = [pa.ipc.open_stream(one["lines"]).read_all() for one in self._taken.values()]
            sizes = {name: one["bytes"] for name, one in self._taken.items()}
            add_to_index(self.folder, pa.concat_tables(lines), sizes)
        self._taken, self._written = {}, time.monotonic()


@contextmanager
def receipts_of(folder: Folder) -> Iterator[Receipts]:
    """Receipts that are in the index at the end, whatever ends it."""
    receipts = Receipts(folder)
    try:
        yield receipts
    finally:
        receipts.write()
