"""What the jobs share: what a job did, and the books of the folders that it fills."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rayseg.config import Compute
from rayseg.on_ray.data import Pool, decoded, manifest_rows, pending_rows, planes, write_rows
from rayseg.on_ray.train import fingerprint
from rayseg.stages import DecodeImages
from rayseg.store import (
    Folder,
    Manifest,
    claim,
    count_status,
    failed_ids,
    find_pending,
    forget_failed,
    forget_repeats,
    read_file,
    read_run,
    stored_ids,
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


def finished_config(folder: Folder, what: str, job: str) -> dict[str, Any]:
    """What made a folder that another job goes on from.

    Args:
        folder: with a row for each image.
        what: it holds, such as ``maps``.
        job: that fills it.

    Raises:
        FileNotFoundError: it holds nothing.
        ValueError: its job has not ended, so that what follows would pass for complete.
    """
    if not folder.names(".parquet"):
        raise FileNotFoundError(f"{folder} holds no {what}; make them with {job}")
    facts = read_run(folder)
    if not facts.get("counts"):
        raise ValueError(
            f"{folder} is not complete; run {job} once more for the images that have no {what} yet "
            f"({len(stored_ids(folder))} have)"
        )
    return facts["config"]


def images_identity(images: Manifest, labelled: Set[str]) -> dict[str, Any]:
    """What a training follows from besides settings and what made its labels: its images.

    A folder that was trained before this was recorded is refused, not trained anew: the hours that
    it took are not thrown away unasked.

    Args:
        images: of the split that is trained on.
        labelled: ids of the images that have labels, of whatever split.
    """
    ids = [id_ for id_ in images.table.column("id").to_pylist() if id_ in labelled]
    return {"trained_on": {"images": len(ids), "list": fingerprint(ids)}}


def fill_by_images(
    folder: Folder,
    waiting: pa.Table,
    pool: Pool,
    schema: pa.Schema,
    label: str,
    untagged: bool = True,
    then: Pool | None = None,
) -> Outcome:
    """Sends images through a stage into a folder that was opened, and closes it.

    Args:
        folder: gets a row for each image.
        waiting: the manifest's rows of the images that it has none of.
        pool: the stage.
        schema: of the rows that are stored.
        label: of the folder, in what is told.
        untagged: images without tags are looked at too.
        then: CPU tasks that the pool's probabilities of labels go on to, as `planes` has it.
    """
    if waiting.num_rows:
        scratch = folder / "pending"
        rows = manifest_rows(waiting, scratch, pool.rows)
        source = decoded(rows, DecodeImages(untagged=untagged), folder)
        if then:
            source, pool = planes(source, pool, folder), then
        seconds = write_rows(source, waiting.num_rows, pool, folder, schema, label)
        scratch.remove()
        add_seconds(folder, seconds)
    return close_folder(folder, label)


def fill_from(source: Folder, folder: Folder, pool: Pool, schema: pa.Schema, label: str) -> Outcome:
    """As `fill_by_images`, with the rows of another folder in place of images."""
    pending = find_pending(source, stored_ids(folder))
    if pending.rows:
        rows = pending_rows(pending, pool.rows)
        seconds = write_rows(rows, pending.rows, pool, folder, schema, label)
        add_seconds(folder, seconds)
    return close_folder(folder, label)


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
