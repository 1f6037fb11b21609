"""The few verbs that move rows and train networks; on Ray, or as a plain loop.

A step says what is to be done; an engine knows where and by how many processes. Both engines store
the same rows and resume the same folders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import pyarrow as pa

from rayseg.config import Compute
from rayseg.store import Folder, Pending

if TYPE_CHECKING:  # torch, which a job that asks nothing of an engine does not need
    from rayseg.learn import Worker
    from rayseg.stages import Row, Rows

T = TypeVar("T")
Stage = Callable[["Rows"], "Rows"]


@dataclass(frozen=True)
class Slots:
    """What works side by side.

    Attributes:
        actors: processes that keep a network.
        tasks: CPU tasks.
        gpus: of an actor or a training worker; fractions share a device.
        threads: CPU threads of an actor.
        where: what there is to work with, in words.
    """

    actors: int
    tasks: int
    gpus: float
    threads: int
    where: str = ""


@dataclass(frozen=True)
class Images:
    """Images of a manifest as a source of rows.

    Attributes:
        table: rows of MANIFEST_SCHEMA.
        decoded: rows hold pixels; else they are the manifest's.
        untagged: images without tags are looked at too.
    """

    table: pa.Table
    decoded: bool = True
    untagged: bool = True


@dataclass(frozen=True)
class Stored:
    """Rows of another folder as a source.

    Attributes:
        pending: the shards, and the ids in them that are left out.
    """

    pending: Pending


Source = Images | Stored


@dataclass(frozen=True)
class Pool:
    """Who runs a stage.

    Attributes:
        make: makes the stage where it runs, so that only its arguments travel.
        keeps_network: runs in actors, which make the stage once; else in CPU tasks, which make it
            anew for each batch.
        rows: rows in a batch; 0 takes `Compute.block_rows`.
    """

    make: Callable[[], Stage]
    keeps_network: bool = False
    rows: int = 0


class Engine(Protocol):
    """What moves rows and trains networks."""

    def open(self, address: str, run: str) -> AbstractContextManager[None]:
        """For the length of a job; within another `open` it changes nothing.

        Raises:
            ConnectionError: there is no cluster at the address, or it does not let us in.
            ValueError: a node does not see the run's folder.
        """

    def slots(self, compute: Compute) -> Slots:
        """What will work side by side."""

    def check(self, what: str, compute: Compute) -> None:
        """Refuses what would wait without end for actors or training workers.

        Raises:
            ValueError: the cluster has less than is asked for.
        """

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
        """Sends rows through a stage and stores a row for each; wall seconds.

        Args:
            source: rows, none of which the folder holds.
            label: of the progress bar and of errors.
            then: CPU tasks to which the stage's planes of probabilities go on.

        Raises:
            ChildProcessError: the stage failed as a whole; what is written stays.
        """

    def collect(
        self, source: Source, pool: Pool, compute: Compute, scratch: Folder | None = None
    ) -> Iterator[Row]:
        """Sends rows through a stage and yields the few that come out, for adding up.

        Args:
            scratch: a folder that is gone afterwards; images ask for one.
        """

    def fit(
        self, loop: Callable[[Any, Worker], None], work: Any, folder: Folder, compute: Compute
    ) -> None:
        """Runs a training loop on every worker until all have ended.

        Args:
            loop: called with the work and who trains; goes on from what the folder holds.
            work: what can be pickled.
            compute: how many workers, and how often they may be lost.

        Raises:
            ValueError: the cluster is too small.
            ChildProcessError: the loop failed, or workers were lost too often.
        """

    def share(self, make: Callable[[], tuple[str, T]], what: str) -> tuple[str, Callable[[], T]]:
        """What all processes read, made once.

        Args:
            make: a name for what it made, and that.
            what: it is, in errors.

        Returns:
            The name, and what gives the thing wherever it is called; picklable.
        """
