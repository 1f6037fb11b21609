"""All flags of all jobs in one file, `flags.json`, so that help and typos load no torch.

The configurations say what the file says; ``make flags`` writes it anew, and a test compares them.
"""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

FILE = Path(__file__).with_name("flags.json")
SWITCH, WHOLE, NUMBER = "", "INT", "FLOAT"
"""What follows a flag: nothing, a whole number, any number."""


@cache
def read_flags() -> Any:
    """What the file says: ``jobs``, their groups of flags by name, and ``groups``."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def groups_of(job: str) -> dict[str, Any]:
    """The groups of a job's flags by their prefix; the job's own have an empty one."""
    found = read_flags()
    return {prefix: found["groups"][name] for prefix, name in found["jobs"][job].items()}


@cache
def flags_of(job: str) -> dict[str, Any]:
    """The flags of a job, such as ``--advcam.num-steps``: kind, choices, default and help."""
    return {
        f"--{prefix}.{name}" if prefix else f"--{name}": flag
        for prefix, group in groups_of(job).items()
        for name, flag in group["flags"].items()
    }


def describe() -> dict[str, Any]:
    """What the file must say, by the configurations themselves; loads torch."""
    from rayseg.config.job_list import JOBS  # noqa: PLC0415  # they load torch

    choices, groups, jobs = _choices(), dict[str, Any](), dict[str, dict[str, str]]()
    for job, entry in JOBS.items():
        jobs[job] = {}
        for prefix, group in _groups(entry.config(), choices):
            name = prefix or f"of {job}"
            if groups.setdefault(name, group) != group:
                name = f"{prefix} of {job}"
                groups[name] = group
            jobs[job][prefix] = name
    return {"jobs": jobs, "groups": groups}


def as_text(described: Mapping[str, Any]) -> str:
    """What the file says, as it is written: a line for each flag."""
    jobs = [f"{json.dumps(job)}: {json.dumps(names)}" for job, names in described["jobs"].items()]
    groups = []
    for name, group in described["groups"].items():
        flags = [f"{json.dumps(flag)}: {json.dumps(is_)}" for flag, is_ in group["flags"].items()]
        about = f'"about": {json.dumps(group["about"])}'
        groups.append(f'{json.dumps(name)}: {{{about}, "flags": {{\n{_joined(flags)}}}}}')
    return f'{{"jobs": {{\n{_joined(jobs)}}},\n"groups": {{\n{_joined(groups)}}}}}\n'


def _joined(lines: list[str]) -> str:
    return ",\n".join(lines)


def _choices() -> dict[str, list[str]]:
    """The names that a field of any job takes, where its type does not list them."""
    from rayseg.attribution import BOX_METHODS  # noqa: PLC0415
    from rayseg.config.seeds import MAKERS  # noqa: PLC0415  # loads torch
    from rayseg.datasets import DATASETS  # noqa: PLC0415
    from rayseg.export import EXPORTERS  # noqa: PLC0415
    from rayseg.refine import BOX_REFINERS, REFINERS  # noqa: PLC0415
    from rayseg.stages import ANALYSES  # noqa: PLC0415

    lists: dict[str, Iterable[str]] = {
        "methods": MAKERS, "refiners": REFINERS, "box_methods": BOX_METHODS,
        "box_refiners": BOX_REFINERS, "noise_refiner": BOX_REFINERS, "data": DATASETS,
        "format": EXPORTERS, "analyses": ANALYSES, "seeds_of": MAKERS,
    }  # fmt: skip
    return {name: list(names) for name, names in lists.items()}


def _groups(
    config: Any, choices: Mapping[str, list[str]], prefix: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A dataclass and those in its fields, each with the flags of its own fields."""
    kind, flags, inner = type(config), {}, []
    kinds = get_type_hints(kind)
    for part in fields(config):
        value, name = getattr(config, part.name), part.name.replace("_", "-")
        if is_dataclass(value):
            inner.append((f"{prefix}.{name}" if prefix else name, value))
            continue
        listed = [] if prefix else choices.get(part.name, [])
        flags[name] = _described(kinds[part.name], listed, value) | {"help": _help(kind, part.name)}
    summary = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]
    about = "" if summary.startswith(f"{kind.__name__}(") else " ".join(summary.split())
    yield prefix, {"about": about, "flags": flags}
    for name, value in inner:
        yield from _groups(value, choices, name)


def _described(kind: Any, listed: list[str], value: Any) -> dict[str, Any]:
    """What follows the flag, how often, what it may be and what it is by default."""
    inner = tuple(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) in (Union, UnionType):
        return _described(inner[0], listed, value)
    if get_origin(kind) is tuple:
        several = "any" if inner[-1] is ... else str(len(inner))
        return _described(inner[0], listed, value) | {"several": several}
    names = [str(one) for one in inner] if get_origin(kind) is Literal else listed
    known = {bool: SWITCH, int: WHOLE, float: NUMBER, Path: "PATH"}
    found = {"takes": known.get(kind, "TEXT"), "default": _shown(value)}
    return found | ({"choices": names} if names else {})


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "" if value is None else str(value)


def _help(kind: type, name: str) -> str:
    """The text of a field, of the first class that has one."""
    texts = (attribute_texts(base).get(name, "") for base in kind.__mro__)
    return next((text for text in texts if text), "")


def attribute_texts(kind: type) -> dict[str, str]:
    """Attribute to text, of the class's own docstring."""
    text = inspect.cleandoc(vars(kind).get("__doc__") or "").partition("Attributes:\n")[2]
    text = text.partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", text, re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


if __name__ == "__main__":
    FILE.write_text(as_text(describe()), encoding="utf-8")
