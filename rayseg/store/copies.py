"""Single files and images by their address, and copies for libraries that open local files."""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.records import Sample
from rayseg.records.images import decode_image
from rayseg.store.folder import Folder


def read_file(address: str) -> bytes | None:
    """The bytes of one file, a local path or a URI; None where it cannot be read."""
    parent, _, name = address.rpartition("/")
    try:
        folder = Folder(parent or ("/" if address.startswith("/") else "."))
        return folder.read(name) if folder.holds_file(name) else None
    except (OSError, ValueError, pa.ArrowException):
        return None


def read_pixels(sample: Sample, min_side: int = 16) -> UInt8[ndarray, "h w 3"]:
    """The image of a sample as it is seen, RGB.

    Args:
        min_side: least height and width in pixels.

    Raises:
        ImageError: it cannot be used; see `decode_image`.
    """
    return decode_image(read_file(sample.path), sample.seen_side, min_side=min_side).pixels


def local_copy(address: str) -> str:
    """The path of a file for libraries that open only local ones; a remote file is fetched."""
    if "://" not in address:
        return address
    data = read_file(address)
    if data is None:
        raise FileNotFoundError(f"{address} does not exist")
    name = f"{hashlib.sha256(data).hexdigest()[:16]}-{address.rpartition('/')[2]}"
    folder = Folder(str(_own_scratch()))
    if not folder.exists(name) or folder.read(name) != data:
        folder.write(name, data)
    return folder.path(name)


def _own_scratch() -> Path:
    """A folder for copies in which nobody else can have laid a file."""
    path = Path(tempfile.gettempdir()) / f"rayseg-{os.getuid()}"
    with suppress(FileExistsError):
        path.mkdir(0o700)
    there = path.lstat()
    if stat.S_ISDIR(there.st_mode) and there.st_uid == os.getuid() and not there.st_mode & 0o077:
        return path
    return Path(tempfile.mkdtemp(prefix="rayseg-"))
