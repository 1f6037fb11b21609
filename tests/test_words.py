"""The words that a user reads: the help of every flag, and one meaning for each name."""

import ast
import dataclasses
import re
from collections import defaultdict
from pathlib import Path

import pytest

from rayseg.config.flags import attribute_texts
from rayseg.config.job_list import JOBS

ROOT = Path(__file__).resolve().parents[1]
PREPOSITION = re.compile(
    r"(above|across|after|against|among|as|at|before|behind|below|beneath|beside|between|beyond|by"
    r"|for|from|in|into|of|off|on|onto|out|over|per|than|through|to|toward|under|until|up|with"
    r"|without)\b",
    re.IGNORECASE,
)
FORBIDDEN = (
    "comes to",
    "stands",
    "wants a",
    "for ever",
    "the whole road",
    "what it must do without",
    "said",
    "told",
)


def flags_of(kind, seen):
    """Class, field and text of each flag below a dataclass, and of each part that has a text."""
    if kind in seen:
        return
    seen.add(kind)
    for field in dataclasses.fields(kind):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        owners = [base for base in kind.__mro__ if field.name in attribute_texts(base)]
        yield from ((base, field.name, attribute_texts(base)[field.name]) for base in owners)
        if dataclasses.is_dataclass(default):
            yield from flags_of(type(default), seen)
        elif not owners:
            yield kind, field.name, ""


def faults(text):
    """What keeps a text from being whole sentences that can be read alone."""
    words = text.split()
    found = [f"has {words!r:.40}, fewer than three words"] if len(words) < 3 else []
    if not re.match(r"[A-Z0-9'\"`]", text):
        found.append("does not begin with a capital")
    if not text.endswith("."):
        found.append("does not end with a full stop")
    if words and PREPOSITION.match(words[0]):
        found.append(f"begins with {words[0]!r}")
    if "..." in text:
        found.append("goes on from another text")
    return found + [f"has {one!r}" for one in FORBIDDEN if re.search(rf"\b{one}\b", text)]


@pytest.mark.parametrize("name", JOBS)
def test_help_of_every_flag_is_whole_sentences(name):
    wrong = [
        f"{kind.__module__}.{kind.__qualname__}.{field} {fault}: {text!r}"
        for kind, field, text in flags_of(JOBS[name].config, set())
        for fault in faults(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Of a training.",
        "steps of it all.",
        "Steps of the loop",
        "... of other images.",
        "Steps.",
    ],
)
def test_fragments_are_found(text):
    assert faults(text)


def defined_names(tree):
    """Public classes and aliases of types that a module defines; type variables are not counted."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for one in targets if isinstance(one, ast.Name)]
            yield from (
                name for name in names if re.fullmatch(r"[A-Z][A-Za-z]*[a-z][A-Za-z]*", name)
            )


def defined_twice(files):
    """Name to the files that define it, of names with more than one."""
    places = defaultdict(list)
    for path in files:
        for name in defined_names(ast.parse(path.read_text())):
            places[name].append(path.name)
    return {name: where for name, where in places.items() if len(where) > 1}


def test_every_class_and_alias_has_a_name_of_its_own():
    assert defined_twice(sorted((ROOT / "rayseg").rglob("*.py"))) == {}


def test_a_name_that_is_defined_twice_is_found(tmp_path):
    (tmp_path / "a.py").write_text("class Stage: ...\nT = TypeVar('T')\nKINDS = ()")
    (tmp_path / "b.py").write_text("Stage = Callable[[int], int]\nT = TypeVar('T')\nKINDS = ()")
    assert defined_twice(sorted(tmp_path.glob("*.py"))) == {"Stage": ["a.py", "b.py"]}
