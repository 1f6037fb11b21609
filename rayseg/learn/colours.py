"""Other brightness, contrast, saturation and hue of training images, as ColorJitter has them.

Source: torchvision's ColorJitter on images of PIL, which the codes of PSA and SEAM use (METHODS 2).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageEnhance

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def check_jitter(jitter: Sequence[float]) -> None:
    """Refuses changes that are no changes of `recoloured`.

    Raises:
        ValueError: one is negative, or a hue would turn by more than half of the circle.
    """
    if min(jitter) < 0 or jitter[3] > 0.5:
        raise ValueError(
            "brightness, contrast and saturation must be 0 or more and hue lie in [0, 0.5], "
            f"got {tuple(jitter)}"
        )


def recoloured(
    image: UInt8[ndarray, "h w 3"], jitter: Sequence[float], generator: np.random.Generator
) -> UInt8[ndarray, "h w 3"]:
    """The image in drawn colours, changed in a drawn order.

    Args:
        jitter: brightness, contrast and saturation are multiplied by up to 1 more or less these,
            and hues turn by up to the fourth either way, as a share of the circle.
    """
    if not any(jitter):
        return image
    order = generator.permutation(4)
    factors = [generator.uniform(max(1 - most, 0), 1 + most) for most in jitter[:3]]
    turn = generator.uniform(-jitter[3], jitter[3])
    picture = Image.fromarray(image)
    for place in order:
        if place < len(factors):
            picture = _ENHANCERS[place](picture).enhance(factors[place])
        elif jitter[3]:
            picture = turn_hue(picture, turn)
    return np.asarray(picture)


def turn_hue(picture: Image.Image, turn: float) -> Image.Image:
    """The picture with its hues turned by that share of the circle, in steps of 1/256."""
    hue, saturation, value = picture.convert("HSV").split()
    turned = np.asarray(hue) + np.int32(turn * 255).astype(np.uint8)  # goes round at 256
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")
