"""Boxes that are too large or too small, and what that costs.

Source: dissertation 5.5, Figure 5.7(a): boxes of up to 20 % of noise, expanded or contracted, after
Hsu et al., *Weakly Supervised Instance Segmentation using the Bounding Box Tightness Prior*,
NeurIPS 2019 (up to 15 %).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def shake_boxes(
    boxes_xyxy: Float[ndarray, "o 4"], amount: float, generator: np.random.Generator
) -> Float[ndarray, "o 4"]:
    """Boxes of which each side is moved outwards, or inwards, by up to a share of the box.

    Each of the four sides moves by its own draw from [0, |amount|], in widths or heights of its
    box: outwards where `amount` is positive, inwards where it is negative. Neither text says how
    the noise is distributed; even draws are our choice. Boxes are not cut at the image.

    Args:
        boxes_xyxy: in any pixels.
        amount: above -0.5, so that no box turns over; 0 changes nothing.
        generator: four numbers a box are drawn, whatever the amount, so that two amounts move the
            same sides.

    Raises:
        ValueError: such an amount.
    """
    if not -0.5 < amount < np.inf:
        raise ValueError(f"amount must be a share above -0.5, got {amount}")
    sides = np.tile(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 2)
    outwards = np.array([-1.0, -1.0, 1.0, 1.0])
    moved = boxes_xyxy + outwards * amount * generator.random(boxes_xyxy.shape) * sides
    return moved.astype(boxes_xyxy.dtype)


@dataclass(frozen=True)
class NoiseAnalysis:
    """A measure of masks by the noise of the boxes that they were made from.

    Attributes:
        amounts: of `shake_boxes`, ascending, 0 among them.
        values: the measure at each, in [0, 1].
        objects: that each was taken over.
        measure: its name, such as mask IoU or AP50.
    """

    amounts: tuple[float, ...]
    values: tuple[float, ...]
    objects: int
    measure: str = "mask IoU"

    def __post_init__(self) -> None:
        if len(self.amounts) != len(self.values):
            raise ValueError(
                f"values must be one an amount, {len(self.amounts)}, got {len(self.values)}"
            )
        if list(self.amounts) != sorted(set(self.amounts)) or 0 not in self.amounts:
            raise ValueError(f"amounts must ascend, 0 among them, got {self.amounts}")

    @property
    def kept(self) -> tuple[float, ...]:
        """Each value over that without noise; 0 where that is 0."""
        clean = self.values[self.amounts.index(0)]
        return tuple(value / clean if clean else 0.0 for value in self.values)

    def figures(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON."""
        return {
            "measure": self.measure,
            "objects": self.objects,
            "amounts": list(self.amounts),
            "values": list(self.values),
            "kept": list(self.kept),
        }
