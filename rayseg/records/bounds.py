"""Bounds of the fields of a frozen dataclass, refused everywhere in the same words."""

from typing import Literal, get_args, get_origin, get_type_hints


def check_least(config: object, **least: float) -> None:
    """Refuses a field that is less than its number, or is no number."""
    for name, bound in least.items():
        if not getattr(config, name) >= bound:
            raise ValueError(f"{name} must be {bound} or more, got {getattr(config, name)}")


def check_choices(config: object) -> None:
    """Refuses a field that has none of the values of its Literal."""
    for name, kind in get_type_hints(type(config)).items():
        known, value = get_args(kind), getattr(config, name)
        if get_origin(kind) is Literal and value not in known:
            *others, last = known
            raise ValueError(f"{name} must be {', '.join(others)} or {last}, got {value!r}")


def check_folder_name(what: str, name: str) -> None:
    """Refuses what is no plain name of one file or folder: it would lie elsewhere, or be hidden.

    Raises:
        ValueError: the name is empty, has a slash, begins with a dot, or is not to be printed.
    """
    plain = name == name.strip() and name.isprintable() and not name.startswith(".")
    if not name or not plain or "/" in name or "\\" in name:
        raise ValueError(
            f"{what} must be a plain name without '/' that begins with no '.', got {name!r}"
        )
