"""The engine's verbs on Ray: Ray Data moves rows, Ray Train trains, the object store shares."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import ray

from rayseg.config import Compute
from rayseg.learn import Worker
from rayseg.on_ray.data import (
    Crew,
    collect,
    decoded,
    manifest_rows,
    pending_rows,
    planes,
    write_rows,
)
from rayseg.on_ray.session import (
    cluster_in_words,
    fitting,
    gpus_each,
    preflight,
    session,
    task_slots,
)
from rayseg.on_ray.train import fit
from rayseg.on_ray.watch import note_progress, one_line_errors
from rayseg.stages import DecodeImages, Row
from rayseg.steps.engine import Images, Pool, Slots, Source
from rayseg.steps.machine import threads_each
from rayseg.store import Folder

T = TypeVar("T")


class RayEngine:
    """Ray on this machine, or a cluster that runs; see `rayseg.steps.engine.Engine`."""

    def open(self, address: str, run: str) -> AbstractContextManager[None]:
        """Starts or joins Ray, where it does not run in this process yet."""
        return session(address, run)

    def slots(self, compute: Compute) -> Slots:
        """Actors as given, else one a GPU, or one for each free core."""
        gpus, threads = gpus_each(compute), threads_each(compute)
        free_cpus = ray.cluster_resources().get("CPU", 0) - 1
        fits = fitting("GPU", gpus) if gpus else min(fitting("CPU", threads), free_cpus // threads)
        actors = compute.actors or max(int(fits), 1)
        if compute.max_actors:
            actors = min(actors, compute.max_actors)
        return Slots(actors, task_slots(), gpus, threads, cluster_in_words())

    def check(self, what: str, compute: Compute) -> None:
        """Holds pools and training workers against what the cluster has."""
        slots = self.slots(compute)
        cpus = 0 if slots.gpus else slots.threads
        preflight(what, slots.actors, cpus, slots.gpus, compute.grows)
        one = 0 if slots.gpus else 1
        preflight("training", compute.workers, one, slots.gpus, compute.grows)

    def fill(
        self,
        source: Source,
        pool: Pool,
        out: Folder,
        schema: Any,
        label: str,
        compute: Compute,
        then: Pool | None = None,
    ) -> float:
        """Rows are stored by the processes that made them."""
        note_progress(label)
        crew, number = self.crew(pool, compute), _number(source)
        scratch = out / "pending"
        rows = _rows(source, scratch, crew.rows, out)
        if then:
            rows, crew = planes(rows, crew, out), self.crew(then, compute)
        seconds = write_rows(rows, number, crew, out, schema, label)
        scratch.remove()
        return seconds

    def collect(
        self, source: Source, pool: Pool, compute: Compute, scratch: Folder | None = None
    ) -> Iterator[Row]:
        """Rows come back to this process."""
        crew = self.crew(pool, compute)
        yield from collect(_rows(source, scratch, crew.rows, scratch), crew)
        if scratch:
            scratch.remove()

    def fit(
        self, loop: Callable[[Any, Worker], None], work: Any, folder: Folder, compute: Compute
    ) -> None:
        """A training on Ray Train, which starts lost workers again."""
        fit(loop, work, folder, compute, gpus_each(compute))

    def share(self, make: Callable[[], tuple[str, T]], what: str) -> tuple[str, Callable[[], T]]:
        """Made by one task; all processes of a node look at the same memory.

        While the reference is held, a copy that is lost with its node is made again.
        """
        references: Any = _make_shared.remote(make)
        name, thing = references
        with one_line_errors(what):
            return ray.get(name), partial(_get, thing)  # what cannot be got fails here

    def crew(self, pool: Pool, compute: Compute) -> Crew:
        """All that Ray must know of a stage."""
        rows = pool.rows or compute.block_rows
        crew = Crew(pool.make, rows, grows=compute.grows, stall_seconds=compute.stall_seconds)
        if not pool.keeps_network:
            return crew
        slots = self.slots(compute)
        return replace(
            crew,
            actors=slots.actors,
            max_actors=compute.max_actors,
            cpus=0 if slots.gpus else slots.threads,
            gpus=slots.gpus,
        )


def _rows(source: Source, scratch: Folder | None, rows: int, out: Folder | None) -> Any:
    if not isinstance(source, Images):
        return pending_rows(source.pending, rows)
    assert scratch is not None
    found = manifest_rows(source.table, scratch, rows)
    if not source.decoded:
        return found
    assert out is not None
    return decoded(found, DecodeImages(untagged=source.untagged), out)


def _number(source: Source) -> int:
    return source.table.num_rows if isinstance(source, Images) else source.pending.rows


# an image that kills its decoder kills every try; any other death is the machine's
@ray.remote(num_cpus=1, num_returns=2, max_retries=3)
def _make_shared(make: Callable[[], tuple[str, Any]]) -> tuple[str, Any]:
    return make()


def _get(reference: Any) -> Any:
    return ray.get(reference)
