"""What a file is: a digest of its bytes, with the size and time by which a change is suspected."""

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

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
    """Digest of files by their paths, sizes and times; none of them is opened."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(set(files)):
        try:
            facts = os.stat(path)
            line = [str(path), facts.st_size, facts.st_mtime_ns]
        except OSError:
            line = [str(path), MISSING]
        found.update(f"{line!r}\n".encode())
    return found.hexdigest()


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
