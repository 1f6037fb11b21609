"""What jobs start from: lists of ids, folders that others have filled, and their digests."""

import hashlib
import re
from typing import Any

from rayseg.store import (
    Folder,
    digests_of,
    find_stale,
    read_file,
    read_manifest,
    read_run,
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


def digest(address: str) -> str:
    """Of what a file holds; that of nothing where there is none."""
    return hashlib.sha256(read_file(address) or b"").hexdigest()


def finished_config(run_folder: Folder, folder: Folder, what: str, job: str) -> dict[str, Any]:
    """What made a folder of a run that another job goes on from.

    Raises:
        FileNotFoundError: it holds nothing.
        ValueError: its job has not ended, so that what follows would pass for complete, or its rows
            do not fit what they were made from any more.
    """
    if not folder.names(".parquet"):
        raise FileNotFoundError(f"{folder} holds no {what}; make them with {job}")
    facts = read_run(folder)
    if not facts.get("counts"):
        raise ValueError(
            f"{folder} is not complete; run {job} once more for the images that have no {what} yet "
            f"({len(stored_ids(folder))} have)"
        )
    stale = stale_rows(run_folder, folder)
    if stale:
        raise ValueError(
            f"{folder} has {len(stale)} {what} of images that have changed since, such as "
            f"{min(stale)}; run {job} once more"
        )
    return facts["config"]


def stale_rows(run_folder: Folder, folder: Folder) -> frozenset[str]:
    """Ids of the rows of a folder that do not fit what they, or its source's rows, were made from.

    Empty for folders of earlier versions, which do not say what they were made from.
    """
    source = read_run(folder).get("source")
    if not source:
        return frozenset()
    if "manifest" in source:
        known, before = read_manifest(run_folder / "manifest").digests(source["manifest"]), None
    else:
        before = run_folder / source["folder"]
        known = digests_of(before)
    stale = find_stale(folder, known)
    found = stale.changed | stale.gone
    return found | stale_rows(run_folder, before) if before else found


def others_there(run_folder: Folder, kind: str) -> str:
    """Which folders of a kind a run has, for the end of an error."""
    return f"; the run has {', '.join((run_folder / kind).folders()) or 'none'}"
