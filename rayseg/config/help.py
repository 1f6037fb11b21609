"""Help in one screen or in full, and a job's flags checked, all without loading what they set."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from rayseg.config.flags import NUMBER, SWITCH, WHOLE, flags_of, groups_of, read_flags
from rayseg.config.job_list import JOBS
from rayseg.config.pages import PAGES
from rayseg.config.preset import PRESETS
from rayseg.toml import brief, hint

FILES = ("--config", "--preset")
"""Flags of any job that stand for several others."""
MAIN_PRESETS = ("official", "as_written", "laptop", "gpu")
MORE_PRESETS = tuple(name for name in PRESETS if name not in MAIN_PRESETS)
_WIDEST, _COLUMN = 100, 24


def short_help(job: str) -> str:
    """The flags of a job that people use, and examples: one screen."""
    flags, page = flags_of(job), PAGES[job]
    shown = {f"--{name}": flags[f"--{name}"] for name in page.flags}
    lines = [*_head(job), "", *_listed(shown), "", "examples:"]
    lines += [f"  {example}" for example in page.examples]
    hidden = len(flags) - len(shown)
    if hidden:
        lines += ["", f"`rayseg {job} --help-all` shows {hidden} more flags and all presets."]
    return "\n".join(lines)


def full_help(job: str) -> str:
    """All flags of a job, grouped by method."""
    lines = [*_head(job), *map(_preset, MORE_PRESETS)]
    for prefix, group in groups_of(job).items():
        title = f"{prefix}: {group['about']}" if prefix else "flags of the job"
        if group["flags"]:
            dotted = f"--{prefix}." if prefix else "--"
            flags = {f"{dotted}{name}": flag for name, flag in group["flags"].items()}
            lines += ["", *_wrapped(title.rstrip(": "), ""), *_listed(flags)]
    return "\n".join([*lines, "", "examples:", *(f"  {one}" for one in PAGES[job].examples)])


def _head(job: str) -> list[str]:
    return [
        f"usage: rayseg {job} [--config FILE.toml ...] [--preset NAME ...] [flags]",
        "",
        *_wrapped(JOBS[job].summary, ""),
        *_wrapped(
            "--config and --preset give many flags at once, others win over them. Presets:", ""
        ),
        *map(_preset, MAIN_PRESETS),
    ]


def _preset(name: str) -> str:
    return f"  {name:18} {PRESETS[name]}."


def _listed(flags: dict[str, Any]) -> Iterator[str]:
    """A line or more for each flag: what it takes, its help, its choices and its default."""
    for name, flag in flags.items():
        head = f"  {_with_value(name, flag)}"
        first, *more = _wrapped(_words(flag), " " * _COLUMN)
        if len(head) < _COLUMN - 1:
            yield head.ljust(_COLUMN) + first.strip()
        else:
            yield from (head, first)
        yield from more


def _with_value(name: str, flag: dict[str, Any]) -> str:
    if flag["takes"] == SWITCH:
        return name
    number = flag.get("several", "1")
    if number == "any":
        return f"{name} {flag['takes']} ..."
    return " ".join([name, *[flag["takes"]] * int(number)])


def _words(flag: dict[str, Any]) -> str:
    choices = f" Choices: {', '.join(flag['choices'])}." if flag.get("choices") else ""
    default = flag["default"]
    return f"{flag['help']}{choices}{f' [{default}]' if default else ''}".strip() or "No help."


def _wrapped(text: str, indent: str) -> list[str]:
    width = min(max(shutil.get_terminal_size().columns, 80), _WIDEST) - 1
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


def wrong_flag(job: str, arguments: Sequence[str]) -> str:
    """What is wrong with the first flag that the job does not have, or with its value.

    Returns:
        A line with the nearest flag or value; empty where nothing is found, and of a job whose
        flags are not in the file.
    """
    if job not in read_flags()["jobs"]:
        return ""
    known, name, values = flags_of(job), "", list[str]()
    for argument in [*arguments, "--config"]:
        if not argument.startswith("--"):
            values.append(argument)
            continue
        if name and (wrong := _wrong_values(name, known[name], values)):
            return wrong
        given, equals, value = argument.partition("=")
        name, values = _named(given, known), [value] if equals and value else []
        if not name and given not in FILES:
            near = hint(given.replace("_", "-"), known).replace("'", "")
            way_out = near or f"; `rayseg {job} --help-all` lists all flags"
            return f"unknown flag {given[:100]}{way_out}"
    return ""


def _named(given: str, known: dict[str, Any]) -> str:
    """The flag, of which a switch has a second form; empty where there is none."""
    name = given.replace("_", "-")
    if name in known:
        return name
    prefix, _, last = name.removeprefix("--").rpartition(".")
    positive = f"--{f'{prefix}.' if prefix else ''}{last.removeprefix('no-')}"
    is_switch = known.get(positive, {"takes": None})["takes"] == SWITCH
    return positive if last.startswith("no-") and is_switch else ""


def _wrong_values(name: str, flag: dict[str, Any], values: list[str]) -> str:
    """What is wrong with the values that follow a flag."""
    for value in values:
        choices = flag.get("choices")
        if choices and value not in choices:
            listed = ", ".join(choices)
            return f"{name} must be one of {listed}, got {brief(value)}{hint(value, choices)}"
        if not choices and not _fits(flag["takes"], value):
            number = "a whole number" if flag["takes"] == WHOLE else "a number"
            return f"{name} must be {number}, got {brief(value)}"
    return ""


def _fits(takes: str, value: str) -> bool:
    kinds = {WHOLE: int, NUMBER: float}
    if takes not in kinds:
        return True
    try:
        kinds[takes](value)
    except ValueError:
        return value in ("None", "none")
    return True
