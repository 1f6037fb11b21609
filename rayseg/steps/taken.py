"""What `prepare` took of a data set and what it left out, as a person reads it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rayseg.datasets.tally import TAKEN
from rayseg.export.voc import class_problem
from rayseg.steps.outcome import Outcome
from rayseg.steps.table import table


def tell_taken(facts: Mapping[str, Any]) -> Outcome:
    """One table of `Tally.facts`, then a line for each reason with its count and one example."""
    taken, left_out = facts.get("taken", {}), facts.get("left_out", [])
    without = Counter[str]()
    for one in left_out:
        without[one["what"]] += one["count"]
    rows = {
        what: {"taken": str(taken.get(what, 0)), "left out": str(without[what] or "")}
        for what in dict.fromkeys([*TAKEN, *without])
        if what != "negatives" or taken.get(what)  # which one's own photos alone have
    }
    lines = [*(table(rows) if facts else []), *map(_left_out, left_out)]
    lines += [_changed(one) for one in facts.get("changed", [])]
    if taken.get("crowds") and not taken.get("boxes"):
        lines.append(f"all {taken['crowds']} objects are crowds: no box is trained on or scored")
    return Outcome(lines, left_out=without.total())


def tell_classes(classes: Sequence[str]) -> Outcome:
    """What an exporter will refuse of the class names, long before it does."""
    problem = class_problem(classes)
    return Outcome([f"export --format voc will refuse this: {problem}"] if problem else [])


def _left_out(one: Mapping[str, Any]) -> str:
    return f"left out: {one['count']} {one['what']}: {one['reason']}, such as {one['example']}"


def _changed(one: Mapping[str, Any]) -> str:
    return f"changed: {one['count']} {one['what']}: {one['reason']}, such as {one['example']}"
