"""Rows through stages on Ray Data: tables in, shards out, resumed by what is already written.

All that Ray must know of a stage is decided here. Shards are written by the actor that made their
rows, whole or not at all, under names that follow from their ids; so a job may be killed anywhere,
and a block that is computed twice is stored once. Ray Data's own checkpoints are not used: they
need a CPU more on resume than at the start, and record nothing for some sources (RAY.md 0).
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import ActorPoolStrategy, Dataset
from tqdm import tqdm

from rayseg.config import Compute
from rayseg.on_ray.guard import CrashGuard, clear
from rayseg.on_ray.session import preflight, threads_each
from rayseg.stages import Rows
from rayseg.store import Folder, Pending, rows_to_table, write_shard

Stage = Callable[[Rows], Rows]

MAX_RESTARTS = 100
"""Deaths of one actor after which the job gives up; what is written stays."""


@dataclass(frozen=True)
class Pool:
    """The actors of one stage.

    Attributes:
        make: makes the stage inside the actor, so that only its arguments travel.
        actors: how many.
        cpus: of each; 0 beside a GPU, so that the pool cannot starve the tasks that feed it.
        gpus: of each, fractions share a device.
        rows: rows in a batch, the unit of writing, of loss and of retry.
        stall_seconds: a job without any progress for so long fails.
    """

    make: Callable[[], Stage]
    actors: int
    cpus: float
    gpus: float
    rows: int
    stall_seconds: int = 1800


def make_pool(compute: Compute, make: Callable[[], Stage], gpus: float = 0.0) -> Pool:
    """The pool that a configuration asks for: an actor a GPU, or one for each free core."""
    threads = threads_each(compute)
    have = ray.cluster_resources()
    fitting = have.get("GPU", 0) / gpus if gpus else (have.get("CPU", 0) - 1) / threads
    return Pool(
        make=make,
        actors=compute.actors or max(int(fitting), 1),
        cpus=0 if gpus else threads,
        gpus=gpus,
        rows=compute.block_rows,
        stall_seconds=compute.stall_seconds,
    )


def write_rows(
    source: Dataset, total: int, pool: Pool, out: Folder, schema: pa.Schema, label: str
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
    """
    preflight(label, pool.actors, pool.cpus, pool.gpus)
    guarded = out / "inflight"
    clear(guarded)
    start = time.perf_counter()
    receipts = _map_pool(source, pool, _Writer, (pool.make, out, guarded, schema))
    with tqdm(total=total, desc=label, unit="image", smoothing=0.1) as bar:
        for receipt in receipts.iter_rows():
            bar.update(receipt["rows"])
    clear(guarded)
    return time.perf_counter() - start


def collect(source: Dataset, pool: Pool) -> Iterator[dict[str, Any]]:
    """Sends a dataset through a pool and yields the few rows that come out, for adding up."""
    preflight("counting", pool.actors, pool.cpus, pool.gpus)
    results = _map_pool(source, pool, _Caller, (pool.make,))
    yield from results.iter_rows()


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


def decoded(source: Dataset, stage: Stage) -> Dataset:
    """Adds pixels in CPU tasks, which run ahead of the pool that needs them."""

    def decode(table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(stage(table.to_pylist()))

    return source.map_batches(decode, batch_size=None, batch_format="pyarrow", num_cpus=1)


def pending_rows(pending: Pending, rows: int) -> Dataset:
    """The rows of stored shards that are still to be done, as blocks of so many."""
    source = _read(pending.shards)
    if pending.skip:
        skip = pa.array(sorted(pending.skip))

        def drop(table: pa.Table) -> pa.Table:
            return table.filter(pa.compute.invert(pa.compute.is_in(table.column("id"), skip)))

        source = source.map_batches(drop, batch_size=None, batch_format="pyarrow", num_cpus=1)
    return source.repartition(target_num_rows_per_block=rows)


def _read(addresses: list[str]) -> Dataset:
    context = ray.data.DataContext.get_current()
    # a split of a file re-reads its footer, and repartition evens the blocks out anyway
    context.read_op_min_num_blocks = 1
    return ray.data.read_parquet(addresses)


def _map_pool(
    source: Dataset, pool: Pool, adapter: type[_Caller], arguments: tuple[Any, ...]
) -> Dataset:
    context = ray.data.DataContext.get_current()
    context.execution_no_progress_timeout_s = pool.stall_seconds
    with warnings.catch_warnings():
        # bounds on restarts have no named parameter yet; 2.64 takes this way out
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return source.map_batches(
            adapter,
            fn_constructor_args=arguments,
            batch_size=pool.rows,
            batch_format="pyarrow",
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            compute=ActorPoolStrategy(size=pool.actors, max_tasks_in_flight_per_actor=2),
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )


class _Caller:
    """A stage as Ray Data calls it: a table in, a table out."""

    def __init__(self, make: Callable[[], Stage]):
        self.stage = make()

    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.Table.from_pylist(self.stage(table.to_pylist()))


class _Writer(_Caller):
    """A stage whose rows are stored by the actor that made them; out comes only their number."""

    def __init__(self, make: Callable[[], Stage], out: Folder, guarded: Folder, schema: pa.Schema):
        self.guard = CrashGuard(guarded, str(ray.get_runtime_context().get_actor_id()))
        self.out = out
        self.schema = schema
        super().__init__(make)

    def __call__(self, table: pa.Table) -> pa.Table:
        waiting = {row["id"]: row for row in table.to_pylist()}
        done = {id_: _poison(row) for id_, row in waiting.items() if self.guard.poisonous(id_)}
        for group in self.guard.groups(list(waiting)):
            with self.guard.inflight(group):
                made = self.stage([waiting[id_] for id_ in group])
            done.update((row["id"], row) for row in made)
        write_shard(self.out, rows_to_table([done[id_] for id_ in waiting], self.schema))
        return pa.table({"rows": [len(waiting)]})


def _poison(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("id", "height", "width", "note")}
    return kept | {"status": "poison", "error": "killed its process twice and was given up"}
