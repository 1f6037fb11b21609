"""The engine's verbs as a plain loop in this process: for small work and for tests, without Ray."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import torch

from rayseg.config import Compute
from rayseg.learn import Worker
from rayseg.progress import activity
from rayseg.stages import DecodeImages, Row, Rows, choose_device, guarded_rows
from rayseg.steps.engine import Images, Pool, Slots, Source, Stage
from rayseg.steps.machine import count_cores
from rayseg.store import Folder, read_shard, receipts_of, sign_rows, store_rows

T = TypeVar("T")


class PlainEngine:
    """A loop; see `rayseg.steps.engine.Engine`.

    An image that kills its process ends the job, where Ray would go on with another process. What
    was in flight is written down, so that the next start tries it alone and may give it up.
    """

    def open(self, address: str, run: str) -> AbstractContextManager[None]:
        """Nothing is to be opened.

        Raises:
            ValueError: a cluster is asked for.
        """
        if address:
            raise ValueError(f"engine plain joins no cluster, got address {address}; leave one out")
        return nullcontext()

    def slots(self, compute: Compute) -> Slots:
        """One process."""
        gpus = float(choose_device(compute.device).type == "cuda")
        where = f"this process, of {count_cores()} cores"
        return Slots(1, 1, gpus, compute.threads or count_cores(), where)

    def check(self, what: str, compute: Compute) -> None:
        """Refuses several processes.

        Raises:
            ValueError: they are asked for.
        """
        for name in ("actors", "workers"):
            if getattr(compute, name) > 1:
                number = getattr(compute, name)
                raise ValueError(
                    f"engine plain is one process, got compute.{name} {number}; take --engine ray"
                )

    def fill(
        self,
        source: Source,
        pool: Pool,
        out: Folder,
        schema: pa.Schema,
        label: str,
        compute: Compute,
        then: Pool | None = None,
    ) -> float:
        """Rows are stored block by block."""
        self.check(label, compute)
        start, inflight = time.perf_counter(), out / "inflight"
        total = source.table.num_rows if isinstance(source, Images) else source.pending.rows
        bar = activity(label, total, "image")
        threads, books = _all_threads(compute), receipts_of(out)
        with _one_line(label), bar as shown, threads as take_all, books as receipts:
            stage, smooth = pool.make(), then.make() if then else None
            take_all()  # a stage takes the threads of one actor of many
            for rows in _blocks(source, pool.rows or compute.block_rows):
                made = guarded_rows(partial(_through, source, stage, smooth), rows, inflight)
                receipts.take(store_rows(out, sign_rows(made, schema)))
                shown.update(len(rows))
        inflight.remove()
        return time.perf_counter() - start

    def collect(
        self, source: Source, pool: Pool, compute: Compute, scratch: Folder | None = None
    ) -> Iterator[Row]:
        """Rows come out as they are made."""
        with _one_line("counting"):
            stage = pool.make()
            for rows in _blocks(source, pool.rows or compute.block_rows):
                yield from _through(source, stage, None, rows)

    def fit(
        self, loop: Callable[[Any, Worker], None], work: Any, folder: Folder, compute: Compute
    ) -> None:
        """A training by one worker."""
        self.check("training", compute)
        with _one_line("training"), _all_threads(compute) as take_all:
            take_all()
            loop(work, Worker(device=choose_device(compute.device)))

    def share(self, make: Callable[[], tuple[str, T]], what: str) -> tuple[str, Callable[[], T]]:
        """Held by this process."""
        with _one_line(what):
            name, thing = make()
        return name, _Held(thing)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Says what a stage or training raises as an engine does.

    Raises:
        ChildProcessError: in place of any error, which stays its cause.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ChildProcessError(f"{what} failed: {type(error).__name__}: {reason}") from error


@contextmanager
def _all_threads(compute: Compute) -> Iterator[Callable[[], None]]:
    """What gives torch the threads that are asked for, else one a core; within, and no longer."""
    before = torch.get_num_threads()
    try:
        yield partial(torch.set_num_threads, compute.threads or count_cores())
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Held:
    thing: Any

    def __call__(self) -> Any:
        return self.thing


def _through(source: Source, stage: Stage, then: Stage | None, rows: Rows) -> Rows:
    """A block through decoding, where pixels are asked for, and the stages."""
    if isinstance(source, Images) and source.decoded:
        rows = DecodeImages(untagged=source.untagged)(rows)
    made = stage(rows)
    return then(made) if then else made


def _blocks(source: Source, size: int) -> Iterator[Rows]:
    """Rows in blocks, images of one size beside each other."""
    if isinstance(source, Images):
        order = [("height", "ascending"), ("width", "ascending"), ("id", "ascending")]
        rows = source.table.sort_by(order)
        for start in range(0, rows.num_rows, size):
            yield rows.slice(start, size).to_pylist()
        return
    for address in source.pending.shards:
        parent, _, name = address.rpartition("/")
        table = read_shard(Folder(parent), name)
        skipped = pc.is_in(table.column("id"), pa.array(list(source.pending.skip), pa.string()))
        waiting = table.filter(pc.invert(skipped))
        for start in range(0, waiting.num_rows, size):
            yield waiting.slice(start, size).to_pylist()
