"""Random crops in random colours."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageEnhance

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
        factors = (self.brightness, self.contrast, self.saturation)
        if min(*factors, self.hue) < 0 or self.hue > 0.5:
            raise ValueError(
                "brightness, contrast and saturation must be 0 or more and hue lie in [0, 0.5], "
                f"got {(*factors, self.hue)}"
            )

    def recolour(
        self, image: UInt8[ndarray, "h w 3"], generator: np.random.Generator
    ) -> UInt8[ndarray, "h w 3"]:
        """The resized image in drawn colours."""
        order = generator.permutation(4)
        changes = (self.brightness, self.contrast, self.saturation)
        factors = [generator.uniform(max(1 - most, 0), 1 + most) for most in changes]
        turn = generator.uniform(-self.hue, self.hue)
        picture = Image.fromarray(image)
        for place in order:
            if place == len(factors):
                picture = turn_hue(picture, turn) if self.hue else picture
            else:
                picture = _ENHANCERS[place](picture).enhance(factors[place])
        return np.asarray(picture)


_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    """The picture with its hues turned by that share of the circle, in steps of 1/256."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.int32(turn * 255).astype(np.uint8)  # goes round at 256
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
