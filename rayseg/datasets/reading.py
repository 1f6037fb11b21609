"""Text files of strangers: how they are encoded, and characters that nobody sees."""

import codecs
import os
import re
import unicodedata
from pathlib import Path

from rayseg.datasets.base import DatasetError, DatasetNotFoundError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_KINDS = {
    b"PK\x03\x04": "an Excel or zip file",
    b"\xd0\xcf\x11\xe0": "an Excel file of the old kind",
    b"\x1f\x8b": "a gzip file",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
}
_JOINERS = "\u200c\u200d"  # letters of Persian, Hindi and others, and emoji, need them inside


def bom_encoding(data: bytes) -> str | None:
    """The encoding that a byte order mark at the start says; None where there is none."""
    return next((name for mark, name in _BOMS if data.startswith(mark)), None)


def read_text(path: Path) -> str:
    """Returns a file of text in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.

    Raises:
        DatasetError: it is not there, no file, no text, or in another encoding.
    """
    data = read_bytes(path)
    kind = next((kind for start, kind in _OTHER_KINDS.items() if data.startswith(start)), "")
    encoding = bom_encoding(data)
    if kind or (b"\0" in data and encoding is None):
        kind = kind or "a binary file"
        raise DatasetError(f"{path} is {kind} and no text: save it as text in UTF-8")
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DatasetError(
            f"{path}:{line}: not {(encoding or 'UTF-8').upper()} ({error.reason}, byte "
            f"0x{data[error.start]:02x}): save it as UTF-8"
        ) from None


def read_bytes(path: Path) -> bytes:
    """Returns what a file holds; a pipe, which would wait for ever, is refused.

    Raises:
        DatasetError: it is not there, no file, or may not be read.
    """
    # os.path's tests, unlike pathlib's, take names that are too long as missing
    if not os.path.exists(path):
        raise DatasetNotFoundError(f"{path} not found: check its name")
    if not os.path.isfile(path):
        raise DatasetError(f"{path} is a folder, pipe or device: expected a file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from None


def lines_of(text: str) -> list[str]:
    """The lines of a text; unlike `str.splitlines`, only at line breaks that editors write."""
    return re.split(r"\r\n|\n|\r", text)


def cleaned(text: str) -> str:
    """The text without invisible characters, blanks of all kinds as single spaces, none at an end.

    Letters are composed, so that equal words are equal strings.
    """
    kept = "".join(_seen(text, place) for place in range(len(text)))
    return unicodedata.normalize("NFC", " ".join(kept.split()))


def has_invisible(text: str) -> bool:
    """Whether `cleaned` changes more than blanks and line breaks that everybody sees."""
    return any(
        _seen(text, place) != char for place, char in enumerate(text) if char not in " \t\r\n"
    )


def _seen(text: str, place: int) -> str:
    """What a reader sees of one character: itself, a space, or nothing."""
    char = text[place]
    kind = unicodedata.category(char)
    if kind == "Cf":
        around = text[max(place - 1, 0) : place] + text[place + 1 : place + 2]
        return char if char in _JOINERS and len(around) == 2 and not around.isascii() else ""
    return " " if kind in {"Zs", "Zl", "Zp", "Cc"} else char
