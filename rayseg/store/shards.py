"""Tables as Parquet shards, which are named after the ids in them."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayseg.store.damage import read_parquet
from rayseg.store.folder import Folder
from rayseg.store.names import hash_ids

PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "write_page_checksum": True,
    "write_statistics": False,  # nobody asks for the least and the greatest of PNGs
}
"""How Parquet files are written."""
GROUP_ROWS = 64
"""Rows of a shard that are read together for one of them."""
INDEX = "_index.pq"
"""Of the rows; no ``.parquet``, which would be a shard, and readers leave out what starts so."""
FRESH = "fresh"
"""Folder of the shards on an object store that are not put together yet."""


def rows_to_table(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as a table of that schema; a column that a row lacks gets its type's zero value."""
    zeros = {field.name: _zero(field.type) for field in schema}
    return pa.Table.from_pylist([zeros | dict(row) for row in rows], schema=schema)


def sign_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows that were made of others as a table to be stored, each with a digest of what it holds.

    Args:
        rows: `digest` is that of the row that each was made from, which it follows from.
    """
    table = rows_to_table(({**row, "follows": row["digest"], "digest": ""} for row in rows), schema)
    made = [row_digest(row, leave_out=("digest", "seconds")) for row in table.to_pylist()]
    place = schema.get_field_index("digest")
    return table.set_column(place, schema.field(place), pa.array(made, pa.string()))


def row_digest(row: Mapping[str, Any], leave_out: Sequence[str] = ()) -> str:
    """Digest of a row's plain values by their names, in whatever order they come."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(row.keys() - set(leave_out)):
        found.update(f"{name}:".encode())
        _add_value(found, row[name])
    return found.hexdigest()


def _add_value(found: Any, value: object) -> None:
    if isinstance(value, list | tuple):
        found.update(f"[{len(value)}]".encode())
        for one in value:
            _add_value(found, one)
        return
    data = value if isinstance(value, bytes) else repr(value).encode()
    found.update(f"{len(data)}:".encode())
    found.update(data)


def zeros(kind: pa.DataType, rows: int) -> pa.Array:
    """So many of a type's zero value."""
    return pa.array([_zero(kind)] * rows, kind)


def _zero(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return b""
    if pa.types.is_boolean(kind):
        return False
    return "" if pa.types.is_string(kind) else 0


def write_shard(folder: Folder, table: pa.Table) -> str:
    """Writes the rows as one shard and returns its name, which follows from the ids alone."""
    return put_shard(folder, table)[0]


def put_shard(folder: Folder, table: pa.Table) -> tuple[str, int]:
    """As `write_shard`, with the size in bytes."""
    name = place_of_new(folder, shard_name(table.column("id").to_pylist()))
    data = to_parquet(table)
    folder.write(name, data)
    return name, len(data)


def place_of_new(folder: Folder, name: str) -> str:
    """Where in a folder a new shard lies.

    On an object store in a folder of its own until the shards are put together, since a folder is
    deleted there at one go and a file by three requests.
    """
    return name if folder.local_path else f"{FRESH}/{name}"


def shard_sizes(folder: Folder) -> dict[str, int]:
    """Bytes of each shard of a folder, by name, sorted by it; none if the folder is missing."""
    fresh = (folder / FRESH).sizes(".parquet")
    return {f"{FRESH}/{name}": size for name, size in fresh.items()} | folder.sizes(".parquet")


def shard_names(folder: Folder) -> list[str]:
    """Names of a folder's shards, sorted; none if it is missing."""
    return list(shard_sizes(folder))


def shard_name(ids: Iterable[str]) -> str:
    """The name of the shard that holds these ids."""
    return f"part-{hash_ids(sorted(ids))[:16]}.parquet"


def to_parquet(table: pa.Table, group_rows: int = GROUP_ROWS) -> bytes:
    """The table as the bytes of a Parquet file whose pages have checksums."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=group_rows, **PARQUET)
    return sink.getvalue()


def read_shard(folder: Folder, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One shard, whole or only some of its columns.

    Raises:
        FileNotFoundError: it is gone.
        DamagedError: it is no Parquet file, or not as it was written.
    """
    return read_parquet(folder, name, lambda file: file.read(columns, use_threads=False))


def shard_columns(folder: Folder, name: str) -> list[str]:
    """Names of a shard's columns; none of its rows is read.

    Raises:
        DamagedError: it is no Parquet file.
    """
    return read_parquet(folder, name, lambda file: file.schema_arrow.names)


def read_rows_about(
    folder: Folder, part: tuple[str, int], columns: Sequence[str] | None
) -> pa.Table:
    """The rows of a shard that are stored together, or all of a shard that has no such parts.

    Args:
        part: the shard, and the place of one of the rows in it over GROUP_ROWS.
    """
    shard, number = part
    return read_parquet(folder, shard, partial(_read_group, number=number, columns=columns))


def _read_group(file: pq.ParquetFile, number: int, columns: Sequence[str] | None) -> pa.Table:
    groups = file.metadata.num_row_groups
    if groups > 1 and file.metadata.row_group(0).num_rows == GROUP_ROWS:
        return file.read_row_group(number, columns, use_threads=False)
    return file.read(columns, use_threads=False)


class RowsById(Mapping[str, dict[str, Any]]):
    """Rows by id, of which only ids are held and the parts of a file that were read last.

    Rows are asked for in nearly the order in which they are stored, so that reading a row's whole
    part reads the next rows too. What was read does not travel to other processes.

    Args:
        part_of: the part of each id, in the order of the ids.
        read: the rows of a part, with their `id`; picklable.

    Raises:
        KeyError: when a row is asked for, the id is not known, or gone from its part.
    """

    def __init__(self, part_of: Mapping[str, Any], read: Callable[[Any], pa.Table]):
        self.part_of, self._read = part_of, read
        self._recent: dict[Any, dict[str, dict[str, Any]]] = {}

    def __getitem__(self, id_: str) -> dict[str, Any]:
        part, recent = self.part_of[id_], self._recent
        if part not in recent:
            rows = {row["id"]: row for row in self._read(part).to_pylist()}
            self._recent = recent = dict([*recent.items(), (part, rows)][-_RECENT:])
        return recent[part][id_]

    def __iter__(self) -> Iterator[str]:
        return iter(self.part_of)

    def __len__(self) -> int:
        return len(self.part_of)

    def __contains__(self, id_: object) -> bool:
        return id_ in self.part_of  # Mapping's own would read the row

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_recent": {}}


_RECENT = 4
