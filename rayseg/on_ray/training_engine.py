"""What a training asks of its engine, on Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from rayseg.config import Compute
from rayseg.learn import Worker
from rayseg.on_ray.data import collect, manifest_rows, task_pool
from rayseg.on_ray.session import gpus_each, session
from rayseg.on_ray.train import fit
from rayseg.stages import Row
from rayseg.steps.engine import Images, Pool, Source
from rayseg.store import Folder


class TrainingEngine:
    """The verbs of `rayseg.steps.engine.Engine` that a training needs."""

    def open(self, address: str, run: str) -> AbstractContextManager[None]:
        """Starts or joins Ray."""
        return session(address, run)

    def collect(
        self, source: Source, pool: Pool, compute: Compute, scratch: Folder | None = None
    ) -> Iterator[Row]:
        """Rows of a manifest through CPU tasks."""
        assert isinstance(source, Images)
        assert scratch is not None
        crew = replace(task_pool(compute, pool.make), rows=pool.rows or compute.block_rows)
        yield from collect(manifest_rows(source.table, scratch, crew.rows), crew)
        scratch.remove()

    def fit(
        self, loop: Callable[[Any, Worker], None], work: Any, folder: Folder, compute: Compute
    ) -> None:
        """On Ray Train, which starts lost workers again."""
        fit(loop, work, folder, compute, gpus_each(compute))
