"""Which file of a folder a foreign name means."""

import os
import posixpath
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff",
    ".heic", ".heif",
)  # fmt: skip


def leaves(name: str) -> bool:
    """Whether a name leads out of the folder that it is relative to; nothing is looked up."""
    plain = posixpath.normpath(name.replace("\\", "/"))
    return plain.startswith("/") or plain.split("/")[0] == ".."


def find_image(folder: Path, name: str) -> Path | None:
    """Finds the file that a name means; None where there is none or the name leaves the folder.

    It is tried as it is, then with slashes for backslashes and without blanks at its ends, without
    what leads to the folder in front, with percent signs of an address read, with the suffix in
    other letters, with accents written otherwise, and at last with another suffix of images. What
    is there under the very name is found even if it is no file, so that reading it says why; a
    folder only where nothing else is.
    """
    if not name:
        return None
    exact = folder / name
    # os.path's tests, unlike pathlib's, take names that are too long or hold a NUL as missing
    there = not leaves(name) and os.path.exists(exact)
    if there and not os.path.isdir(exact):
        return exact
    others = (folder / one for one in _meant(folder.name, name) if not leaves(one))
    found = next((path for path in others if os.path.isfile(path)), None)
    return found or (exact if there else None)


def _meant(folder: str, name: str) -> Iterator[str]:
    """Other writings of a name, the likely ones first."""
    parts = posixpath.normpath(name.strip().replace("\\", "/")).split("/")
    starts = [0, *(place + 1 for place, part in enumerate(parts) if part == folder)]
    names = ["/".join(parts[start:]) for start in starts]
    for change in (_same, _addresses, _suffix_cases, _accents, _suffixes):
        names = list(dict.fromkeys(other for one in names for other in change(one)))
        yield from (one for one in names if one)


def _same(name: str) -> Iterable[str]:
    return (name,)


def _addresses(name: str) -> Iterable[str]:
    return name, unquote(name)


def _suffix_cases(name: str) -> Iterable[str]:
    stem, suffix = posixpath.splitext(name)
    return name, stem + suffix.lower(), stem + suffix.upper()


def _accents(name: str) -> Iterable[str]:
    return name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)


def _suffixes(name: str) -> Iterable[str]:
    stem, suffix = posixpath.splitext(name)
    known = PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
    for one in IMAGE_SUFFIXES:
        yield from ((stem if known else stem + suffix) + end for end in (one, one.upper()))
