"""TOML files into frozen dataclasses: every key must be known, every value of its field's type.

The type is the field's annotation: bool, int, float, str, Path, a Literal, a tuple of these, one of
these or None, or a dataclass, which is a table. A whole number will do where a fraction is asked
for; nothing else is converted, so that ``epochs = 2.5`` or ``true`` is an error and not a guess.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

C = TypeVar("C")


def read(path: str) -> dict[str, Any]:
    """What the file says."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"configuration file {path} does not exist")
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from None


def update(config: C, given: Mapping[str, Any], source: str, key: str = "") -> C:
    """The dataclass with the given values in it, nested ones as nested mappings.

    Raises:
        ValueError: an unknown key, a value of another type, or one that the dataclass refuses; the
            text names the source, the key and what belongs there.
    """
    kinds = get_type_hints(type(config))
    known = [part.name for part in fields(config)]  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for name, value in given.items():
        path = f"{key}.{name}" if key else name
        if name not in known:
            raise ValueError(f"{source}: unknown key {path!r}{hint(name, known)}")
        current = getattr(config, name)
        if is_dataclass(current) and isinstance(value, Mapping):
            changed[name] = update(current, value, source, path)
            continue
        try:
            changed[name] = _fitted(kinds[name], value)
        except TypeError:
            wanted = _described(kinds[name]) + _example(kinds[name], current)
            raise ValueError(
                f"{source}: {path} must be {wanted}, got {brief(value)}"
                f"{_nearest(kinds[name], value)}"
            ) from None
    try:
        return replace(config, **changed)  # type: ignore[type-var]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{source}{f' [{key}]' if key else ''}: {error}") from None


def check_literals(config: object) -> None:
    """Refuses a dataclass in which a field has none of the values that its Literal lists.

    Raises:
        ValueError: the text names the field, the values that it may have and the nearest.
    """
    for name, kind in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(
                f"{name} must be {_described(kind)}, got {value!r}{_nearest(kind, value)}"
            )


def brief(value: object) -> str:
    """A wrong value as a message shows it: its first hundred characters."""
    shown = repr(value)
    return shown if len(shown) <= 100 else f"{shown[:100]} ..."


def hint(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` where something known is near, else nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _fitted(kind: Any, value: object) -> object:
    """The value as that type.

    Raises:
        TypeError: it is of another.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):  # None, which JSON has, apart there is one: Path | None
        (kind,) = set(inner) - {NoneType}
        return None if value is None else _fitted(kind, value)
    if origin is tuple and isinstance(value, list):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(map(_fitted, kinds, value))
    if origin is Literal and any(type(value) is type(one) and value == one for one in inner):
        return value
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError:  # more than 308 digits
            raise TypeError from None
    if type(value) is kind:  # not isinstance: true is no number
        return value
    raise TypeError


def _described(kind: Any) -> str:
    """The type in the words of a TOML file."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        return f"[{', '.join('...' if one is ... else _described(one) for one in inner)}]"
    if origin in (Union, UnionType):
        return " or ".join(_described(one) for one in inner if one is not NoneType)
    if is_dataclass(kind):
        return "a table"
    return "str" if kind is Path else kind.__name__


def _example(kind: Any, current: object) -> str:
    if get_origin(kind) is Literal or is_dataclass(current) or current in (None, "", ()):
        return ""
    shown = list(current) if isinstance(current, tuple) else current
    return f" such as {str(shown) if isinstance(shown, Path) else shown!r}"


def _nearest(kind: Any, value: object) -> str:
    known = [one for one in get_args(kind) if isinstance(one, str)]
    return hint(value, known) if isinstance(value, str) else ""
