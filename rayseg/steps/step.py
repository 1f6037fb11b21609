"""A step fills one folder of a run; here is the one function that carries a step out.

It claims the folder, takes up what an earlier start left, does what is missing and closes it. A job
is a list of steps.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayseg.config import Compute
from rayseg.steps.engine import Engine, Images, Pool, Source, Stage, Stored
from rayseg.steps.outcome import Outcome
from rayseg.store import (
    KINDS,
    Folder,
    claim,
    count_status,
    failed_ids,
    find_pending,
    forget_failed,
    forget_repeats,
    lease,
    read_run,
    stored_ids,
    write_run,
)


@dataclass(frozen=True)
class Fill:
    """Rows through a stage, a row stored for each.

    Attributes:
        source: rows of the manifest, or a folder whose rows are gone on from.
        make: makes the stage where it runs.
        keeps_network: the stage loads a network, and needs a process of its own.
        untagged: images without tags are looked at too.
        then: CPU tasks that the stage's planes of probabilities go on to.
        bind: where a row is missing, `make` with what it is costly to have; it may refuse.
    """

    source: pa.Table | Folder
    make: Callable[[], Stage]
    keeps_network: bool = True
    untagged: bool = True
    then: Callable[[], Stage] | None = None
    bind: Callable[[Folder], Callable[[], Stage]] | None = None

    def waiting(self, folder: Folder) -> tuple[Source, int]:
        """What has no row in the folder yet, and how much that is."""
        stored = stored_ids(folder)
        if isinstance(self.source, Folder):
            pending = find_pending(self.source, stored)
            return Stored(pending), pending.rows
        ids = self.source.column("id").to_pylist()
        rows = self.source.filter(pa.array([id_ not in stored for id_ in ids], pa.bool_()))
        return Images(rows, untagged=self.untagged), rows.num_rows


@dataclass(frozen=True)
class Once:
    """Work that is done as a whole: a training, or a function.

    Attributes:
        make: does it, with the folder and the engine; what it returns is put into run.json.
        done: whether nothing is left to do.
    """

    make: Callable[[Folder, Engine], Mapping[str, Any]]
    done: Callable[[Folder], bool] = lambda folder: bool(read_run(folder).get("done"))


def nothing(folder: Folder) -> Outcome:
    """There is nothing to say of the folder."""
    return Outcome()


@dataclass(frozen=True)
class Step:
    """One folder of a run.

    Attributes:
        kind: of the folder, a key of KINDS.
        folder: that is filled.
        identity: what its rows follow from; another one is refused.
        work: that fills it.
        label: names it to the user.
        tell: what there is to say of the filled folder.
        hold: refuses a claimed folder for what its identity does not say.
    """

    kind: str
    folder: Folder
    identity: Mapping[str, Any]
    work: Fill | Once
    label: str
    tell: Callable[[Folder], Outcome] = nothing
    hold: Callable[[Folder], Any] = nothing

    def claim(self) -> None:
        """Binds the folder to what fills it.

        Raises:
            ValueError: it was filled under another configuration.
        """
        claim(self.folder, self.identity, self.kind)
        self.hold(self.folder)


def carry_out(steps: Iterable[Step], engine: Engine, compute: Compute) -> Outcome:
    """Fills the folders of the steps one after the other; what is there already stays.

    Raises:
        ValueError: a folder was filled under another configuration, or another job writes to it.
    """
    outcome = Outcome()
    for step in steps:
        with lease(step.folder, step.label):
            step.claim()
            fill_or_make = _fill if isinstance(step.work, Fill) else _make
            outcome += fill_or_make(step, engine, compute) + step.tell(step.folder)
    return outcome


def _fill(step: Step, engine: Engine, compute: Compute) -> Outcome:
    work, folder = step.work, step.folder
    assert isinstance(work, Fill)
    write_run(folder, {"counts": None})  # until the job has ended
    if compute.retry_failed:
        forget_failed(folder)
    source, number = work.waiting(folder)
    if number:
        make = work.bind(folder) if work.bind else work.make
        pool = Pool(make, work.keeps_network)
        then = Pool(work.then) if work.then else None
        schema = KINDS[step.kind].schema
        assert schema is not None
        seconds = engine.fill(source, pool, folder, schema, step.label, compute, then)
        # wall seconds add up over the starts that a folder took
        known = read_run(folder).get("seconds", 0.0)
        write_run(folder, {"seconds": known + seconds, "in_actors": work.keeps_network})
    return _close(folder, step.label)


def _close(folder: Folder, label: str) -> Outcome:
    """Counts what a job left in a folder; a folder with counts is complete."""
    forget_repeats(folder)
    counts = count_status(folder)
    write_run(folder, {"counts": counts})
    counted = ", ".join(f"{number} {status}" for status, number in counts.items())
    return Outcome([f"{label}: {counted}"], failed_ids(folder))


def _make(step: Step, engine: Engine, compute: Compute) -> Outcome:
    work, folder = step.work, step.folder
    assert isinstance(work, Once)
    if not work.done(folder):
        facts = work.make(folder, engine)
        write_run(folder, {**facts, "done": True})
    return Outcome()
