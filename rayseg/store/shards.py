"""Tables as Parquet shards, which are named after the ids in them."""

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayseg.store.damage import read_parquet
from rayseg.store.folder import Folder
from rayseg.store.names import hash_ids

PARQUET: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True}
"""How Parquet files are written."""


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


def _zero(kind: pa.DataType) -> object:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return b""
    return "" if pa.types.is_string(kind) else 0


def write_shard(folder: Folder, table: pa.Table) -> str:
    """Writes the rows as one shard and returns its name, which follows from the ids alone."""
    name = shard_name(table.column("id").to_pylist())
    folder.write(name, to_parquet(table))
    return name


def shard_name(ids: Iterable[str]) -> str:
    """The name of the shard that holds these ids."""
    return f"part-{hash_ids(sorted(ids))[:16]}.parquet"


def to_parquet(table: pa.Table) -> bytes:
    """The table as the bytes of a Parquet file whose pages have checksums."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **PARQUET)
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
