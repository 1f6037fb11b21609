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
        brightness: Brightness is multiplied by up to 1 more or less this, and so on.
        contrast: Largest change of the contrast's factor.
        saturation: Largest change of the saturation's factor.
        hue: Largest turn of the hue either way, as a share of the circle, up to 0.5.
    """

    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_jitter(self._jitter)

    @property
    def _jitter(self) -> tuple[float, float, float, float]:
        return self.brightness, self.contrast, self.saturation, self.hue

    def recolour(
        self, image: UInt8[ndarray, "h w 3"], generator: np.random.Generator
    ) -> UInt8[ndarray, "h w 3"]:
        """The resized image in drawn colours."""
        return recoloured(image, self._jitter, generator)
