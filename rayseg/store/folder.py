"""Folders and single files, local or remote; a file appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EACCES, EDQUOT, EINVAL, ENOSPC, ENOTSUP, EPERM, EROFS
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from rayseg.store.processes import process_space, runs

OLD_SECONDS = 3600
"""After which nobody writes on at a draft of another machine."""
OBJECT_STORES = ("s3", "gcs", "abfs")
"""By pyarrow's names; there an object appears whole, and has no folder to be made."""
_DRAFT = re.compile(r"\..+\.(?:(?P<space>\w{8})-(?P<pid>\d+)-)?[0-9a-f]{8,32}\.tmp")
_WAYS_OUT = {
    **dict.fromkeys((ENOSPC, EDQUOT), "free some and run the same command, which goes on"),
    **dict.fromkeys((EACCES, EPERM, EROFS), "make it {able} or choose another place"),
}


@dataclass(frozen=True)
class Folder:
    """A folder of the run, local or remote.

    Attributes:
        location: a local path or a URI; a path is made absolute, since workers start elsewhere.
    """

    location: str

    def __post_init__(self) -> None:
        local = self.location.removeprefix("file://")
        if "://" not in local:
            object.__setattr__(self, "location", str(Path(local).absolute()))

    @cached_property
    def _where(self) -> tuple[fs.FileSystem, str]:
        if "://" in self.location:
            return _open_store(self.location)
        return fs.LocalFileSystem(), self.location

    def __truediv__(self, name: str) -> Folder:
        return Folder(self.path(name))

    def __str__(self) -> str:
        return self.location

    def exists(self, name: str = "") -> bool:
        """Whether the folder, or the file of that name in it, is there."""
        return self._info(name).type != fs.FileType.NotFound

    @property
    def local_path(self) -> Path | None:
        """The folder's path on this machine; None for a remote one."""
        return None if "://" in self.location else Path(self.location)

    def holds_file(self, name: str) -> bool:
        """Whether there is a file of that name: no folder, pipe or device, which may never end."""
        return bool(self._info(name).is_file)

    def size(self, name: str) -> int:
        """Bytes of a file; 0 where there is none."""
        return self._info(name).size or 0

    def sizes(self, suffix: str = "") -> dict[str, int]:
        """Bytes of the files directly in the folder that end so, by name, sorted by it."""
        files = (item for item in self._list() if item.is_file)
        return {item.base_name: item.size for item in files if item.base_name.endswith(suffix)}

    def written(self, name: str) -> float:
        """When a file was written, in seconds of the epoch; now where there is none."""
        found = self._info(name).mtime
        return found.timestamp() if found else time.time()

    def names(self, suffix: str = "") -> list[str]:
        """Names of the files directly in the folder that end so, sorted; none if it is missing."""
        return list(self.sizes(suffix))

    def folders(self) -> list[str]:
        """Names of the folders directly in the folder, sorted; none if it is missing."""
        return [item.base_name for item in self._list() if item.type == fs.FileType.Directory]

    def path(self, name: str) -> str:
        """The absolute path or URI of a file in the folder."""
        return f"{self.location.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: there is none of that name.
            OSError: it cannot be read.
        """
        with self.open(name) as file, self._named("read", name):
            return file.read()

    def open(self, name: str) -> pa.NativeFile:
        """The file, opened for reading any part of it.

        Raises:
            FileNotFoundError: there is none of that name.
            OSError: it cannot be read.
        """
        filesystem, path = self._where
        with self._named("read", name):
            return filesystem.open_input_file(f"{path}/{name}")

    def write(self, name: str, data: bytes, durable: bool = True) -> None:
        """Writes the file so that a reader sees all of it or nothing.

        Args:
            durable: it is on the disk when this returns, whatever becomes of the machine.

        Raises:
            OSError: it cannot be written; what was there before stays.
        """
        whole = memoryview(data)  # what is no bytes is refused before anything is touched
        with self._named("write", name):
            if self.local_path:
                _write_local(self.local_path, name, whole, durable)
            else:
                self._write_remote(name, whole)

    def _write_remote(self, name: str, data: memoryview) -> None:
        filesystem, path = self._where
        if filesystem.type_name in OBJECT_STORES:
            with filesystem.open_output_stream(f"{path}/{name}") as file:
                file.write(data)
            return
        place, _, last = f"{path}/{name}".rpartition("/")
        draft = f"{place}/{draft_name(last)}"
        filesystem.create_dir(place, recursive=True)
        with filesystem.open_output_stream(draft) as file:
            file.write(data)
        filesystem.move(draft, f"{path}/{name}")

    @contextmanager
    def _named(self, what: str, name: str = "") -> Iterator[None]:
        """Errors of the file system name the file, or the folder, and a way out."""
        place = self.path(name) if name else self.location
        try:
            yield
        except OSError as error:
            if isinstance(error, FileNotFoundError) and what != "write":
                raise FileNotFoundError(f"{place} does not exist") from None
            reason = error.strerror or " ".join(str(error).split())
            able = "readable" if what in ("read", "list") else "writable"
            way_out = _WAYS_OUT.get(error.errno or 0, "").format(able=able)
            more = f"; {way_out}" if way_out else ""
            raise OSError(f"cannot {what} {place}: {reason}{more}") from error

    def delete(self, name: str) -> None:
        """Deletes the file.

        Raises:
            FileNotFoundError: there is none of that name.
            OSError: it cannot be deleted.
        """
        filesystem, path = self._where
        with self._named("delete", name):
            filesystem.delete_file(f"{path}/{name}")

    def set_aside(self, name: str) -> str:
        """Renames a damaged file so that nobody takes it for a good one, and returns the name.

        Raises:
            OSError: it cannot be renamed.
        """
        filesystem, path = self._where
        # whatever reads files of one ending does not read it
        aside = f".damaged-{name.rpartition('/')[2]}.{uuid4().hex[:8]}"
        with self._named("rename", name):
            filesystem.move(f"{path}/{name}", f"{path}/{aside}")
        return aside

    def drafts(self) -> list[str]:
        """Names of the drafts in a local folder whose writers are gone."""
        return [item.base_name for item in self._list() if item.is_file and _is_left(item)]

    def sweep(self) -> None:
        """Deletes the drafts whose writers are gone; a file that others deleted does not matter."""
        for name in self.drafts():
            with suppress(OSError):
                self.delete(name)

    def remove(self) -> None:
        """Deletes the folder with all that is in it, where there is one."""
        filesystem, path = self._where
        if self.exists():
            with self._named("delete"):
                filesystem.delete_dir(path)

    def clear(self, keep: Collection[str]) -> None:
        """Deletes what is in the folder, but for the files of these names."""
        for name in self.folders():
            (self / name).remove()
        for name in self.names():
            if name not in keep:
                self.delete(name)

    def _list(self) -> list[fs.FileInfo]:
        filesystem, path = self._where
        with self._named("list"):
            found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(found, key=lambda item: item.base_name)

    def _info(self, name: str) -> fs.FileInfo:
        filesystem, path = self._where
        with self._named("read", name):
            return filesystem.get_file_info(f"{path}/{name}" if name else path)


def _open_store(uri: str) -> tuple[fs.FileSystem, str]:
    if uri.startswith("s3://") and "?" not in uri:
        with suppress(pa.ArrowInvalid):  # an older pyarrow does not know it
            return fs.FileSystem.from_uri(f"{uri}?allow_delayed_open=true")  # one request a write
    return fs.FileSystem.from_uri(uri)


def _write_local(folder: Path, name: str, data: memoryview, durable: bool) -> None:
    draft = folder / draft_name(name)
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)
    try:
        with open(draft, "xb", buffering=0) as file:
            while data:
                data = data[file.write(data) :]
            if durable:
                _sync(file.fileno())
        os.replace(draft, folder / name)
    except BaseException:  # an interrupt as well leaves no draft
        with suppress(OSError):
            draft.unlink()
        raise
    if durable:
        _sync_folder(folder)


def draft_name(name: str) -> str:
    """A draft's name of this writer's own, which says who that is."""
    return f".{name}.{_this_space()}-{os.getpid()}-{uuid4().hex[:8]}.tmp"


def _this_space() -> str:
    return hashlib.sha256(process_space().encode()).hexdigest()[:8]


def _is_left(item: fs.FileInfo) -> bool:
    """Whether it is a draft that nobody writes on at: its process is gone, or it is old."""
    found = _DRAFT.fullmatch(item.base_name)
    here = found and process_space() and found["space"] == _this_space()
    if found and here and not runs(int(found["pid"])):
        return True
    return (
        bool(found)
        and item.mtime is not None
        and time.time() - item.mtime.timestamp() > OLD_SECONDS
    )


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (EINVAL, ENOTSUP):  # a file system that has no such call
            raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        _sync(handle)
    finally:
        os.close(handle)
