"""What a file is: a digest of its bytes, with the size and time by which a change is suspected."""

import hashlib
import os
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from rayseg.store.folder import Folder
from rayseg.store.shards import read_shard, to_parquet

SOURCES = "sources.pq"
"""File beside the manifest; no ``.parquet``, which would be the manifest's own."""
_SOURCES = pa.schema([("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64())])
NOWHERE = (-1, -1)
MISSING = "missing"
"""Digest of a file that is not there, cannot be read, or is no regular file."""


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file.

    Attributes:
        digest: of its bytes; of a remote file of its size and time; MISSING where there is none.
        size: in bytes; -1 where there is none.
        mtime_ns: when it was last written, in nanoseconds of the epoch; -1 where there is none.
    """

    digest: str = MISSING
    size: int = -1
    mtime_ns: int = -1


def file_facts(address: str, known: FileFacts | None = None) -> FileFacts:
    """What a file is now.

    Args:
        address: a local path or a URI.
        known: what it was; its digest is believed where size and time are still the same.
    """
    try:
        return _remote(address) if "://" in address else _local(address, known)
    except OSError:
        return FileFacts()


def content_digest(data: bytes) -> str:
    """Digest of a file's bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def listing_digest(files: Iterable[Path]) -> str:
    """Digest of files and folders by their paths, sizes and times; none of them is opened."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted({os.fspath(file) for file in files}):
        found.update(f"{[path, *_size_and_time(path)]!r}\n".encode())
    return found.hexdigest()


def write_sources(folder: Folder, files: Iterable[Path], images: Collection[str]) -> None:
    """Notes the files, but for images, that a manifest is read from, with sizes and times."""
    absolute = {os.path.abspath(file) for file in files} - set(images)
    paths = sorted(path for path in absolute if os.path.isfile(path))
    pairs = [_size_and_time(path) for path in paths]
    rows = [(path, *pair) for path, pair in zip(paths, pairs, strict=True)]
    named = [dict(zip(_SOURCES.names, row, strict=True)) for row in rows]
    table = pa.Table.from_pylist(named, _SOURCES)
    folder.write(SOURCES, to_parquet(table))


def changed_source(folder: Folder) -> str:
    """The first file that a manifest was read from and that is another now; empty for none.

    A file that is not there cannot be compared: a job may run where the annotations are not.

    Raises:
        DamagedError: what was noted of them is not as it was written.
    """
    if not folder.exists(SOURCES):
        return ""
    for row in read_shard(folder, SOURCES, _SOURCES.names).to_pylist():
        now = _size_and_time(row["path"])
        if now != NOWHERE and now != (row["size"], row["mtime_ns"]):
            return str(row["path"])
    return ""


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        facts = os.stat(path)
    except OSError:
        return NOWHERE
    return facts.st_size, facts.st_mtime_ns


def _local(path: str, known: FileFacts | None) -> FileFacts:
    there = os.stat(path)
    if not stat.S_ISREG(there.st_mode):  # reading a pipe would wait without end
        return FileFacts()
    if known and (known.size, known.mtime_ns) == (there.st_size, there.st_mtime_ns):
        return known
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return FileFacts(found.hexdigest(), there.st_size, there.st_mtime_ns)


def _remote(address: str) -> FileFacts:
    filesystem, path = fs.FileSystem.from_uri(address)
    info = filesystem.get_file_info(path)
    if not info.is_file:
        return FileFacts()
    return FileFacts(f"{info.size}-{info.mtime_ns}", info.size, info.mtime_ns)
