"""The index of a folder of shards: which rows it holds, in one file.

``_index.pq`` has a line for each row: its id, status, note, seconds, size and shard. Names and
sizes of the shards that it was made from are in its metadata. Whoever reads it compares them with
the folder's and reads those shards alone that differ, so that an index that is missing, stale or
damaged costs time and nothing else; shards are written by many processes, which never touch it.
"""

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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rayseg.store.damage import DamagedError, read_parquet
from rayseg.store.folder import Folder
from rayseg.store.kinds import schema_of
from rayseg.store.schemas import FAILED, LATER, wrong_column
from rayseg.store.shards import (
    GROUP_ROWS,
    INDEX,
    read_shard,
    shard_names,
    shard_sizes,
    to_parquet,
    write_shard,
)

INDEX_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("note", pa.string()),
        ("seconds", pa.float32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("follows", pa.string()),
        ("digest", pa.string()),
        ("shard", pa.string()),
    ]
)
_OF_ROWS = INDEX_SCHEMA.names[:-1]


def read_index(folder: Folder) -> pa.Table:
    """A line of INDEX_SCHEMA for each row of a folder, shard by shard, in the order of the rows.

    A stale index is written anew where the folder can be written to.

    Raises:
        DamagedError: a shard cannot be read.
    """
    table, damaged = renew_index(folder)
    for error in damaged:
        raise error
    return table


def renew_index(folder: Folder) -> tuple[pa.Table, list[DamagedError]]:
    """What `read_index` gives, of the shards that can be read, and what is wrong with the others.

    A shard whose name and size the index has is taken for read.
    """
    (table, known), sizes = stored_index(folder), shard_sizes(folder)
    if known == sizes:
        return table, []
    fresh = [name for name, size in sizes.items() if known.get(name) != size]
    kept = lines_of_shards(table, sizes.keys() - set(fresh))
    with ThreadPoolExecutor(max_workers=8) as pool:  # a remote store answers slowly
        read = list(pool.map(partial(_lines, folder, schema_of(folder)), fresh))
    damaged = [one for one in read if isinstance(one, DamagedError)]
    parts = [kept, *(one for one in read if not isinstance(one, DamagedError))]
    table = pa.concat_tables([part.replace_schema_metadata() for part in parts])
    table = table.sort_by("shard") if len(parts) > 1 else table
    write_index(folder, table, sizes.keys() - {error.name for error in damaged}, sizes)
    return table, damaged


def peek_index(folder: Folder) -> pa.Table:
    """What `read_index` gives, of a folder that others write; writes nothing.

    A shard that cannot be read, or is put together with others just now, is left out.
    """
    (table, known), sizes = stored_index(folder), shard_sizes(folder)
    fresh = [name for name, size in sizes.items() if known.get(name) != size]
    parts = [lines_of_shards(table, sizes.keys() - set(fresh)).replace_schema_metadata()]
    for name in fresh:
        with suppress(OSError):
            lines = _lines(folder, schema_of(folder), name)
            parts += [] if isinstance(lines, DamagedError) else [lines]
    return pa.concat_tables(parts)


def stored_index(folder: Folder) -> tuple[pa.Table, dict[str, int]]:
    """The index as it lies there, and the sizes of the shards that it was made from."""
    with suppress(OSError, ValueError):  # damage too: it is made again
        table = read_shard(folder, INDEX)
        known = json.loads((table.schema.metadata or {}).get(b"shards", b"{}"))
        if table.schema.equals(INDEX_SCHEMA) and isinstance(known, dict) and not _holes(table):
            return table, known
    return INDEX_SCHEMA.empty_table(), {}


def _lines(folder: Folder, schema: pa.Schema, shard: str) -> pa.Table | DamagedError:
    """The lines of a shard's rows, or why there are none: damage, or columns of another schema."""

    def read(file: pq.ParquetFile) -> pa.Table:
        if wrong := wrong_column(file.schema_arrow, schema):
            raise pa.ArrowInvalid(wrong)
        return lines_of(file.read(_OF_ROWS, use_threads=False), shard)

    try:
        return read_parquet(folder, shard, read)
    except DamagedError as error:
        return error


def lines_of(table: pa.Table, shard: str) -> pa.Table:
    """The lines of the index that stand for the rows of a shard."""
    for name in LATER.intersection(_OF_ROWS).difference(table.column_names):
        table = table.append_column(name, pa.array([""] * len(table), pa.string()))
    table = table.select(_OF_ROWS)
    table = table.append_column("shard", pa.array([shard] * len(table), pa.string()))
    if holes := _holes(table):
        raise pa.ArrowInvalid(f"{', '.join(holes)} without a value in some rows")
    return table.cast(INDEX_SCHEMA).replace_schema_metadata()


def _holes(table: pa.Table) -> list[str]:
    """Which of id and status has no value in some row; no row that was written lacks them."""
    return [name for name in ("id", "status") if table.column(name).null_count]


def add_to_index(folder: Folder, lines: pa.Table, sizes: Mapping[str, int]) -> None:
    """Takes lines of shards that were just written into the index; those shards are not read."""
    table, known = stored_index(folder)
    table = lines_of_shards(table, known.keys() - sizes.keys()).replace_schema_metadata()
    both = dict(known) | dict(sizes)
    write_index(folder, pa.concat_tables([table, lines]).sort_by("shard"), both.keys(), both)


def lines_of_shards(table: pa.Table, shards: Collection[str]) -> pa.Table:
    """The lines of an index that stand for rows of these shards."""
    return table.filter(pc.is_in(table.column("shard"), pa.array(list(shards), pa.string())))


def write_index(
    folder: Folder, table: pa.Table, shards: Collection[str], sizes: Mapping[str, int]
) -> None:
    """Writes the lines of these shards as the folder's index; without a way to do so, nothing."""
    known = {name: size for name, size in sizes.items() if name in shards}
    table = lines_of_shards(table, shards) if len(known) < len(sizes) else table
    table = table.replace_schema_metadata({"shards": json.dumps(known)})
    stored = to_parquet(table, group_rows=1 << 20)
    with suppress(OSError):  # whoever may only read does without
        folder.write(INDEX, stored)


def read_rows(folder: Folder, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a folder, shard by shard, so that memory does not grow with their number.

    Columns that the index has are read from it alone.
    """
    if columns is not None and set(columns) <= set(_OF_ROWS):
        yield from read_index(folder).select(columns).to_pylist()
        return
    for name in shard_names(folder):
        table = read_shard(folder, name, columns)
        for batch in table.to_batches(max_chunksize=GROUP_ROWS):
            yield from batch.to_pylist()


def parts_of(lines: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Where `read_rows_about` finds the row of each line of an index."""
    for shard, own in groupby(lines, key=lambda line: line["shard"]):
        yield from ((shard, place // GROUP_ROWS) for place, _ in enumerate(own))


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
    """Leaves one row of each image, that of the shard with the most rows.

    An actor that outlives its killed job may store rows that the next job stores too; the rows are
    alike, their shards are not. Rows that are being put together, too, are there twice for a while.
    """
    lines = read_index(folder).select(["id", "shard"]).to_pylist()
    rows_of = Counter(line["shard"] for line in lines)
    best: dict[str, tuple[int, str]] = {}
    for line in lines:
        here = (rows_of[line["shard"]], line["shard"])
        best[line["id"]] = max(best.get(line["id"], here), here)
    if len(best) == len(lines):
        return
    seen: set[str] = set()

    def first(line: Mapping[str, Any]) -> bool:
        wanted = best[line["id"]][1] == line["shard"] and line["id"] not in seen
        seen.update([line["id"]] * wanted)
        return wanted

    _keep_only(folder, first)


def _keep_only(folder: Folder, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
    keep = {name: [wanted(line) for line in lines] for name, lines in _by_shard(folder)}
    changed = [name for name, kept in keep.items() if not all(kept)]
    if changed:
        # a shard that is made again may have the name and even the size of the one that was
        sizes = shard_sizes(folder)
        unchanged = {name for name in sizes if all(keep.get(name, [False]))}
        write_index(folder, read_index(folder), unchanged, sizes)
    left = [
        write_shard(folder, read_shard(folder, name).filter(pa.array(keep[name])))
        for name in changed
        if any(keep[name])
    ]
    for name in set(changed) - set(left):  # last: a kill leaves rows twice, and loses none
        folder.delete(name)
