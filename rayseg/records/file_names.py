"""Names of files for ids: an id is any text, and names a file inside the folder that it is for."""

import hashlib
import re
from collections.abc import Container

_LONGEST_PART, _LONGEST = 180, 900  # bytes of UTF-8; systems have 255 for a part with its ending
_LIKE_OURS = re.compile(r"%(?=[0-9A-F]{2}|-|$)")


def file_stem(id_: str) -> str:
    """The path, without its ending, of the file that belongs to an id.

    It is relative and stays in its folder: ``/`` makes sub folders, and what could leave the folder
    or break a line is percent-encoded: ``.`` and ``..``, empty parts, backslashes, control
    characters, blanks at an end, and a ``%`` that would read as such a code. Different ids have
    different names; one that is too long for a file system ends in a digest.
    """
    parts = [_part(part) for part in id_.split("/")]
    stem = "/".join(parts)
    return stem if len(stem.encode()) <= _LONGEST else _shortened(parts[-1], id_)


def apart(stem: str, taken: Container[str]) -> str:
    """A name that no other one equals on a system without upper case.

    Args:
        stem: from `file_stem`.
        taken: names in lower case that are given away, of which the answer is none.
    """
    if stem.lower() not in taken:
        return stem
    return "".join(_encoded(letter) if letter.isupper() else letter for letter in stem)


def _part(part: str) -> str:
    if part in ("", ".", ".."):
        return _encoded(part) or "%"
    plain = _LIKE_OURS.sub("%25", part)
    first, last = len(plain) - len(plain.lstrip()), len(plain.rstrip())
    encoded = "".join(
        letter if first <= place < last and _is_safe(letter) else _encoded(letter)
        for place, letter in enumerate(plain)
    )
    return encoded if len(encoded.encode()) <= _LONGEST_PART else _shortened(encoded, part)


def _is_safe(letter: str) -> bool:
    return letter.isprintable() and letter != "\\"


def _encoded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _shortened(start: str, whole: str) -> str:
    """No other name has ``%-``, as a percent sign is encoded."""
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return f"{start.encode()[:120].decode(errors='ignore')}%-{digest}"
