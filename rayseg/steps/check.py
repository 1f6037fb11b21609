"""The job that reads a whole run and says what is damaged, and puts it in order if asked to."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

from rayseg.config import CheckConfig
from rayseg.learn import load_state
from rayseg.nets.weights import AGAIN, read_tensors
from rayseg.networks import NETWORKS
from rayseg.steps.engine import Engine
from rayseg.steps.findings import Checked, Finding
from rayseg.steps.outcome import Outcome
from rayseg.steps.table import table
from rayseg.steps.trials import read_trial
from rayseg.store import (
    COPY,
    KINDS,
    CheckedShards,
    DamagedError,
    Folder,
    FolderLockedError,
    changed_source,
    check_shards,
    dead_holder,
    kind_of,
    lease,
    local_copy,
    read_facts,
    read_manifest,
    read_run,
    set_shard_aside,
    shard_names,
    stored_ids,
    tidy,
    write_run,
)

_PREPARED_AGAIN = "`rayseg prepare` with the same flags makes it again"


def check(config: CheckConfig, engine: Engine) -> Outcome:
    """Reads every file of a run, and with `repair` sets aside what is damaged.

    Raises:
        FileNotFoundError: there is no such run.
    """
    run = Folder(config.run)
    if not run.exists():
        raise FileNotFoundError(f"run {run} does not exist")
    if not any((run / kind.folder).exists() for kind in KINDS.values()):
        raise FileNotFoundError(f"{run} is no run: it has no manifest and no results; check --run")
    checked = [Checked("manifest", run / "manifest", "manifest")]
    known = _check_manifest(checked[0])
    for place, folder in _folders(run):
        checked.append(Checked(place, folder))
        _check_folder(checked[-1], run, known)
        _check_json(checked[-1], "trials.json", "the same `rayseg tune` makes it again")
    checked.append(Checked("run", run))
    _check_json(checked[-1], "scores.json", "`rayseg score` makes it again")
    lines = table({one.place: one.cells for one in checked})
    number = sum(len(one.found) for one in checked)
    for one in checked:
        lines += _mend(one) if config.repair else [_said(finding) for finding in one.found]
    if number and not config.repair:
        lines.append("--repair sets aside what is damaged")
    return Outcome(lines, left_out=number)


def _said(finding: Finding) -> str:
    return f"{finding.what}; {'after a repair ' if finding.stays else ''}{finding.way_out}"


def _mend(checked: Checked) -> list[str]:
    """Repairs what was found in a folder, and says so."""
    if not checked.found:
        return []
    try:
        with lease(checked.folder, "check"):
            for finding in checked.found:
                if finding.repair:
                    finding.repair()
    except FolderLockedError as error:
        return [*map(_said, checked.found), f"{checked.place} is left as it is: {error}"]
    return [
        f"{one.what}{': put in order' if one.repair else ''}; {one.way_out}"
        for one in checked.found
    ]


def _folders(run: Folder) -> Iterator[tuple[str, Folder]]:
    """All folders of the run that a step fills, but for the manifest."""
    for place in dict.fromkeys(kind.folder for kind in KINDS.values()):
        folder = run / place
        if place == "manifest":
            continue
        if folder.names():
            yield place, folder
            continue
        for name in folder.folders():
            yield f"{place}/{name}", folder / name


def _check_manifest(checked: Checked) -> set[str] | None:
    """Ids of the manifest; None where it cannot be read."""
    folder = checked.folder
    _check_run(checked)
    _check_left(checked)
    try:
        ids = read_manifest(folder, true_masks=True).table.column("id").to_pylist()
    except FileNotFoundError:
        what = f"{folder.path('manifest.parquet')} is missing"
        checked.found.append(Finding(what, None, _PREPARED_AGAIN))
        return None
    except (DamagedError, ValueError) as error:
        what = str(error).partition("; `rayseg check")[0]
        aside = partial(folder.set_aside, "manifest.parquet")
        checked.found.append(Finding(what, aside, _PREPARED_AGAIN, stays=True))
        return None
    _try(checked, partial(changed_source, folder))
    checked.rows = len(ids)
    return set(ids)


def _check_folder(checked: Checked, run: Folder, known: set[str] | None) -> None:
    """Adds what is wrong with a folder that a step fills."""
    folder = checked.folder
    facts = _check_run(checked)
    _check_left(checked)
    if facts is None:
        return
    checked.kind = kind_of(folder)
    kind = KINDS.get(checked.kind)
    if kind and kind.schema is not None:
        _check_rows(checked, check_shards(folder, kind.schema), facts)
        _check_sources(checked, run, facts, known)
    _check_network(checked, facts)
    trials = Checked(checked.place, folder / "trials", found=checked.found)
    if trials.folder.exists():
        _check_run(trials)
        _check_left(trials)
    for name in trials.folder.names(".npz"):
        checked.files += 1
        _try(checked, partial(read_trial, folder, name))


def _check_run(checked: Checked) -> dict[str, Any] | None:
    """What run.json says; None where neither it nor its copy can be read."""
    folder = checked.folder
    try:
        facts = read_facts(folder)
        _check_copy(checked, facts)
        return facts
    except FileNotFoundError:
        what = f"{folder.path('run.json')} is missing"
    except DamagedError as error:
        what = f"{error.path} is damaged: {error.reason}"
    try:
        facts = read_run(folder)
    except DamagedError:
        files = [name for name in [*folder.names(), *shard_names(folder)] if name[0] != "."]
        aside = partial(_set_all_aside, folder, files)
        way_out = "what made the folder is not known any more: all of it is made again"
        checked.found.append(Finding(what, aside, way_out))
        return None
    if facts:
        checked.found.append(Finding(what, partial(write_run, folder, {}), "its copy is good"))
    elif shard_names(folder):
        way_out = "what made its rows is not known: delete the folder"
        checked.found.append(Finding(f"{folder} has shards and no run.json", None, way_out))
    return facts


def _check_copy(checked: Checked, facts: dict[str, Any]) -> None:
    with suppress(FileNotFoundError, DamagedError):
        if read_facts(checked.folder, COPY).get("config") != facts.get("config"):
            what = f"{checked.folder.path('run.json')} and {COPY} name different settings"
            way_out = "the command that made the folder takes those that are its own"
            checked.found.append(Finding(what, None, way_out))


def _set_all_aside(folder: Folder, names: list[str]) -> None:
    for name in dict.fromkeys(names):
        folder.set_aside(name)


def _check_left(checked: Checked) -> None:
    """What dead processes have left; the next step takes it away too."""
    folder = checked.folder
    for name in folder.drafts():
        what = f"{folder.path(name)} is the draft of a process that is gone"
        checked.found.append(Finding(what, folder.sweep, "the next command deletes it"))
    if holder := dead_holder(folder):
        what = f"{folder.path('.lock.json')} is of {holder}"
        checked.found.append(Finding(what, lambda: None, "the next command takes it over"))


def _check_rows(checked: Checked, shards: CheckedShards, facts: dict[str, Any]) -> None:
    folder = checked.folder
    checked.rows, checked.files = shards.lines.num_rows, shards.shards
    for error in shards.damaged:
        what = f"{error.path} is damaged: {error.reason}"
        checked.found.append(Finding(what, partial(_set_rows_aside, error), stays=True))
    if shards.repeated:
        what = f"{folder} has {len(shards.repeated)} rows twice ({shards.repeated[0]!r})"
        checked.found.append(Finding(what, partial(tidy, folder), "one of each stays"))
    if shards.index:
        what = f"{folder.path('_index.pq')} is damaged: {shards.index}"
        checked.found.append(Finding(what, partial(folder.delete, "_index.pq"), "it is made anew"))
    counts = facts.get("counts")
    if counts and counts != shards.statuses and not shards.damaged and not shards.repeated:
        what = f"{folder} must have the rows that its run.json counts, {counts}: {shards.statuses}"
        reopen = partial(write_run, folder, {"counts": None})
        checked.found.append(Finding(what, reopen, "the command that made them makes what lacks"))


def _set_rows_aside(error: DamagedError) -> None:
    """Sets a shard aside; its folder is not complete then."""
    lost = set_shard_aside(error)
    known = read_run(error.folder).get("again", [])
    write_run(error.folder, {"counts": None, "again": sorted(lost.ids.union(known))})


def _check_sources(
    checked: Checked, run: Folder, facts: dict[str, Any], known: set[str] | None
) -> None:
    """Rows must be of images of the manifest, and of rows of the folder that they came from."""
    try:
        ids = stored_ids(checked.folder)
    except DamagedError:
        return  # which is said already
    above = {"the manifest": known}
    source = (facts.get("source") or {}).get("folder")
    if source:
        try:
            above[source] = stored_ids(run / source)
        except DamagedError:
            above[source] = None
    for name, there in above.items():
        if there is not None and (strange := ids - there):
            what = (
                f"{checked.folder} has {len(strange)} rows that {name} has not ({min(strange)!r})"
            )
            way_out = "the command that made them takes them out"
            checked.found.append(Finding(what, None, way_out))


def _check_network(checked: Checked, facts: dict[str, Any]) -> None:
    """Weights and state of a training."""
    folder, network = checked.folder, NETWORKS.get(checked.kind)
    if network is None:
        return
    _try(checked, partial(load_state, folder))
    if not folder.exists(network.file):
        if facts.get("done"):
            what = f"{folder.path(network.file)} is missing"
            reopen = partial(write_run, folder, {"done": False})
            checked.found.append(Finding(what, reopen, f"`rayseg {network.job}` trains it again"))
        return
    try:
        read_tensors(local_copy(folder.path(network.file)))
    except ValueError as error:
        aside = partial(_set_weights_aside, folder, network.file)
        way_out = f"`rayseg {network.job}` trains it again"
        what = " ".join(str(error).partition(f"; {AGAIN}")[0].split())
        checked.found.append(Finding(what, aside, way_out, stays=True))


def _set_weights_aside(folder: Folder, name: str) -> None:
    folder.set_aside(name)
    write_run(folder, {"done": False})


def _try(checked: Checked, read: Callable[[], Any]) -> None:
    """Reads a file that can be made again; adds it where it is damaged."""
    try:
        read()
    except DamagedError as error:
        what = f"{error.path} is damaged: {error.reason}"
        checked.found.append(Finding(what, partial(error.folder.set_aside, error.name)))


def _check_json(checked: Checked, name: str, way_out: str) -> None:
    folder = checked.folder
    if not folder.exists(name):
        return
    try:
        json.loads(folder.read(name))
    except (ValueError, RecursionError) as error:
        what = f"{folder.path(name)} is damaged: {error}"
        aside = partial(folder.set_aside, name)
        checked.found.append(Finding(what, aside, way_out))
