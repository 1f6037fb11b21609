"""The job that says how far a run is, at any time; it writes nothing and takes no lease."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa

from rayseg.config import StatusConfig
from rayseg.networks import NETWORKS
from rayseg.progress import in_words, pace_in_words
from rayseg.steps.engine import Engine
from rayseg.steps.outcome import Outcome
from rayseg.store import (
    FAILED,
    KINDS,
    DamagedError,
    Folder,
    kind_of,
    live_holder,
    noted,
    peek_index,
    read_progress_file,
    read_run,
    read_shard,
)

PLAN = "plan.json"
"""File of a run's folder that holds the plan of its last start."""
MAX_REASONS = 5
LONGEST = 90
"""Characters of a reason."""


def status(config: StatusConfig, engine: Engine) -> Outcome:
    """A line for each folder of the run, and one for each reason why images failed in it.

    Raises:
        FileNotFoundError: there is no such run.
    """
    del engine
    run = Folder(config.run)
    planned = read_plan(run)
    places = list(dict.fromkeys([*_places(run), *planned]))
    if not places:
        raise FileNotFoundError(f"{run} holds no run; `rayseg status RUN` takes a run's folder")
    holder = live_holder(run)
    lines = [f"{run}: {f'at work: {holder}' if holder else 'no job is at work on the whole run'}"]
    width = max(map(len, places))
    for place in places:
        first, *more = _folder_in_words(run / place, planned.get(place, {}))
        lines += [f"  {place:{width}}  {first}", *(f"      {line}" for line in more)]
    return Outcome(lines)


def read_plan(run: Folder) -> dict[str, dict[str, Any]]:
    """What the last start of the run was to make, by place; empty where that is not known."""
    with suppress(OSError, ValueError):
        return {one["place"]: one for one in json.loads(run.read(PLAN))}
    return {}


def _places(run: Folder) -> Iterator[str]:
    """The folders of the run that are there."""
    for place in dict.fromkeys(kind.folder for kind in KINDS.values()):
        if (run / place).exists("run.json"):
            yield place
            continue
        yield from (f"{place}/{name}" for name in (run / place).folders())


def _folder_in_words(folder: Folder, planned: dict[str, Any]) -> list[str]:
    try:
        facts, kind = read_run(folder), kind_of(folder)
        known = KINDS.get(kind)
        if not facts:
            wanted = f": {planned['total']} {planned['unit']}s" if planned else ""
            return [f"not begun{wanted}"]
        working = live_holder(folder)
        if kind in NETWORKS:
            return [_training(folder, facts, working)]
        if known and known.schema is not None:
            return _rows(folder, facts, working, planned)
        return ["at work" if working else "done" if facts.get("done", True) else "not finished"]
    except DamagedError as error:
        return [f"damaged: {error.path}; `rayseg check` says more"]


def _training(folder: Folder, facts: dict[str, Any], working: str) -> str:
    if facts.get("done"):
        last = (facts.get("curve") or [{}])[-1].get("iteration")
        return f"done{f', {last} steps' if last else ''}"
    said = read_progress_file(folder)
    counted = f"{said['step']} of {said['steps']} steps" if said else "no step yet"
    if not working:
        return f"stopped, {counted}; the same command goes on"
    pace = said.get("steps_per_second")
    if not pace:
        return f"at work, {counted}"
    left = in_words((said["steps"] - said["step"]) / pace)
    return f"at work, {counted}, {pace_in_words(pace, 'step')}, {left} left, {noted(said)}"


def _rows(
    folder: Folder, facts: dict[str, Any], working: str, planned: dict[str, Any]
) -> list[str]:
    index = peek_index(folder).combine_chunks()
    done = len({*index.column("id").to_pylist()})
    failed = _failed(folder, index)
    under_way = facts.get("under_way") or {}
    total = max(under_way.get("total") or planned.get("total", 0), done)
    state = "at work" if working else "done" if facts.get("counts") else "stopped"
    parts = [state, f"{done} of {total} images", f"{failed.total()} failed"]
    since = time.time() - under_way.get("since", time.time())
    made = done - under_way.get("rows", done)
    if working and made > 0 and since > 0:
        pace = made / since
        parts += [pace_in_words(pace, "image"), f"{in_words((total - done) / pace)} left"]
    elif state == "stopped":
        parts.append(f"{total - done} left; the same command goes on")
    reasons = [f"{number} failed: {reason}" for reason, number in failed.most_common(MAX_REASONS)]
    if len(failed) > MAX_REASONS:
        reasons.append(f"... and {len(failed) - MAX_REASONS} reasons more")
    return [", ".join(parts), *reasons]


def _failed(folder: Folder, index: pa.Table) -> Counter[str]:
    """How many images failed for each reason."""
    lines = index.select(["status", "shard"]).to_pylist()
    shards = {line["shard"] for line in lines if line["status"] in FAILED}
    found: Counter[str] = Counter()
    for name in sorted(shards):
        with suppress(OSError):  # it is put together with others just now
            rows = read_shard(folder, name, ["status", "error"]).to_pylist()
            found.update(_reason(row) for row in rows if row["status"] in FAILED)
    return found


def _reason(row: dict[str, Any]) -> str:
    text = " ".join((row["error"] or row["status"]).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
