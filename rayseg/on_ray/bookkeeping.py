"""What the jobs share: what a job did, and the books of the folders that it fills."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import pyarrow as pa

from rayseg.config import Compute
from rayseg.store import (
    Folder,
    claim,
    count_status,
    failed_ids,
    forget_failed,
    forget_repeats,
    read_file,
    read_run,
    write_run,
)


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        lines: what to tell the user.
        failed: ids of images that have a row saying why they have no result.
        left_out: images, masks or boxes that a job had to do without.
    """

    lines: list[str] = field(default_factory=list)
    failed: frozenset[str] = frozenset()
    left_out: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.lines + other.lines,
            self.failed | other.failed,
            self.left_out + other.left_out,
        )


def read_ids(path: str) -> list[str] | None:
    """Image ids of a text file, one a line; None where no file is named.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if not path:
        return None
    data = read_file(path)
    if data is None:
        raise FileNotFoundError(f"list of image ids {path} does not exist")
    return data.decode("utf-8-sig").split()


def digest(address: str) -> str:
    """Of what a file holds; that of nothing where there is none."""
    return hashlib.sha256(read_file(address) or b"").hexdigest()


def open_folder(folder: Folder, identity: dict[str, object], compute: Compute) -> None:
    """Binds a folder to what fills it; failed rows are taken out where that is asked for.

    Raises:
        ValueError: it was filled under another configuration.
    """
    claim(folder, identity)
    write_run(folder, {"counts": None})  # until the job has ended
    if compute.retry_failed:
        forget_failed(folder)


def without(table: pa.Table, stored: set[str]) -> pa.Table:
    """The rows of a table whose ids are not stored yet."""
    return table.filter([id_ not in stored for id_ in table.column("id").to_pylist()])


def add_seconds(folder: Folder, seconds: float) -> None:
    """Wall seconds add up over the runs that a folder took."""
    write_run(folder, {"seconds": read_run(folder).get("seconds", 0.0) + seconds})


def close_folder(folder: Folder, label: str) -> Outcome:
    """Counts what a job left in a folder; a folder with counts is complete."""
    forget_repeats(folder)
    counts = count_status(folder)
    write_run(folder, {"counts": counts})
    said = ", ".join(f"{number} {status}" for status, number in counts.items())
    return Outcome([f"{label}: {said}"], failed_ids(folder))
