"""Small shards put together: a folder that is done has few files, in one order of its rows."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from rayseg.store.folder import Folder
from rayseg.store.index import lines_of, lines_of_shards, read_index, write_index
from rayseg.store.shards import FRESH, read_shard, shard_name, shard_sizes, to_parquet, zeros

SHARD_ROWS = 2048
"""Most rows of a shard that is put together."""
SHARD_BYTES = 64 << 20
"""Most bytes of such a shard, since whoever reads it holds it."""
FEW_SHARDS = 16
"""So many small shards are left as they are, where there are no large ones."""
_ORDER = [("height", "ascending"), ("width", "ascending"), ("id", "ascending")]
"""That in which images are gone through, so that rows that were made together lie together."""


def compact(folder: Folder) -> None:
    """Puts the rows of small shards into large ones, sorted by the images' size and id.

    Which rows a shard has then follows from the rows alone, not from who made them and when. A kill
    at any time loses no row; some are there twice then, until `forget_repeats` and this have run.

    Raises:
        DamagedError: a shard cannot be read; what is written stays.
    """
    sizes = shard_sizes(folder)
    index = read_index(folder)
    lines = index.select(["id", "height", "width", "shard"]).sort_by(_ORDER)
    shards = dict(_groups(lines, _rows_each(lines.num_rows, sum(sizes.values()))))
    signed = pc.not_equal(index.column("digest"), "")  # not so in shards of earlier versions
    unlike = len(pc.unique(signed)) > 1  # who reads them side by side needs the same columns
    fresh = any(name.startswith(FRESH) for name in sizes)
    begun = unlike or fresh or bool(shards.keys() & sizes.keys())
    if shards.keys() == sizes.keys() or (len(sizes) <= FEW_SHARDS and not begun):
        return
    left = Counter(lines.column("shard").to_pylist())  # rows that no large shard has yet
    kept = [lines_of_shards(read_index(folder), shards.keys() & sizes.keys())]
    found = {name: size for name, size in sizes.items() if name in shards}
    for name, group in shards.items():
        if name not in sizes:
            table = _gather(folder, group)
            data = to_parquet(table)
            folder.write(name, data)
            kept.append(lines_of(table, name))
            found[name] = len(data)
        left.subtract(group.column("shard").to_pylist())
        for spent in {*group.column("shard").to_pylist()} - shards.keys():
            if not left[spent] and not spent.startswith(FRESH):
                folder.delete(spent)
    for empty in sizes.keys() - left.keys():
        folder.delete(empty)
    if any(name.startswith(FRESH) for name in sizes):
        (folder / FRESH).remove()
    write_index(folder, pa.concat_tables(kept).sort_by("shard"), found.keys(), found)


def _rows_each(rows: int, size: int) -> int:
    """Rows of a large shard; of few values, for it not to change with every byte."""
    most = SHARD_ROWS
    while most > 1 and most * size > SHARD_BYTES * max(rows, 1):
        most //= 2
    return most


def _groups(lines: pa.Table, size: int) -> Iterator[tuple[str, pa.Table]]:
    for start in range(0, lines.num_rows, size):
        group = lines.slice(start, size)
        yield shard_name(group.column("id").to_pylist()), group


def _gather(folder: Folder, group: pa.Table) -> pa.Table:
    """The rows of a group in its order, out of the shards that they are in."""
    ids = group.column("id").combine_chunks()
    wanted = Counter(group.column("shard").to_pylist())
    with ThreadPoolExecutor(max_workers=8) as pool:
        parts = list(pool.map(partial(_part, folder, ids), wanted.keys(), wanted.values()))
    if not all(part.schema.equals(parts[0].schema) for part in parts):
        schema = pa.unify_schemas([part.schema for part in parts])
        parts = [_completed(part, schema) for part in parts]
    table = pa.concat_tables(parts)
    return table.take(pc.index_in(ids, table.column("id").combine_chunks()))


def _part(folder: Folder, ids: pa.Array, shard: str, rows: int) -> pa.Table:
    """The rows of a shard that have these ids, of which it has so many."""
    table = read_shard(folder, shard).replace_schema_metadata()
    return table if len(table) == rows else table.filter(pc.is_in(table.column("id"), ids))


def _completed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """With the columns that shards of earlier versions lack."""
    for field in schema:
        if field.name not in table.column_names:
            table = table.append_column(field, zeros(field.type, table.num_rows))
    return table.select(schema.names)
