"""Random crops of images, and of their labels with them, normalised for networks."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray
from PIL import Image

from rayseg.learn.colours import check_jitter, recoloured
from rayseg.nets import inputs
from rayseg.records import IGNORE

MEAN_RGB = np.array(inputs.MEAN_RGB, np.float32)
DEVIATION_RGB = np.array(inputs.DEVIATION_RGB, np.float32)
# normalised values of the 256 levels of each channel; to look up is four times as fast as to divide
_LEVELS = ((np.arange(256, dtype=np.float32)[:, None] / 255 - MEAN_RGB) / DEVIATION_RGB).T.copy()


@dataclass(frozen=True)
class Crops:
    """Random crops as IRN trains its classifier on (METHODS 1.1).

    Attributes:
        crop: Side of the square crop in pixels; smaller images lie at a random place in it, on
            ImageNet's mean colour.
        long_side: Range in pixels of which the image's longer side is drawn; resizing is bicubic.
        flip: Half of the crops are mirrored.
    """

    crop: int = 512
    long_side: tuple[int, int] = (320, 640)
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.long_side[0] <= self.long_side[1] or self.crop < 1:
            raise ValueError(f"long_side must ascend and crop be positive, got {self}")

    def cut(
        self, pixels: UInt8[ndarray, "h w 3"], generator: np.random.Generator
    ) -> Float[ndarray, "3 s s"]:
        """One normalised crop, drawn by the generator."""
        levels, (top, left, bottom, right) = self.cut_levels(pixels, generator)
        canvas = np.zeros((3, self.crop, self.crop), np.float32)
        window = (slice(top, bottom), slice(left, right))
        _normalise(levels[window], canvas[:, *window])
        return canvas

    def cut_levels(
        self, pixels: UInt8[ndarray, "h w 3"], generator: np.random.Generator
    ) -> tuple[UInt8[ndarray, "s s 3"], tuple[int, int, int, int]]:
        """The crop that `cut` normalises, as levels, and where it holds image.

        Returns:
            Levels, 0 outside of the image, and the first row and column of the image with those
            after its last.
        """
        long_side = int(generator.integers(self.long_side[0], self.long_side[1] + 1))
        image = _resize_long(pixels, long_side)
        if self.flip and generator.random() < 0.5:
            image = image[:, ::-1]
        image = self.recolour(image, generator)
        (to_y, from_y), (to_x, from_x) = (
            _overlap(side, self.crop, generator) for side in image.shape[:2]
        )
        canvas = np.zeros((self.crop, self.crop, 3), np.uint8)
        canvas[to_y, to_x] = image[from_y, from_x]
        return canvas, (to_y.start, to_x.start, to_y.stop, to_x.stop)

    def recolour(
        self, image: UInt8[ndarray, "h w 3"], generator: np.random.Generator
    ) -> UInt8[ndarray, "h w 3"]:
        """The resized image in other colours; here in its own."""
        del generator
        return image

    def whole(self, pixels: UInt8[ndarray, "h w 3"]) -> Float[ndarray, "3 s s"]:
        """The whole image, its longer side resized to the crop's, for evaluation."""
        image = _resize_long(pixels, self.crop)
        height, width = image.shape[:2]
        canvas = np.zeros((3, self.crop, self.crop), np.float32)
        _normalise(image, canvas[:, :height, :width])
        return canvas


@dataclass(frozen=True)
class SegmentationCrops:
    """Random crops as deeplab-pytorch trains its segmenter on (METHODS 10).

    It subtracts the mean colour only, in BGR, since its weights are Caffe's; ours are torchvision's
    and need the deviation divided out as well. It resizes by OpenCV, which mixes two pixels an axis
    at any scale; PIL's bilinear mixes all that a smaller image's pixel covers.

    Attributes:
        crop: Side of the square crop in pixels; smaller images lie at its upper left (mirrored, its
            upper right), on ImageNet's mean colour and on labels to be ignored.
        scales: Factors of which one is drawn for each crop; the image is resized bilinearly, its
            labels to the same size by nearest pixel.
        flip: Half of the crops are mirrored.
    """

    crop: int = 321
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    flip: bool = True

    def __post_init__(self) -> None:
        if self.crop < 1:
            raise ValueError(f"crop must be at least 1 pixel, got {self.crop}")
        if not self.scales or not all(0 < scale < np.inf for scale in self.scales):
            raise ValueError(f"scales must be positive numbers, at least one, got {self.scales}")

    def cut(
        self,
        pixels: UInt8[ndarray, "h w 3"],
        labels: UInt8[ndarray, "h w"],
        generator: np.random.Generator,
    ) -> tuple[Float[ndarray, "3 s s"], UInt8[ndarray, "s s"]]:
        """One normalised crop and its labels, drawn by the generator."""
        scale = self.scales[int(generator.integers(len(self.scales)))]
        height, width = (max(int(side * scale), 1) for side in labels.shape)
        y, x = (
            int(generator.integers(0, max(side - self.crop, 0) + 1)) for side in (height, width)
        )
        window = slice(y, y + self.crop), slice(x, x + self.crop)
        # PIL can resize the window alone, but where a value lies between two levels it then rounds
        # otherwise than in the whole image
        resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
        image = np.asarray(resized)[window]
        rows, columns = (
            _nearest(old, new)[part]
            for old, new, part in zip(labels.shape, (height, width), window, strict=True)
        )
        canvas = np.zeros((3, self.crop, self.crop), np.float32)
        target = np.full((self.crop, self.crop), IGNORE, np.uint8)
        step = -1 if self.flip and generator.random() < 0.5 else 1
        _normalise(image, canvas[:, :, ::step][:, : len(rows), : len(columns)])
        target[:, ::step][: len(rows), : len(columns)] = labels[rows][:, columns]
        return canvas, target


@dataclass(frozen=True)
class PairCrops:
    """Random crops of images and their labels as IRNet and AffinityNet are trained on.

    The defaults are IRNet's (METHODS 1.6); AffinityNet's have 448 pixels, are not resized, and are
    jittered by .3, .3, .3 and .1 (METHODS 2; ColorJitter of torchvision, which they go through
    before they are cut).

    Attributes:
        crop: Side of the square crop in pixels, which divides by 8; smaller images lie at a random
            place in it, on ImageNet's mean colour and on labels to be ignored.
        scales: Range of which the factor of the image's sides is drawn; images are resized by cubic
            interpolation, labels by nearest pixel.
        flip: Half of the crops are mirrored.
        jitter: How far brightness, contrast, saturation and hue are changed at most.
    """

    crop: int = 512
    scales: tuple[float, float] = (0.5, 1.5)
    flip: bool = True
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.crop < 8 or self.crop % 8:
            raise ValueError(f"crop must be pixels that divide by 8, got {self.crop}")
        if not 0 < self.scales[0] <= self.scales[1] < np.inf:
            raise ValueError(f"scales must be positive and ascend, got {self.scales}")
        check_jitter(self.jitter)

    def cut(
        self,
        pixels: UInt8[ndarray, "h w 3"],
        labels: UInt8[ndarray, "h w"],
        generator: np.random.Generator,
    ) -> tuple[Float[ndarray, "3 s s"], UInt8[ndarray, "s s"]]:
        """One normalised crop and its labels, drawn by the generator."""
        scale = generator.uniform(*self.scales)
        height, width = (max(round(side * scale), 1) for side in labels.shape)
        image = Image.fromarray(pixels)
        if (height, width) != labels.shape:
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        levels = recoloured(np.asarray(image), self.jitter, generator)
        step = -1 if self.flip and generator.random() < 0.5 else 1
        (to_y, from_y), (to_x, from_x) = (
            _overlap(side, self.crop, generator) for side in (height, width)
        )
        rows, columns = (
            _nearest(old, new) for old, new in zip(labels.shape, (height, width), strict=True)
        )
        canvas = np.zeros((3, self.crop, self.crop), np.float32)
        target = np.full((self.crop, self.crop), IGNORE, np.uint8)
        _normalise(levels[:, ::step][from_y, from_x], canvas[:, to_y, to_x])
        target[to_y, to_x] = labels[rows[from_y]][:, columns[::step][from_x]]
        return canvas, target

    def corner(self, pixels: UInt8[ndarray, "h w 3"]) -> Float[ndarray, "3 s s"]:
        """The upper left of an image as it is, on a canvas of the crop's size."""
        image = pixels[: self.crop, : self.crop]
        canvas = np.zeros((3, self.crop, self.crop), np.float32)
        _normalise(image, canvas[:, : image.shape[0], : image.shape[1]])
        return canvas

    def corner_labels(self, labels: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "s s"]:
        """Labels of that upper left, 255 beside the image."""
        part = labels[: self.crop, : self.crop]
        canvas = np.full((self.crop, self.crop), IGNORE, np.uint8)
        canvas[: part.shape[0], : part.shape[1]] = part
        return canvas


@dataclass(frozen=True)
class WarpedImages:
    """Whole images, warped to a square, as DSRG's code trains on (METHODS 8).

    Attributes:
        side: Side of the square in pixels that images are warped to, bilinearly; labels by nearest
            pixel.
        flip: Half of the images are mirrored.
    """

    side: int = 321
    flip: bool = True

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side must be at least 1 pixel, got {self.side}")

    def cut(
        self,
        pixels: UInt8[ndarray, "h w 3"],
        labels: UInt8[ndarray, "h w"],
        generator: np.random.Generator,
    ) -> tuple[Float[ndarray, "3 s s"], UInt8[ndarray, "s s"]]:
        """The normalised square and its labels, mirrored or not as the generator draws."""
        size = (self.side, self.side)
        image = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        rows, columns = (_nearest(old, self.side) for old in labels.shape)
        step = -1 if self.mirrored(generator) else 1
        square = np.empty((3, *size), np.float32)
        _normalise(image[:, ::step], square)
        return square, np.ascontiguousarray(labels[rows][:, columns][:, ::step])

    def mirrored(self, generator: np.random.Generator) -> bool:
        """Whether the image of that generator is mirrored."""
        return self.flip and generator.random() < 0.5


def _nearest(old: int, new: int) -> Int[ndarray, " new"]:
    """The old pixel in which the centre of each new pixel lies, along one axis."""
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _normalise(image: UInt8[ndarray, "h w 3"], out: Float[ndarray, "3 h w"]) -> None:
    """Writes an image's levels as networks take them."""
    for channel in range(3):
        out[channel] = _LEVELS[channel].take(image[..., channel])


def _resize_long(pixels: UInt8[ndarray, "h w 3"], long_side: int) -> UInt8[ndarray, "h w 3"]:
    height, width = pixels.shape[:2]
    factor = long_side / max(height, width)
    size = (max(round(width * factor), 1), max(round(height * factor), 1))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def _overlap(side: int, crop: int, generator: np.random.Generator) -> tuple[slice, slice]:
    """Where along one axis the image lies in the crop, and which part of the image that is."""
    offset = int(generator.integers(0, abs(side - crop) + 1))
    if side < crop:
        return slice(offset, offset + side), slice(0, side)
    return slice(0, crop), slice(offset, offset + crop)
