"""What a check of a run finds, folder by folder."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rayseg.store import Folder


@dataclass(frozen=True)
class Finding:
    """Something that is wrong.

    Attributes:
        what: in words, with its place.
        repair: puts it in order; None where a command does so anyway.
        way_out: what happens then.
        stays: no command looks at it again before the repair.
    """

    what: str
    repair: Callable[[], Any] | None = None
    way_out: str = "the command that made it makes it again"
    stays: bool = False


@dataclass
class Checked:
    """A folder, and what was found in it."""

    place: str
    folder: Folder
    kind: str = ""
    rows: int = 0
    files: int = 0
    found: list[Finding] = field(default_factory=list)

    @property
    def cells(self) -> dict[str, str]:
        """Its line of the table."""
        counts = {"rows": str(self.rows or ""), "shards": str(self.files or "")}
        return counts | {"found": str(len(self.found) or "sound")}
