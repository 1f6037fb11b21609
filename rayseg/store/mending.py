"""A folder of shards put in order: what is damaged is set aside, what is small put together."""

from dataclasses import dataclass

import pyarrow as pa

from rayseg.store.compaction import compact
from rayseg.store.damage import DamagedError
from rayseg.store.folder import Folder
from rayseg.store.index import (
    forget_repeats,
    lines_of_shards,
    renew_index,
    stored_index,
    write_index,
)


@dataclass(frozen=True)
class Lost:
    """A damaged shard that was set aside.

    Attributes:
        path: where it lay.
        reason: how the damage shows.
        ids: of its rows, as far as the index has them.
    """

    path: str
    reason: str
    ids: frozenset[str]

    def __str__(self) -> str:
        count = f"{len(self.ids)} " if self.ids else ""
        return f"shard {self.path} is damaged ({self.reason}): its {count}images are made again"


def mend(folder: Folder) -> list[Lost]:
    """Sets the shards aside that cannot be read, for their rows to be made again."""
    known = stored_index(folder)[0]
    _, damaged = renew_index(folder)
    return [set_shard_aside(error, known) for error in damaged]


def set_shard_aside(error: DamagedError, known: pa.Table | None = None) -> Lost:
    """Sets a shard aside that was found damaged.

    Args:
        known: an index that may have the shard's rows; the folder's where none is given.
    """
    folder, name = error.folder, error.name
    known = stored_index(folder)[0] if known is None else known
    rows = lines_of_shards(known, [name]).column("id").to_pylist()
    (table, sizes), _ = stored_index(folder), folder.set_aside(name)
    if name in sizes:  # a shard that is made again may have its name and size
        write_index(folder, table, sizes.keys() - {name}, sizes)
    return Lost(folder.path(name), error.reason, frozenset(rows))


def tidy(folder: Folder) -> list[Lost]:
    """Leaves each row once and few shards, but for a damaged one, which is set aside.

    Returns:
        That one; its rows are to be made again, and this is to be called again.
    """
    try:
        forget_repeats(folder)
        compact(folder)
    except DamagedError as error:
        return [set_shard_aside(error)]
    return []
