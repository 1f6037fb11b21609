"""The index of a folder of shards: which rows it holds, in one file.

``_index.pq`` has a line for each row: its id, status, note, seconds and shard. Names and sizes of
the shards that it was made from are in its metadata. Whoever reads it compares them with the
folder's and reads those shards alone that differ, so that an index that is missing, stale or
damaged costs time and nothing else; shards are written by many processes, which never touch it.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayseg.store.folder import Folder
from rayseg.store.schemas import FAILED
from rayseg.store.shards import read_shard, write_shard

INDEX = "_index.pq"
"""No ``.parquet``, which would be a shard; readers of whole folders leave out what starts so."""
INDEX_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("note", pa.string()),
        ("seconds", pa.float32()),
        ("follows", pa.string()),
        ("digest", pa.string()),
        ("shard", pa.string()),
    ]
)
_OF_ROWS = INDEX_SCHEMA.names[:-1]
LATER = frozenset({"follows", "digest"})
"""Columns that shards of earlier versions lack."""


def read_index(folder: Folder) -> pa.Table:
    """A line of INDEX_SCHEMA for each row of a folder, shard by shard.

    A stale index is written anew where the folder can be written to.

    Raises:
        ValueError: a shard cannot be read.
    """
    table, sizes = _stored(folder), folder.sizes(".parquet")
    known = json.loads((table.schema.metadata or {}).get(b"shards", b"{}"))
    if known == sizes:
        return table
    fresh = [name for name, size in sizes.items() if known.get(name) != size]
    kept = _of_shards(table, sizes.keys() - set(fresh))
    with ThreadPoolExecutor(max_workers=8) as pool:  # a remote store answers slowly
        parts = [kept, *pool.map(partial(_lines, folder), fresh)]
    table = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    table = table.sort_by("shard") if len(parts) > 1 else table
    _write_index(folder, table, sizes)
    return table


def _stored(folder: Folder) -> pa.Table:
    with suppress(OSError, pa.ArrowException), folder.open(INDEX) as file:
        table = pq.read_table(file)
        if table.schema.equals(INDEX_SCHEMA):
            return table
    return INDEX_SCHEMA.empty_table()


def _lines(folder: Folder, shard: str) -> pa.Table:
    try:
        table = read_shard(folder, shard, _OF_ROWS)
    except (ValueError, OSError) as error:  # pyarrow's are of these
        raise ValueError(f"{folder.path(shard)} cannot be read: {error}") from None
    for name in LATER.difference(table.column_names):
        table = table.append_column(name, pa.array([""] * len(table), pa.string()))
    table = table.append_column("shard", pa.array([shard] * len(table), pa.string()))
    return table.select(INDEX_SCHEMA.names).cast(INDEX_SCHEMA)


def _of_shards(table: pa.Table, shards: Collection[str]) -> pa.Table:
    return table.filter(pa.compute.is_in(table.column("shard"), pa.array(shards, pa.string())))


def _write_index(folder: Folder, table: pa.Table, sizes: Mapping[str, int]) -> None:
    sink = io.BytesIO()
    stored = table.replace_schema_metadata({"shards": json.dumps(sizes)})
    pq.write_table(stored, sink, compression="zstd")
    with suppress(OSError):  # whoever may only read does without
        folder.write(INDEX, sink.getvalue())


def read_rows(folder: Folder, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a folder, shard by shard, so that memory does not grow with their number.

    Columns that the index has are read from it alone.
    """
    if columns is not None and set(columns) <= set(_OF_ROWS):
        yield from read_index(folder).select(columns).to_pylist()
        return
    for name in folder.names(".parquet"):
        yield from read_shard(folder, name, columns).to_pylist()


def stored_ids(folder: Folder) -> set[str]:
    """Ids of the images that have a row in the folder."""
    return set(read_index(folder).column("id").to_pylist())


@dataclass(frozen=True)
class Pending:
    """What of a source is not stored yet.

    Attributes:
        shards: addresses of the shards that hold such rows.
        skip: ids in those shards that are stored already.
        rows: number of rows that are not.
    """

    shards: list[str]
    skip: frozenset[str]
    rows: int


def find_pending(source: Folder, stored: set[str]) -> Pending:
    """The part of a source folder whose ids are not stored yet."""
    shards, skip, rows = [], set(), 0
    for name, lines in _by_shard(source):
        ids = {line["id"] for line in lines}
        if not stored.issuperset(ids):
            shards.append(source.path(name))
            skip |= ids & stored
            rows += len(ids - stored)
    return Pending(shards, frozenset(skip), rows)


def _by_shard(folder: Folder) -> Iterable[tuple[str, Iterator[dict[str, Any]]]]:
    lines = read_index(folder).select(["id", "status", "shard"]).to_pylist()
    return groupby(lines, key=lambda line: line["shard"])


def count_status(folder: Folder) -> dict[str, int]:
    """Number of rows of each status in a folder of seeds or masks."""
    counts = Counter(read_index(folder).column("status").to_pylist())
    return dict(sorted(counts.items()))


def failed_ids(folder: Folder) -> frozenset[str]:
    """Ids of the images whose row says error or poison."""
    rows = read_rows(folder, ["id", "status"])
    return frozenset(row["id"] for row in rows if row["status"] in FAILED)


def forget_failed(folder: Folder) -> None:
    """Takes the rows of failed images out, so that they are tried again."""
    _keep_only(folder, lambda line: line["status"] not in FAILED)


@dataclass(frozen=True)
class Stale:
    """Rows of a folder that do not fit what they were made from any more.

    Attributes:
        changed: ids of those whose source is another one now.
        gone: ids of those whose source is there no more.
    """

    changed: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


def find_stale(folder: Folder, known: Mapping[str, str]) -> Stale:
    """Compares what rows say that they follow from with what is there now.

    Args:
        folder: of rows that were made.
        known: digest of each row of the source; an empty one says nothing.
    """
    lines = read_index(folder).select(["id", "follows"]).to_pylist()
    there = {line["id"]: line["follows"] for line in lines}
    return Stale(
        frozenset(i for i, was in there.items() if known.get(i) and known[i] != was),
        frozenset(there.keys() - known.keys()),
    )


def digests_of(folder: Folder) -> dict[str, str]:
    """Digest of each row of a folder, by id; empty for rows of earlier versions."""
    lines = read_index(folder).select(["id", "digest"]).to_pylist()
    return {line["id"]: line["digest"] for line in lines}


def forget(folder: Folder, ids: Collection[str]) -> None:
    """Takes the rows of images out."""
    _keep_only(folder, lambda line: line["id"] not in ids)


def forget_repeats(folder: Folder) -> None:
    """Leaves one row of each image.

    An actor that outlives its killed job may store rows that the next job stores too; the rows are
    alike, their shards are not.
    """
    seen: set[str] = set()

    def first(line: Mapping[str, Any]) -> bool:
        fresh = line["id"] not in seen
        seen.add(line["id"])
        return fresh

    _keep_only(folder, first)


def _keep_only(folder: Folder, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    keep = {name: [wanted(line) for line in lines] for name, lines in _by_shard(folder)}
    changed = [name for name, kept in keep.items() if not all(kept)]
    if changed:
        # a shard that is made again may have the name and even the size of the one that was
        now = folder.sizes(".parquet").items()
        sizes = {name: size for name, size in now if all(keep.get(name, [False]))}
        _write_index(folder, _of_shards(read_index(folder), sizes.keys()), sizes)
    for name in changed:
        table = read_shard(folder, name)
        folder.delete(name)  # first: rows lost to a kill here are made again, never twice
        if any(keep[name]):
            write_shard(folder, table.filter(pa.array(keep[name])))
