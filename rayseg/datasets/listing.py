"""What lies in a folder, by names alone: no file is opened."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from rayseg.datasets.finding import find_image


def walk(folder: Path) -> Iterator[Path]:
    """Yields a folder and all that lies in it, at any depth, in the order of names.

    Links to folders are followed, each folder is visited once, so that a loop of links ends.
    What is not there, or may not be listed, yields nothing but the folder itself.
    """
    yield from _walk(folder, set())


def list_folder(folder: Path) -> list[Path]:
    """What lies directly in a folder, in the order of names; nothing where it is not there."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _walk(folder: Path, visited: set[tuple[int, int]]) -> Iterator[Path]:
    yield folder
    try:
        place = folder.stat()
        if (place.st_dev, place.st_ino) in visited:
            return
        visited.add((place.st_dev, place.st_ino))
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError:
        return
    for name, is_folder in inside:
        if is_folder:
            yield from _walk(folder / name, visited)
        else:
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


class Stems:
    """The files of a folder by name without suffix, so that what is not there is not looked for.

    Args:
        folder: absolute; one that is not there holds nothing.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        names = (path.relative_to(folder).as_posix() for path in walk(folder) if path != folder)
        self._stems = {composed(name.rpartition(".")[0]) for name in names}

    def find(self, id_: str, suffix: str) -> Path | None:
        """The file of an id, which may be written in other letters; its suffix may be another."""
        if composed(id_) not in self._stems:
            return None
        return find_image(self.folder, f"{id_}{suffix}")


def composed(name: str) -> str:
    """The name with each letter as one character where Unicode has one; macOS takes several."""
    return unicodedata.normalize("NFC", name)
