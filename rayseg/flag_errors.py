"""The messages of the parser of flags, each in one line."""

import itertools
import re
from collections.abc import Sequence
from operator import attrgetter

from rayseg.ending import first_lines
from rayseg.toml import hint

_UNRECOGNIZED = "Unrecognized options: "
_FRAME = "╭╮╰╯│─-"
"""Characters of the parser's frame."""


def one_line(text: str, arguments: Sequence[str], base: object) -> str:
    """What the parser printed of wrong flags, as one line.

    Args:
        text: with its frame.
        arguments: that it was given.
        base: the configuration that they change.
    """
    return _placed(_unboxed(text), arguments, base)


def _unboxed(text: str) -> str:
    """The parser's message without its frame, in one line."""
    words = [line.strip(_FRAME + " ") for line in text.splitlines()]
    kept = [line for line in words if line and not line.startswith("For full helptext")]
    text = " ".join(kept)  # of which the first words are the frame's title, which repeats
    for title, start in (
        ("Unrecognized options", "Unrecognized"), ("Invalid choice", "invalid"),
        ("Missing argument", "Missing value"),
    ):  # fmt: skip
        text = text.replace(f"{title} {start}", start.capitalize())
    text = re.sub(r"^Value error (?=Error parsing)", "", text)
    text = re.sub(r"^Error parsing (?:\w+Config: |(?=[\w-]))", "", text)
    wrong = re.search(r"Invalid choice '([^']*)'.*Expected one of \((.*)\)", text)
    if not wrong:
        return first_lines(text)  # it may propose many flags, with the help of each
    return text.rstrip(".") + hint(wrong[1], re.findall(r"'([^']*)'", wrong[2]))


def _placed(message: str, arguments: Sequence[str], base: object) -> str:
    """The message; where it shows a value that follows a switch, with that one's flag."""
    for one in arguments:
        if message == _UNRECOGNIZED.strip() and one.endswith("=") and _is_switch(one[:-1], base):
            return f"{one[:-1]} takes no value, got an empty one"
    words = [word for one in arguments for word in one.split("=", 1 if one[:2] == "--" else 0)]
    said = message.removeprefix(_UNRECOGNIZED)
    if said == message or said.startswith("--"):
        return message
    for flag, value in itertools.pairwise(words):
        if _is_switch(flag, base) and _bare(value) and _bare(said).startswith(_bare(value)[:99]):
            return f"{flag} takes no value, got {said}"
    return message


def _is_switch(flag: str, base: object) -> bool:
    """Whether a flag is of those that take no value."""
    name = re.sub(r"(^--|\.)no-", r"\1", flag).removeprefix("--").replace("-", "_")
    try:
        return flag[:2] == "--" and isinstance(attrgetter(name)(base), bool)
    except AttributeError:
        return False


def _bare(text: str) -> str:
    """Without what the parser's frame takes away of a text."""
    return re.sub(rf"[\s{_FRAME}]", "", text)
