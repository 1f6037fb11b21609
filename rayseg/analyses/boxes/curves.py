"""What a search for one head's sake does to the other head.

Source: dissertation 5.5, Figure 5.6(c): with one head switched off in Eq. 5.1 its loss of Eq. 5.2
rises while that of the other is kept low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class CurveSums:
    """Losses by step, added over objects.

    Attributes:
        total: float64 (steps, 2), box and class loss.
        objects: that were added.
    """

    total: Float64[ndarray, "steps 2"]
    objects: int

    @classmethod
    def of(cls, curve: Float[ndarray, "steps 2"]) -> Self:
        """One object, its curve as `ObjectMap.curve` has it.

        Raises:
            ValueError: of another shape, or with a number that is none.
        """
        values = np.asarray(curve, float)
        if values.ndim != 2 or values.shape[1] != 2:
            raise ValueError(f"curve must be (steps, 2), got {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError("curve must be finite, got nan or inf")
        return cls(values, 1)

    def __add__(self, other: CurveSums) -> CurveSums:
        if self.total.shape != other.total.shape:
            raise ValueError(
                f"curves must have the same steps, got {len(self.total)} and {len(other.total)}"
            )
        return CurveSums(self.total + other.total, self.objects + other.objects)

    @property
    def mean(self) -> Float64[ndarray, "steps 2"]:
        """Mean losses by step."""
        return self.total / self.objects

    def figures(self) -> dict[str, Any]:
        """All numbers as plain Python, ready for JSON."""
        box, class_ = self.mean.T.tolist()
        return {"objects": self.objects, "box_loss": box, "class_loss": class_}
