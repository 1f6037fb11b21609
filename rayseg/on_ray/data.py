"""Rows through stages on Ray Data: tables in, shards out, resumed by what is already written.

All that Ray must know of a stage is decided here. Shards are written by the process that made their
rows, whole or not at all, under names that follow from their ids; so a job may be killed anywhere,
and a block that is computed twice is stored once. Ray Data's own checkpoints are not used: they
need a CPU more on resume than at the start, and record nothing for some sources (RAY.md 0).
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, Dataset

from rayseg.on_ray.session import preflight
from rayseg.on_ray.watch import RayWitness, note_progress, one_line_errors
from rayseg.progress import activity
from rayseg.stages import Rows, guarded_rows
from rayseg.steps.engine import Stage
from rayseg.store import (
    Folder,
    Pending,
    receipt_of_stored,
    receipts_of,
    rows_to_table,
    sign_rows,
    store_rows,
)

DECODED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("note", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("classes", pa.list_(pa.int32())),
        ("boxes_xyxy", pa.list_(pa.list_(pa.float32()))),
        ("box_classes", pa.list_(pa.int32())),
        ("places", pa.list_(pa.int32())),
        ("digest", pa.string()),
        ("pixels", pa.large_binary()),  # a block may hold more than 2 GB of them
    ]
)
PLANES_SCHEMA = pa.schema(
    [
        *[DECODED_SCHEMA.field(name) for name in ("id", "status", "error", "note")],
        *[DECODED_SCHEMA.field(name) for name in ("height", "width", "pixels")],
        ("kept", pa.list_(pa.int32())),  # label of each plane
        ("planes", pa.large_binary()),  # float16 probabilities, label by label, row by row
        ("seconds", pa.float32()),
        ("digest", pa.string()),
    ]
)
MAX_READS = 200
"""Tasks that read the shards of one source, each some of them."""
PROBE = "probe"
"""File that every process must see in the folder that it writes to."""
MAX_DEATHS = 100
"""Deaths of one actor or task after which the job gives up; what is written stays."""


@dataclass(frozen=True)
class Crew:
    """The processes that run a stage.

    Attributes:
        make: makes the stage where it runs, so that only its arguments travel.
        rows: rows in a batch, the unit of writing, of loss and of retry.
        actors: processes that make the stage once and keep it; 0 runs it in CPU tasks, which share
            processes with everything else and make it anew for each batch.
        max_actors: of a pool that grows with the cluster; 0 keeps its size.
        grows: the cluster may have more than it has now.
        cpus: of each; 0 beside a GPU, so that the pool cannot starve the tasks that feed it.
        gpus: of each, fractions share a device.
        stall_seconds: a job without any progress for so long fails.
    """

    make: Callable[[], Stage]
    rows: int
    actors: int = 0
    max_actors: int = 0
    grows: bool = False
    cpus: float = 1
    gpus: float = 0
    stall_seconds: int = 1800


def write_rows(
    source: Dataset, total: int, pool: Crew, out: Folder, schema: pa.Schema, label: str
) -> float:
    """Sends a dataset through a pool and stores a row for each of its rows.

    Args:
        source: what `manifest_rows` or `pending_rows` gave.
        total: its number of rows, for the progress bar.
        pool: the stage.
        out: where the shards go.
        schema: of the rows that the stage returns.
        label: of the progress bar.

    Returns:
        Wall seconds.

    Raises:
        ValueError: the cluster is too small for the pool.
        ChildProcessError: the stage failed as a whole; what is written stays.
    """
    inflight = out / "inflight"
    inflight.remove()
    inflight.write(PROBE, b"")
    guarded = inflight / "running"
    start = time.perf_counter()
    arguments = (pool.make, guarded, schema, out)
    written = _through(source, pool, _Writer, arguments, label, -(-total // pool.rows))
    progress = activity(label, total, "image")
    with one_line_errors(label), progress as bar, receipts_of(out) as receipts:
        for receipt in written.iter_rows():
            receipts.take(receipt)
            bar.update(receipt["rows"])
            note_progress()
    inflight.remove()
    return time.perf_counter() - start


def collect(source: Dataset, pool: Crew) -> Iterator[dict[str, Any]]:
    """Sends a dataset through a pool and yields the few rows that come out, for adding up."""
    with one_line_errors("counting"):
        yield from _through(source, pool, _Caller, (pool.make,), "counting").iter_rows()


def manifest_rows(table: pa.Table, scratch: Folder, rows: int) -> Dataset:
    """A manifest's rows as blocks of so many, images of one size beside each other.

    They pass through a file, since a source must be a file for its rows to be spread over blocks
    while they are read.
    """
    ordered = table.sort_by([("height", "ascending"), ("width", "ascending"), ("id", "ascending")])
    sink = io.BytesIO()
    pq.write_table(ordered, sink)
    scratch.write("pending.parquet", sink.getvalue())
    source = _read([scratch.path("pending.parquet")])
    return source.repartition(target_num_rows_per_block=rows)


def decoded(source: Dataset, stage: Stage, out: Folder) -> Dataset:
    """Adds pixels in CPU tasks, which run ahead of the pool that needs them."""
    guarded = out / "inflight" / "decoding"

    def decode(table: pa.Table) -> pa.Table:
        made = guarded_rows(stage, table.to_pylist(), guarded, RayWitness())
        return rows_to_table(made, DECODED_SCHEMA)

    with _bounded_retries():
        return source.map_batches(
            decode, batch_size=None, batch_format="pyarrow", num_cpus=1, max_retries=MAX_DEATHS
        )


def planes(source: Dataset, pool: Crew, out: Folder) -> Dataset:
    """Adds the probabilities of labels in a pool of actors, for the CPU tasks that follow."""
    arguments = (pool.make, out / "inflight" / "predicting", PLANES_SCHEMA)
    return _through(source, pool, _Guarded, arguments, "predictions")


def pending_rows(pending: Pending, rows: int) -> Dataset:
    """The rows of stored shards that are still to be done, as blocks of so many."""
    source = _read(pending.shards)
    if pending.skip:
        skip = pa.array(sorted(pending.skip))

        def drop(table: pa.Table) -> pa.Table:
            return table.filter(pc.invert(pc.is_in(table.column("id"), skip)))

        source = source.map_batches(drop, batch_size=None, batch_format="pyarrow", num_cpus=1)
    return source.repartition(target_num_rows_per_block=rows)


def _read(addresses: list[str]) -> Dataset:
    # the newer reader starts up to 32 actors a read, for footers only
    ray.data.DataContext.get_current().use_datasource_v2 = False
    tasks = min(len(addresses), MAX_READS)  # more than files would cut them, and mix their rows
    return ray.data.read_parquet(addresses, override_num_blocks=tasks)


def _through(
    source: Dataset,
    pool: Crew,
    adapter: type[_Caller],
    arguments: tuple[Any, ...],
    label: str,
    blocks: int = 0,
) -> Dataset:
    preflight(label, pool.actors, pool.cpus, pool.gpus, pool.grows)
    actors = min(pool.actors, blocks or pool.actors)  # more would start for nothing
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = pool.stall_seconds
    options: dict[str, Any] = {"batch_size": pool.rows, "batch_format": "pyarrow"}
    with _bounded_retries():
        if not pool.actors:

            def run(table: pa.Table) -> pa.Table:
                return adapter(*arguments)(table)

            return source.map_batches(run, **options, num_cpus=pool.cpus, max_retries=MAX_DEATHS)
        return source.map_batches(
            adapter,
            **options,
            fn_constructor_args=arguments,
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            compute=ActorPoolStrategy(
                min_size=actors,
                max_size=max(pool.max_actors, actors),
                max_tasks_in_flight_per_actor=2,
            ),
            max_restarts=MAX_DEATHS,
            max_task_retries=MAX_DEATHS,
        )


@contextmanager
def _bounded_retries() -> Iterator[None]:
    """Bounds on restarts have no named parameter yet; 2.64 removes the unnamed ones."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        yield


class _Caller:
    """A stage as Ray Data calls it: a table in, a table out."""

    def __init__(self, make: Callable[[], Stage]):
        self.stage = make()

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(self.stage(table.to_pylist()))


class _Guarded(_Caller):
    """A stage under the crash guard, whose rows go on to the next one."""

    def __init__(self, make: Callable[[], Stage], guarded: Folder, schema: pa.Schema):
        super().__init__(make)
        self.guarded = guarded
        self.schema = schema

    def __call__(self, table: pa.Table) -> pa.Table:
        return rows_to_table(self.make_rows(table), self.schema)

    def make_rows(self, table: pa.Table) -> Rows:
        """The stage's rows, of which an image that kills this process gets one as well."""
        return guarded_rows(self.stage, table.to_pylist(), self.guarded, RayWitness())


class _Writer(_Guarded):
    """A stage whose rows are stored by the process that made them; out come receipts."""

    def __init__(self, make: Callable[[], Stage], guarded: Folder, schema: pa.Schema, out: Folder):
        if not (out / "inflight").exists(PROBE):  # of a machine that joined after the job began
            raise ValueError(
                f"{out} must lie in a folder that all machines of the cluster share, or be a URI; "
                f"{ray.util.get_node_ip_address()} does not see it"
            )
        super().__init__(make, guarded, schema)
        self.out = out

    def __call__(self, table: pa.Table) -> pa.Table:
        # Ray computes again what was lost with a machine, which may have been stored before
        known = [name for name in ("id", "digest") if name in table.column_names]
        receipt = receipt_of_stored(self.out, table.select(known).to_pylist())
        if receipt is None:
            made = sign_rows(self.make_rows(table), self.schema)
            receipt = store_rows(self.out, made)
        return pa.Table.from_pylist([receipt])
