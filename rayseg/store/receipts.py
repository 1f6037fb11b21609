"""Receipts of shards: what was written goes into the index without being read again."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from rayseg.store.folder import Folder
from rayseg.store.index import add_to_index, lines_of
from rayseg.store.shards import put_shard

SECONDS = 60.0
"""Between two writes of the index; what a killed job has written since is read from its shards."""


def store_rows(folder: Folder, table: pa.Table) -> dict[str, Any]:
    """Writes the rows as one shard and returns its receipt.

    Returns:
        A row: the ``shard``, its size in ``bytes``, its number of ``rows``, and its ``lines`` of
        the index as an Arrow stream.
    """
    name, size = put_shard(folder, table)
    lines, sink = lines_of(table, name), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, lines.schema) as writer:
        writer.write_table(lines)
    return {
        "shard": name,
        "bytes": size,
        "rows": table.num_rows,
        "lines": sink.getvalue().to_pybytes(),
    }


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
