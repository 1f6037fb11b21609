"""Folders and single files, local or remote; a file appears whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs


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
            return fs.FileSystem.from_uri(self.location)
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

    def sizes(self, suffix: str = "") -> dict[str, int]:
        """Bytes of the files directly in the folder that end so, by name, sorted by it."""
        files = (item for item in self._list() if item.is_file)
        return {item.base_name: item.size for item in files if item.base_name.endswith(suffix)}

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
        """The whole file."""
        with self.open(name) as file:
            return file.read()

    def open(self, name: str) -> pa.NativeFile:
        """The file, opened for reading any part of it.

        Raises:
            FileNotFoundError: there is none of that name.
        """
        if not self.exists(name):
            raise FileNotFoundError(f"{self.path(name)} does not exist")
        filesystem, path = self._where
        return filesystem.open_input_file(f"{path}/{name}")

    def write(self, name: str, data: bytes) -> None:
        """Writes the file so that a reader sees all of it or nothing."""
        filesystem, path = self._where
        draft = f"{path}/.{name}.{uuid4().hex[:8]}.tmp"  # of this writer's own
        try:
            filesystem.create_dir(path, recursive=True)
            with filesystem.open_output_stream(draft) as file:
                file.write(data)
            filesystem.move(draft, f"{path}/{name}")
        except OSError as error:
            raise OSError(f"cannot write {self.path(name)}: {error}") from error

    def delete(self, name: str) -> None:
        """Deletes the file."""
        filesystem, path = self._where
        filesystem.delete_file(f"{path}/{name}")

    def remove(self) -> None:
        """Deletes the folder with all that is in it, where there is one."""
        filesystem, path = self._where
        if self.exists():
            filesystem.delete_dir(path)

    def clear(self, keep: str) -> None:
        """Deletes what is in the folder, but for the file of that name."""
        for name in self.names():
            if name != keep:
                self.delete(name)
        for name in self.folders():
            (self / name).remove()

    def _list(self) -> list[fs.FileInfo]:
        filesystem, path = self._where
        found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
        return sorted(found, key=lambda item: item.base_name)

    def _info(self, name: str) -> fs.FileInfo:
        filesystem, path = self._where
        return filesystem.get_file_info(f"{path}/{name}" if name else path)


def read_file(address: str) -> bytes | None:
    """The bytes of one file, a local path or a URI; None where it cannot be read."""
    parent, _, name = address.rpartition("/")
    try:
        return Folder(parent or ("/" if address.startswith("/") else ".")).read(name)
    except (OSError, pa.ArrowException):
        return None


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
