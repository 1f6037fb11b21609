"""What a job did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Outcome:
    """What a job did.

    Attributes:
        lines: what to tell the user.
        failed: ids of images that have a row saying why they have no result.
        left_out: images, masks or boxes that a job had to do without.
        told: how many of the first lines the user was told already.
    """

    lines: list[str] = field(default_factory=list)
    failed: frozenset[str] = frozenset()
    left_out: int = 0
    told: int = 0

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            self.lines + other.lines, self.failed | other.failed, self.left_out + other.left_out
        )
