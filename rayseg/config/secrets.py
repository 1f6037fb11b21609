"""Keys and passwords in addresses: no configuration holds them, no message repeats them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path

_USER = re.compile(r"(:/{1,2})[^\s/@:'\"]*:(?!\d+(?:[/?#]|$))[^\s@'\"]+@")
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:secret|passw|pwd|token|signature|credential|access[_-]?key|api[_-]?key)"
    r"[\w.-]*|sig|key)=)[^\s&#'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """The text with *** for the password or key of each address in it.

    Of ``s3://key:secret@bucket`` the key, too, since it is half of what opens the bucket.
    """
    text = _USER.sub(r"\1***:***@", text)
    return _QUERY.sub(r"\1***", text)


def refuse_secrets(config: object) -> None:
    """Refuses a configuration that holds a secret: it is written to run.toml and to messages.

    Raises:
        ValueError: the text has the field's name, and the address without the secret.
    """
    for name, value in _texts(config, ""):
        if ":/" in value and masked(value) != value:
            raise ValueError(
                f"{name} must hold no password or key, got {masked(value)!r}: give those by the "
                "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
            )


def _texts(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Every text of a configuration, with the field that it lies in."""
    if isinstance(value, str | Path):
        yield name, str(value)
    elif is_dataclass(value):
        for part in fields(value):
            inner = f"{name}.{part.name}" if name else part.name
            yield from _texts(getattr(value, part.name), inner)
    elif isinstance(value, Mapping):
        yield from _texts(tuple(value.values()), name)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _texts(one, name)
