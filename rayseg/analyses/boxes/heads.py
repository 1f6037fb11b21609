"""Both halves of Figure 5.6 in one table: each head's pixels, and its losses by step."""

from dataclasses import dataclass
from typing import Any

from rayseg.analyses.boxes.curves import CurveSums
from rayseg.analyses.boxes.positions import PositionCounts


@dataclass(frozen=True)
class HeadAnalysis:
    """What maps of one head alone show; `box` had 1_cls = 0, `class_` 1_box = 0.

    Attributes:
        box: pixels that the box head needs.
        class_: pixels that the class head needs.
        box_curves: both losses while only the box head counted.
        class_curves: both losses while only the class head counted.
    """

    box: PositionCounts
    class_: PositionCounts
    box_curves: CurveSums
    class_curves: CurveSums

    def figures(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON."""
        return {
            "box_head": self.box.figures() | self.box_curves.figures(),
            "class_head": self.class_.figures() | self.class_curves.figures(),
        }
