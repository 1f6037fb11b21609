"""COCO's ids: numbers, and whatever else stands where a number should."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from rayseg.datasets.base import DatasetError, check_classes

Key = int | str
_NUMBER = re.compile(r"[+-]?[0-9]{1,400}(\.0*)?")


def id_key(value: object) -> Key | None:
    """What two ids that mean the same have in common; None for what is no id.

    1, 1.0, "1" and "001" are one number; whole numbers of any length are exact.
    """
    if isinstance(value, str):
        return int(value.partition(".")[0]) if _NUMBER.fullmatch(value) else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not value.is_integer():
        return str(value) if math.isfinite(value) else None
    return int(value)


def image_id(value: object) -> str:
    """Returns the id as COCO's files are named: 12 digits; an id that is no number stays."""
    text = str(value)
    return text.zfill(12) if text.isdigit() else text


def as_json(value: object) -> str:
    """An id as it stands in its file: type, sign and zeros."""
    return json.dumps(value, ensure_ascii=False)


def is_text(text: str) -> bool:
    """Whether UTF-8 can say it: a JSON can hold halves of letters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def whole_number(value: object) -> int | None:
    """The number that a value means, such as a height; None where it is none."""
    key = id_key(value)
    return key if isinstance(key, int) else None


def categories(content: dict[str, Any], path: Path) -> list[tuple[Key, str]]:
    """Ids and names of the categories of a JSON: numbers ascending, then words.

    A number that is written as a word stays a word, as whoever compares it expects.

    Raises:
        DatasetError: one has no id or no name, or an id or a name comes twice.
    """
    pairs: list[tuple[Key, Key, str]] = []
    for place, entry in enumerate(content["categories"]):
        require_keys(entry, ("id", "name"), f"{path}: category {place + 1} of the list")
        key, own = id_key(entry["id"]), entry["id"]
        if key is None:
            raise DatasetError(f"{path}: category id {own!r} must be a number or a word: renumber")
        if isinstance(entry["name"], list | dict) or not is_text(f"{own}{entry['name']}"):
            raise DatasetError(f"{path}: category {own!r} must be text of whole letters: rename it")
        pairs.append((key, own if isinstance(own, str) else key, str(entry["name"])))
    counts = Counter(key for key, _, _ in pairs)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: duplicate category id {twice[0]}: renumber")
    pairs.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]))
    check_classes(tuple(name for _, _, name in pairs), f"categories of {path}")
    return [(own, name) for _, own, name in pairs]


def require_keys(entry: object, keys: tuple[str, ...], what: str) -> None:
    """A key whose value is null counts as lacking.

    Raises:
        DatasetError: one is lacking.
    """
    lacking = [key for key in keys if not isinstance(entry, dict) or entry.get(key) is None]
    if lacking:
        raise DatasetError(f"{what} must be an object with the keys {keys}, lacks {lacking}")
