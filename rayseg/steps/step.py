"""A step fills one folder of a run; here is the one function that carries a step out.

It claims the folder, takes up what an earlier start left, does what is missing and closes it. A job
is a list of steps.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rayseg.config import Compute
from rayseg.progress import activity
from rayseg.steps.chosen import Chosen
from rayseg.steps.engine import Engine, Images, Pool, Source, Stage, Stored
from rayseg.steps.outcome import Outcome
from rayseg.steps.sources import refuse_changed
from rayseg.store import (
    KINDS,
    Folder,
    Lost,
    StaleError,
    claim,
    count_status,
    digests_of,
    empty,
    failed_ids,
    find_pending,
    find_stale,
    forget,
    forget_failed,
    lease,
    mend,
    read_run,
    rebind,
    shard_columns,
    shard_names,
    stored_ids,
    tidy,
    write_run,
)


@dataclass(frozen=True)
class Fill:
    """Rows through a stage, a row stored for each.

    Attributes:
        source: images of the manifest, or a folder whose rows are gone on from.
        make: makes the stage where it runs.
        keeps_network: the stage loads a network, and needs a process of its own.
        untagged: images without tags are looked at too.
        then: CPU tasks that the stage's planes of probabilities go on to.
        bind: where a row is missing, `make` with what it is costly to have; it may refuse.
        weights: address of the network's file; empty where there is none.
        schema: of the rows, where they have more columns than their kind's; a folder that was begun
            without these goes on without them.
    """

    source: Chosen | Folder
    make: Callable[[], Stage]
    keeps_network: bool = True
    untagged: bool = True
    then: Callable[[], Stage] | None = None
    bind: Callable[[Folder], Callable[[], Stage]] | None = None
    weights: str = ""
    schema: pa.Schema | None = None

    @property
    def origin(self) -> dict[str, Any]:
        """Where rows come from, for run.json, as `staleness` reads it; folders by their place."""
        found: dict[str, Any] = {"weights": self.weights} if self.weights else {}
        if isinstance(self.source, Folder):
            place = self.source.location.rstrip("/").split("/")[-2:]
            return found | {"folder": "/".join(place)}
        return found | {"manifest": list(self.source.reads)}

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each row of the source by id; of all the manifest, whatever is asked for."""
        if isinstance(self.source, Folder):
            return digests_of(self.source)
        return self.source.manifest.digests(self.source.reads)

    def waiting(
        self, folder: Folder, digests: Mapping[str, str], again: Set[str]
    ) -> tuple[Source, int]:
        """What has no row in the folder yet, and how much that is.

        Args:
            digests: as above.
            again: ids of images that had a row, which count as asked for.
        """
        stored = stored_ids(folder)
        if isinstance(self.source, Folder):
            pending = find_pending(self.source, stored)
            return Stored(pending), pending.rows
        asked = {*self.source.table.column("id").to_pylist(), *again} - stored
        table = self.source.manifest.table
        ids = table.column("id").to_pylist()
        rows = table.filter(pa.array([id_ in asked for id_ in ids], pa.bool_()))
        known = pa.array([digests[id_] for id_ in rows.column("id").to_pylist()], pa.string())
        return Images(rows.append_column("digest", known), untagged=self.untagged), rows.num_rows


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
        renews: its work sees by itself what has changed, so that it is never refused for that.
    """

    kind: str
    folder: Folder
    identity: Mapping[str, Any]
    work: Fill | Once
    label: str
    tell: Callable[[Folder], Outcome] = nothing
    hold: Callable[[Folder], Any] = nothing
    renews: bool = False

    def claim(self, remake: bool = False) -> None:
        """Binds the folder to what fills it.

        Args:
            remake: a folder that was made from what has changed since is emptied.

        Raises:
            StaleError: it was, and is not to be emptied.
            ValueError: it was filled under another configuration.
        """
        try:
            claim(self.folder, self.identity, self.kind)
            self.hold(self.folder)
        except StaleError:
            if self.renews:
                rebind(self.folder, self.identity)
            elif remake:
                self.empty()
            else:
                raise

    def empty(self) -> None:
        """Takes out all that the folder holds, and binds it anew; what had a row gets one."""
        _note_lost(self.folder, mend(self.folder))
        empty(self.folder, stored_ids(self.folder))
        self.claim()


def carry_out(steps: Iterable[Step], engine: Engine, compute: Compute) -> Outcome:
    """Fills the folders of the steps one after the other; what is there already stays.

    Raises:
        ValueError: a folder was filled under another configuration, or another job writes to it.
    """
    outcome = Outcome()
    for step in steps:
        with lease(step.folder, step.label), activity(step.label):
            step.claim(compute.remake_stale)
            fill_or_make = _fill if isinstance(step.work, Fill) else _make
            outcome += fill_or_make(step, engine, compute) + step.tell(step.folder)
    return outcome


def _fill(step: Step, engine: Engine, compute: Compute) -> Outcome:
    work, folder = step.work, step.folder
    assert isinstance(work, Fill)
    if isinstance(work.source, Chosen):
        refuse_changed(work.source.folder)
    lines = _note_lost(folder, mend(folder))
    if compute.retry_failed:
        _ask_again(folder, failed_ids(folder))
        forget_failed(folder)
    lines += _fill_up(step, work, engine, compute)
    while damaged := tidy(folder):  # what looks sound from outside is read only there
        lines += _note_lost(folder, damaged)
        lines += _fill_up(step, work, engine, compute)
    return Outcome(lines) + _close(folder, step.label)


def _fill_up(step: Step, work: Fill, engine: Engine, compute: Compute) -> list[str]:
    """Makes the rows that the folder lacks, and those that are stale; says which these are."""
    folder, digests = step.folder, work.digests
    write_run(folder, {"counts": None, "source": work.origin})  # until the job has ended
    lines, again = _forget_stale(step, digests)
    source, number = work.waiting(folder, digests, again)
    if number:
        try:
            make = work.bind(folder) if work.bind else work.make
        except StaleError:  # of what all rows have in common
            if not compute.remake_stale:
                raise
            step.empty()
            return lines + _fill_up(step, work, engine, compute)
        stored = len(stored_ids(folder))
        under_way = {"since": time.time(), "rows": stored, "total": stored + number}
        write_run(folder, {"under_way": under_way})  # for `rayseg status`
        pool = Pool(make, work.keeps_network)
        then = Pool(work.then) if work.then else None
        schema = _schema(step, work)
        seconds = engine.fill(source, pool, folder, schema, step.label, compute, then)
        # wall seconds add up over the starts that a folder took
        known = read_run(folder).get("seconds", 0.0)
        write_run(folder, {"seconds": known + seconds, "in_actors": work.keeps_network})
    return lines


def _schema(step: Step, work: Fill) -> pa.Schema:
    """Of the rows to be stored: all rows of a folder have the same columns."""
    schema = KINDS[step.kind].schema
    assert schema is not None
    there = shard_names(step.folder)
    if work.schema and (
        not there or {*work.schema.names} <= {*shard_columns(step.folder, there[0])}
    ):
        return work.schema
    return schema


def _note_lost(folder: Folder, lost: Iterable[Lost]) -> list[str]:
    """Keeps in mind which rows are to be made again, and says so."""
    found = list(lost)
    _ask_again(folder, {id_ for one in found for id_ in one.ids})
    return [str(one) for one in found]


def _ask_again(folder: Folder, ids: Set[str]) -> None:
    """Keeps in mind that rows are to be made again, whatever is asked for, before they are gone."""
    if ids:
        write_run(folder, {"again": sorted({*ids, *read_run(folder).get("again", [])})})


def _forget_stale(step: Step, digests: Mapping[str, str]) -> tuple[list[str], Set[str]]:
    """Takes out rows that fit their source no more, and says so.

    Returns:
        What there is to say, and the ids of those to be made again, those of a killed job too.
    """
    folder, label = step.folder, step.label
    stale = find_stale(folder, digests)
    again = {*read_run(folder).get("again", []), *stale.changed} & digests.keys()
    if stale:
        write_run(folder, {"again": sorted(again)})
        forget(folder, stale.changed | stale.gone)
    lines = []
    if stale.changed:
        lines.append(f"{label}: made again after a change: {_some(stale.changed)}")
    if stale.gone:
        lines.append(f"{label}: taken out, not in the data set any more: {_some(stale.gone)}")
    return lines, again


def _some(ids: Set[str]) -> str:
    more = ", ..." if len(ids) > 1 else ""
    return f"{len(ids)} {'image' if len(ids) == 1 else 'images'} ({min(ids)}{more})"


def _close(folder: Folder, label: str) -> Outcome:
    """Counts what a job left in a folder; a folder with counts is complete."""
    counts = count_status(folder)
    write_run(folder, {"counts": counts, "again": []})
    counted = ", ".join(f"{number} {status}" for status, number in counts.items())
    return Outcome([f"{label}: {counted}"], failed_ids(folder))


def _make(step: Step, engine: Engine, compute: Compute) -> Outcome:
    work, folder = step.work, step.folder
    assert isinstance(work, Once)
    if not work.done(folder):
        facts = work.make(folder, engine)
        write_run(folder, {**facts, "done": True})
    return Outcome()
