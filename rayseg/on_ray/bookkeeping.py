"""What the jobs share: what a job did, and the books of the folders that it fills."""

from __future__ import annotations

import pyarrow as pa

from rayseg.config import Compute
from rayseg.on_ray.data import Pool, decoded, manifest_rows, pending_rows, planes, write_rows
from rayseg.stages import DecodeImages
from rayseg.steps.outcome import Outcome
from rayseg.store import (
    Folder,
    claim,
    count_status,
    failed_ids,
    find_pending,
    forget_failed,
    forget_repeats,
    read_run,
    stored_ids,
    write_run,
)


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
