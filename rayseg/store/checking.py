"""All that a folder of shards says of itself, read and compared: nothing is trusted."""

import io
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from PIL import Image

from rayseg.store.damage import DamagedError
from rayseg.store.folder import Folder
from rayseg.store.index import lines_of, lines_of_shards, stored_index
from rayseg.store.schemas import wrong_column
from rayseg.store.shards import read_shard, row_digest, shard_name, shard_sizes

PICTURES = ("maps", "labels", "edges", "affinities")
"""Columns that hold PNGs, one or a list of them."""


@dataclass(frozen=True)
class CheckedShards:
    """What a folder of shards holds.

    Attributes:
        shards: number of them.
        lines: of the index, as the sound shards have them.
        damaged: the others.
        index: what the stored index has otherwise; empty where it has nothing wrong.
    """

    shards: int
    lines: pa.Table
    damaged: list[DamagedError]
    index: str

    @property
    def repeated(self) -> list[str]:
        """Ids that have several rows."""
        counts = Counter(self.lines.column("id").to_pylist())
        return sorted(id_ for id_, number in counts.items() if number > 1)

    @property
    def statuses(self) -> dict[str, int]:
        """Number of rows of each status."""
        return dict(sorted(Counter(self.lines.column("status").to_pylist()).items()))


def check_shards(folder: Folder, schema: pa.Schema) -> CheckedShards:
    """Reads every byte of a folder's shards.

    Args:
        schema: of its rows.
    """
    sizes, (table, known) = shard_sizes(folder), stored_index(folder)
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(partial(_check_shard, folder, schema), sizes))
    damaged = [one for one in found if isinstance(one, DamagedError)]
    sound = [one for one in found if not isinstance(one, DamagedError)]
    lines = pa.concat_tables([table.schema.empty_table().replace_schema_metadata(), *sound])
    trusted = {name for name in known if sizes.get(name) == known[name]}
    wrong = _wrong_lines(table, lines, trusted - {error.name for error in damaged})
    return CheckedShards(len(sizes), lines, damaged, wrong)


def _check_shard(folder: Folder, schema: pa.Schema, name: str) -> pa.Table | DamagedError:
    """The lines of a sound shard, or what is wrong with it."""
    try:
        table = read_shard(folder, name)
        reason = "; ".join(_wrong(table, schema, name))
        return DamagedError(folder, name, reason) if reason else lines_of(table, name)
    except DamagedError as error:
        return error


def _wrong(table: pa.Table, schema: pa.Schema, name: str) -> Iterator[str]:
    """The first fault of a shard, where it has one."""
    if wrong := wrong_column(table.schema, schema):
        yield wrong
        return
    if shard_name(table.column("id").to_pylist()) != name.rpartition("/")[2]:
        yield "it does not hold the ids that it is named after"
        return
    for batch in table.to_batches(max_chunksize=64):
        for row in batch.to_pylist():
            if reason := _wrong_row(row):
                yield f"row {row['id']!r}: {reason}"
                return


def _wrong_row(row: dict[str, Any]) -> str:
    if row.get("digest") and row["digest"] != row_digest(row, leave_out=("digest", "seconds")):
        return "it does not have the digest that it had"
    for name in PICTURES:
        held = row.get(name) or []
        for data in [held] if isinstance(held, bytes) else held:
            try:
                Image.open(io.BytesIO(data)).verify()
            except Exception as error:  # Pillow raises almost anything
                return f"its {name} are no PNG ({' '.join(str(error).split())})"
    return ""


def _wrong_lines(stored: pa.Table, lines: pa.Table, shards: set[str]) -> str:
    """How the stored index differs from the shards that it takes for known."""
    order = [("shard", "ascending"), ("id", "ascending")]
    there, here = (lines_of_shards(one, shards).sort_by(order) for one in (stored, lines))
    if there.replace_schema_metadata().equals(here.replace_schema_metadata()):
        return ""
    rows = ({(row["id"], str(row)) for row in one.to_pylist()} for one in (there, here))
    ids = sorted({id_ for id_, _ in set.symmetric_difference(*rows)})
    return f"its lines of {len(ids)} rows are not those of the shards, such as {ids[:1]}"
