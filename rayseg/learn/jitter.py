"""Random crops in random colours."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.learn.colours import check_jitter, recoloured
from rayseg.learn.crops import Crops


@dataclass(frozen=True)
class JitteredCrops(Crops):
    """Random crops whose colours are changed too, as PSA and SEAM train (METHODS 2).

    Brightness, contrast, saturation and hue change in a random order, each by a factor or a turn of
    its own. Source: torchvision's ColorJitter on images of PIL, which these codes use.

    Attributes:
        jitter: How far brightness, contrast, saturation and hue are changed at most.
    """

    jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_jitter(self.jitter)

    def recolour(
        self, image: UInt8[ndarray, "h w 3"], generator: np.random.Generator
    ) -> UInt8[ndarray, "h w 3"]:
        """The resized image in drawn colours."""
        return recoloured(image, self.jitter, generator)
