"""Classes whose masks are most likely poor, as scores.json says without true masks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayseg.report.contents import number
from rayseg.store import QUALITY, Folder


@dataclass(frozen=True)
class Suspect:
    """A class that is warned of.

    Attributes:
        name: of the class.
        masks: in which it is.
        facts: what was counted of it, with the words of the warning.
    """

    name: str
    masks: str
    facts: Mapping[str, Any]

    def number(self, key: str) -> float | None:
        """One of its figures."""
        return number(self.facts.get(key))


def read_suspects(run: Folder) -> list[Suspect]:
    """The classes that scores.json warns of, masks after masks, those of most images first."""
    if not run.exists("scores.json"):
        return []
    judged = json.loads(run.read("scores.json")).get(QUALITY) or {}
    found = [
        Suspect(name, masks.partition("/")[2], facts)
        for masks, classes in judged.items()
        for name, facts in classes.items()
        if facts.get("warning")
    ]
    return sorted(found, key=lambda one: (one.masks, -(one.number("images") or 0), one.name))
