"""What made a folder: its run.json."""

import hashlib
import json
import logging
import platform
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rayseg.networks import NETWORKS
from rayseg.store.damage import DamagedError, in_one_line
from rayseg.store.folder import Folder
from rayseg.store.lock import LOCK
from rayseg.store.shards import INDEX, shard_names

RUN = "run.json"
COPY = ".run-copy.json"
"""Of run.json, for one that a disk has damaged: rows of unknown settings would be lost."""

logger = logging.getLogger(__name__)


class StaleError(ValueError):
    """What a folder was made from has changed since."""


REMAKE = "--compute.remake-stale makes it anew, another --run keeps it"
"""The way out where a folder would be made anew at the cost of hours."""


def claim(folder: Folder, config: Mapping[str, Any], kind: str = "", remake: bool = False) -> None:
    """Binds a folder to the configuration that fills it, or refuses.

    A folder that nothing was written to yet is bound anew, so that a mistyped path can be mended.

    Args:
        remake: a folder that was made from what has changed since is emptied.

    Raises:
        StaleError: it was, and is not to be emptied.
        ValueError: it was made under other settings, or by something else.
    """
    folder.sweep()
    _mend(folder)
    files = [*folder.names(), *shard_names(folder)]
    products = [n for n in files if n[0] != "." and n not in ("run.json", INDEX)]
    if products and not read_run(folder):
        raise ValueError(
            f"{folder} holds {products[0]} but no run.json that says what made it; delete the "
            "folder, or choose an empty one"
        )
    if not products:
        again = _asked_again(folder)
        folder.write(RUN, b"{}")
        write_run(folder, {"config": config} | ({"kind": kind} if kind else {}) | again)
        return
    here = json.loads(json.dumps(config))
    differing = _differences(read_run(folder).get("config", {}), here)
    if differing and _copy_says(folder, here):
        return
    if differing and all(_of_sources(one) for one in differing):
        if remake:
            empty(folder)
            claim(folder, config, kind)
            return
        names = ", ".join(one.path if _is_digest(one.here) else f"{one}" for one in differing)
        raise StaleError(
            f"{folder} was made from other sources than there are now ({names}); {REMAKE}"
        )
    if differing:
        raise ValueError(
            f"{folder} was made under another configuration ({'; '.join(map(str, differing))}); "
            "delete the folder or choose another --run"
        )


def empty(folder: Folder, again: Collection[str] = ()) -> None:
    """Deletes all that a folder holds; what says who made it stays, for a kill in the midst.

    Args:
        again: ids of rows that are to be made again, whatever is asked for.
    """
    asked = sorted({*again, *read_run(folder).get("again", [])})
    write_run(folder, {"done": False, "counts": None, "again": asked})
    folder.clear(keep=(LOCK, RUN, COPY))


def _asked_again(folder: Folder) -> dict[str, Any]:
    with suppress(DamagedError):
        return {key: value for key, value in read_run(folder).items() if key == "again" and value}
    return {}


def _mend(folder: Folder) -> None:
    """Writes a run.json that is damaged or gone anew, where its copy is good."""
    try:
        read_facts(folder)
    except FileNotFoundError:
        if facts := _copy_of_lost(folder):
            write_run(folder, facts)
            logger.warning("%s was gone: its copy is taken", folder.path(RUN))
    except DamagedError as error:
        with suppress(DamagedError):  # which matters only where the folder holds something
            write_run(folder, read_copy(error))
            logger.warning("%s was damaged (%s): its copy is taken", error.path, error.reason)


def _copy_of_lost(folder: Folder) -> dict[str, Any]:
    """What the copy says of a folder without run.json; empty where there is none."""
    with suppress(FileNotFoundError, DamagedError):
        return read_facts(folder, COPY)
    return {}


def _copy_says(folder: Folder, config: object) -> bool:
    """Whether the copy of run.json has that configuration, though run.json has not; then it has."""
    with suppress(FileNotFoundError, DamagedError):
        found = read_facts(folder, COPY)
        if found.get("config") == config:
            logger.warning("%s is not what was written: its copy is taken", folder.path(RUN))
            write_run(folder, found)
            return True
    return False


def rebind(folder: Folder, config: Mapping[str, Any]) -> None:
    """Binds a folder whose sources have changed to what they are now; its files stay."""
    write_run(folder, {"config": config, "done": False})


@dataclass(frozen=True)
class _Difference:
    """Where two configurations differ."""

    path: str
    there: object
    here: object

    def __str__(self) -> str:
        return f"{self.path} is {self.there} there, {self.here} here"


def _of_sources(one: _Difference) -> bool:
    """Whether the user's settings are the same, and only what they were applied to has changed."""
    if {"trained_on", "files"} & {*one.path.split(".")}:
        return True
    return _is_digest(one.there) and _is_digest(one.here)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _differences(there: object, here: object, key: str = "") -> list[_Difference]:
    if isinstance(there, dict) and isinstance(here, dict):
        found: list[_Difference] = []
        for name in sorted(there.keys() | here.keys()):
            path = f"{key}.{name}" if key else name
            found += _differences(there.get(name), here.get(name), path)
        return found
    return [] if there == here else [_Difference(key, there, here)]


def kind_of(folder: Folder) -> str:
    """What a folder holds, such as ``masks``; empty where nothing says it.

    A key of KINDS. A folder that was claimed before its run.json named the kind is known by its
    configuration.
    """
    run = read_run(folder)
    config = run.get("config", {})
    if "kind" in run or not config:
        return run.get("kind", "")
    trained = [name for name in NETWORKS if "split" in config and name in config]
    return next(iter(trained), "") or next((k for key, k in _OLD.items() if key in config), "seeds")


_OLD = {
    "slice_images": "tuning",
    "data": "manifest",
    "seeds": "masks",
    "box_maps": "object_masks",
    "predict": "predictions",
    "instances": "instances",
    "boxes": "box_maps",
    "variants": "analyses",
    "toy": "bottleneck",
}
"""A key of the configuration that only that kind had; seeds had none, and trainings a split."""


def read_run(folder: Folder) -> dict[str, Any]:
    """The folder's run.json: configuration, versions and figures; empty where there is none.

    Raises:
        DamagedError: it is damaged, and so is its copy.
    """
    try:
        return read_facts(folder)
    except FileNotFoundError:
        return _copy_of_lost(folder)
    except DamagedError as error:
        return read_copy(error)


def read_copy(error: DamagedError) -> dict[str, Any]:
    """What the copy of a damaged run.json says.

    Raises:
        DamagedError: the one that was given; the copy is damaged too, or there is none.
    """
    with suppress(FileNotFoundError, DamagedError):
        return read_facts(error.folder, COPY)
    raise error


def read_facts(folder: Folder, name: str = RUN) -> dict[str, Any]:
    """What one of the two files says.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it does not hold what was written.
    """
    data = folder.read(name)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedError(folder, name, in_one_line(error, data)) from None
    if not isinstance(found, dict) or not _is_shaped(found):
        raise DamagedError(folder, name, f"it must hold a configuration, got {data[:40]!r}")
    if found.pop("digest", None) not in (None, _digest(found)):  # earlier versions have none
        raise DamagedError(folder, name, "what it says is not what was written")
    return found


def _is_shaped(facts: Mapping[str, Any]) -> bool:
    """Whether what jobs go on from is what it must be, in a file of an earlier version too."""
    again, source = facts.get("again", []), facts.get("source") or {}
    return (
        all(isinstance(one, dict) for one in (facts.get("config", {}), source))
        and all(isinstance(facts.get(name) or {}, dict) for name in ("counts", "tally"))
        and isinstance(facts.get("kind", ""), str)
        and _is_inside(source.get("folder", ""))
        and isinstance(again, list)
        and all(isinstance(one, str) for one in again)
    )


def _is_inside(folder: object) -> bool:
    """Whether it names a folder of the run."""
    return isinstance(folder, str) and folder[:1] != "/" and ".." not in folder.split("/")


def _digest(facts: Mapping[str, Any]) -> str:
    """Of all that a run.json says, as it is read."""
    said = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(said, digest_size=16).hexdigest()


def write_run(folder: Folder, facts: Mapping[str, Any]) -> None:
    """Adds facts to the folder's run.json, with the versions of what made it."""
    merged = read_run(folder) | dict(facts) | {"versions": _versions()}
    said = json.loads(json.dumps(merged))
    data = json.dumps(said | {"digest": _digest(said)}, indent=2).encode()
    folder.write(COPY, data)
    folder.write(RUN, data)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("rayseg", "torch", "torchvision", "ray", "pyarrow", "numpy", "pydensecrf2"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
