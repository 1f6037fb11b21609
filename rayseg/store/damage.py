"""Files that are not as they were written: found when they are read, and named with a way out."""

import json
from collections.abc import Callable
from shlex import quote
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rayseg.store.folder import Folder

T = TypeVar("T")
ONE_REQUEST = 2 << 20
"""Bytes of a remote file that are had sooner at one go than part by part."""
UNREADABLE = (ValueError, OSError, pa.ArrowException)
"""What readers of damaged files raise."""


class DamagedError(ValueError):
    """A file of a run is not as it was written.

    Attributes:
        folder: that it lies in.
        name: of the file.
        path: of the file.
        reason: how that shows.
        why: the same and the way out.
    """

    def __init__(self, folder: Folder, name: str, reason: str):
        self.folder, self.name, self.reason = folder, name, reason
        self.path = folder.path(name)
        self.why = f"{reason}; {_way_out(folder)}"
        super().__init__(f"{self.path} cannot be read: {self.why}")

    def __reduce__(self) -> tuple[Any, ...]:
        return DamagedError, (self.folder, self.name, self.reason)


def _way_out(folder: Folder) -> str:
    """What mends a damaged file of a folder."""
    command = f"rayseg check --run {quote(run_of(folder))} --repair"
    return f"`{command}` sets what is damaged aside, and the command that made it makes it again"


def run_of(folder: Folder) -> str:
    """The run that a folder lies in: the nearest one above it that has a manifest, else itself."""
    place = folder.location
    for _ in range(3):
        if Folder(place).exists("manifest"):
            return place
        place = place.rpartition("/")[0]
    return folder.location


def read_parquet(folder: Folder, name: str, read: Callable[[pq.ParquetFile], T]) -> T:
    """What is read of a Parquet file, the checksums of its pages compared.

    Raises:
        FileNotFoundError: there is none of that name.
        OSError: the folder cannot be read.
        DamagedError: the file is no Parquet file, or not as it was written.
    """
    try:
        with folder.open(name) as file:
            far = folder.local_path is None and file.size() < ONE_REQUEST
            source = pa.BufferReader(file.read()) if far else file
            return read(pq.ParquetFile(source, page_checksum_verification=True))
    except FileNotFoundError:
        raise
    except UNREADABLE:
        data = folder.read(name)  # what fails here is the store's fault, not the file's
    try:
        return read(pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True))
    except UNREADABLE as error:
        raise DamagedError(folder, name, in_one_line(error, data)) from None


def in_one_line(error: Exception, data: bytes) -> str:
    """Why a file of these bytes is damaged."""
    if not data:
        return "the file is empty"
    if not any(data):
        return "the file holds zeros only"
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON ({error.msg} at character {error.pos})"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
