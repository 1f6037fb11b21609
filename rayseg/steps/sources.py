"""What jobs start from: lists of ids, folders that others have filled, and their digests."""

import hashlib
import re
from typing import Any

from rayseg.store import (
    Folder,
    Manifest,
    Stale,
    changed_source,
    digests_of,
    find_stale,
    read_file,
    read_manifest,
    read_run,
    shard_names,
    stored_ids,
)


def read_ids(path: str) -> list[str] | None:
    """Image ids of a text file, one a line, blanks in it too; None where no file is named.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not UTF-8.
    """
    if not path:
        return None
    data = read_file(path)
    if data is None:
        raise FileNotFoundError(f"list of image ids {path} does not exist")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"list of image ids {path} is not UTF-8: {error.reason}") from None
    # not splitlines, which also cuts at characters that an id may hold
    lines = (line.strip(" \t") for line in re.split(r"\r\n|\n|\r", text))
    return [line for line in lines if line]


def asked_for(manifest: Manifest, split: str, path: str) -> Manifest:
    """The images of a split, and of those a text file of ids where one is named.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no image is left, or an id is of none; the text names the file.
    """
    ids = read_ids(path)
    try:
        return manifest.select(split, ids)
    except ValueError as error:
        raise ValueError(f"{path}: {error}" if path else str(error)) from None


def digest(address: str) -> str:
    """Of what a file holds; that of nothing where there is none."""
    return hashlib.sha256(read_file(address) or b"").hexdigest()


def finished_config(run_folder: Folder, folder: Folder, what: str, job: str) -> dict[str, Any]:
    """What made a folder of a run that another job goes on from.

    Args:
        job: that fills the folder, with flags that name it.

    Raises:
        FileNotFoundError: it holds nothing.
        ValueError: its job has not ended, so that what follows would pass for complete, or its rows
            do not fit what they were made from any more.
    """
    refuse_changed(run_folder / "manifest")
    name, *flags = job.split(" ", 1)
    command = f"`{' '.join(['rayseg', name, '--run', str(run_folder), *flags])}`"
    if not shard_names(folder):
        raise FileNotFoundError(f"{folder} holds no {what}; make them with {command}")
    facts = read_run(folder)
    if not facts.get("counts"):
        raise ValueError(
            f"{folder} is not complete; run {command} once more for the images that have no {what} "
            f"yet ({len(stored_ids(folder))} have)"
        )
    why = staleness(run_folder, folder)
    if why:
        raise ValueError(f"{folder} {why}; run {command} once more")
    return facts["config"]


def staleness(run_folder: Folder, folder: Folder) -> str:
    """Why a folder of a run does not fit what it was made from any more; empty where it does.

    Folders of earlier versions do not say what they were made from, and a folder that was deleted
    since, as large ones are, cannot be compared.
    """
    facts = read_run(folder)
    source = facts.get("source") or {}
    weights = source.get("weights", "")
    if read_file(weights) is not None and digest(weights) != facts["config"].get("weights"):
        return f"was made with other weights than {weights} holds now"
    if "manifest" in source:
        return _rows_in_words(
            find_stale(folder, read_manifest(run_folder / "manifest").digests(source["manifest"]))
        )
    if "folder" in source and shard_names(before := run_folder / source["folder"]):
        found = _rows_in_words(find_stale(folder, digests_of(before)))
        earlier = staleness(run_folder, before)
        return found or (f"was made from {source['folder']}, which {earlier}" if earlier else "")
    return ""


def _rows_in_words(stale: Stale) -> str:
    ids = stale.changed | stale.gone
    if not ids:
        return ""
    return f"has {len(ids)} rows of images that have changed since, such as {min(ids)}"


def refuse_changed(manifest: Folder) -> None:
    """Refuses a manifest that was read from annotations which have changed since.

    Images are not looked at; who reads one compares its bytes.

    Raises:
        ValueError: a file has changed.
    """
    changed = changed_source(manifest)
    if changed:
        raise ValueError(
            f"{changed} has changed since `rayseg prepare` read it; run `rayseg prepare --run "
            f"{manifest.location.rpartition('/')[0]}` again, with the same flags"
        )


def others_there(run_folder: Folder, kind: str) -> str:
    """Which folders of a kind a run has, for the end of an error."""
    return f"; {run_folder / kind} has: {', '.join((run_folder / kind).folders()) or 'none'}"
