"""Images of a handwritten 2 or 8 with or without a mark, and the three regions of each."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from numpy import ndarray
from torch.nn import functional

DIGITS = (2, 8)
"""What the classes 0 and 1 show."""
MARKS = ("circle", "square")
"""The mark beside the digit of each class."""
REGIONS = ("digit", "mark", "background")
"""R_D discriminative, R_ND relevant but not discriminative, R_BG irrelevant: values of a region."""
DIGIT, MARK, BACKGROUND = range(3)
INK = 0.25  # from here on a pixel is the digit's; interpolation leaves a halo of less around it
GAP_PX = 1  # between a mark and a digit's faintest pixel
_HELD_OUT = 5  # one in so many handwritten digits is never trained on


@dataclass(frozen=True)
class Handwriting:
    """Digits as they were written.

    Attributes:
        pixels: 0 paper to 1 ink, 8 x 8.
        classes: place in `DIGITS`.
    """

    pixels: Float[ndarray, "n 8 8"]
    classes: Int64[ndarray, " n"]


@dataclass(frozen=True)
class Scenes:
    """Drawn images and what each of their pixels belongs to.

    Attributes:
        images: float32 (n, h, w), 0 paper to 1 ink.
        classes: place of each image's digit in `DIGITS`.
        regions: uint8 (n, h, w), place of each pixel's region in `REGIONS`.
    """

    images: Float32[ndarray, "n h w"]
    classes: Int64[ndarray, " n"]
    regions: UInt8[ndarray, "n h w"]

    @property
    def marked(self) -> Bool[ndarray, " n"]:
        """Which images have a mark."""
        return (self.regions == MARK).any((1, 2))

    def without(self, region: int) -> Float32[ndarray, "n h w"]:
        """The images with the region's pixels as paper; of the digit, its halo as well."""
        kept = self.regions == MARK if region == DIGIT else self.regions != region
        return np.where(kept, self.images, np.float32(0))


def handwriting(held_out: bool) -> Handwriting:
    """scikit-learn's 2s and 8s: four fifths to train on, or the fifth that is kept back.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI 1998. The
    dissertation takes MNIST, which has to be downloaded.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415  # half a second of every process

    digits = load_digits()
    chosen = np.flatnonzero(np.isin(digits.target, DIGITS))
    chosen = chosen[(np.arange(len(chosen)) % _HELD_OUT == 0) == held_out]
    classes = (digits.target[chosen] == DIGITS[1]).astype(np.int64)
    return Handwriting(digits.images[chosen] / 16, classes)


def draw_scenes(
    rng: np.random.Generator,
    written: Handwriting,
    num_images: int,
    num_marked: int,
    size: int,
    digit_size: int,
    mark_size: int,
) -> Scenes:
    """Each image is one digit, bilinear and filled in anywhere; marks are where no ink is.

    Args:
        rng: chooses digits, places and who has a mark.
        written: digits to choose from, each as often as it comes.
        num_marked: how many of these have a mark, exactly.
        digit_size: side of the square that a digit is enlarged to.
        mark_size: side of a square, diameter of a circle.
    """
    chosen = rng.integers(len(written.pixels), size=num_images)
    marked = np.zeros(num_images, bool)
    marked[rng.choice(num_images, num_marked, replace=False)] = True
    classes = written.classes[chosen]
    images = np.zeros((num_images, size, size), np.float32)
    regions = np.full((num_images, size, size), BACKGROUND, np.uint8)
    large = _enlarged(written.pixels, digit_size)
    for place, (image, region) in enumerate(zip(images, regions, strict=True)):
        row, column = rng.integers(size - digit_size + 1, size=2)
        image[row : row + digit_size, column : column + digit_size] = large[chosen[place]]
        region[image >= INK] = DIGIT
        if marked[place]:
            pixels = _mark_pixels(rng, image, mark_size, MARKS[classes[place]])
            image[pixels] = 1
            region[pixels] = MARK
    return Scenes(images, classes, regions)


def _enlarged(pixels: Float[ndarray, "n 8 8"], digit_size: int) -> Float32[ndarray, "n s s"]:
    planes = torch.from_numpy(pixels.astype(np.float32))[:, None]
    large = functional.interpolate(planes, (digit_size, digit_size), mode="bilinear")
    return large[:, 0].numpy()


def _mark_pixels(
    rng: np.random.Generator, image: Float32[ndarray, "h w"], mark_size: int, kind: str
) -> Bool[ndarray, "h w"]:
    """A mark at any of the places where it stays clear of the ink."""
    side = mark_size + 2 * GAP_PX
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(image, GAP_PX), (side, side))
    free = np.argwhere(windows.max((2, 3)) == 0)
    row, column = free[rng.integers(len(free))]
    pixels = np.zeros(image.shape, bool)
    pixels[row : row + mark_size, column : column + mark_size] = mark_shape(kind, mark_size)
    return pixels


def mark_shape(kind: str, mark_size: int) -> Bool[ndarray, "s s"]:
    """The filled mark; a circle has the pixels whose centres lie in it."""
    if kind == "square":
        return np.ones((mark_size, mark_size), bool)
    offsets = np.arange(mark_size) - (mark_size - 1) / 2
    return np.hypot(offsets[:, None], offsets) <= mark_size / 2
