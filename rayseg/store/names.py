"""Names that follow from ids."""

import hashlib
import json
import re
from collections.abc import Iterable

_UNSAFE = re.compile(r"[\\\x00-\x1f]")


def hash_ids(ids: Iterable[str]) -> str:
    """Of ids and their order, as 64 hexadecimal digits; other ids or another order give others."""
    return hashlib.sha256("\n".join(map(_line, ids)).encode()).hexdigest()


def _line(id_: str) -> str:
    # no other line has a backslash, so that an id with line breaks is not taken for several
    return json.dumps(id_) if _UNSAFE.search(id_) else id_
