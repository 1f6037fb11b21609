"""Batches of image crops for training, the same ones whatever the number of workers.

A plain torch DataLoader feeds the trainers, not Ray Data: every crop is a function of (seed, epoch,
index), so that two workers see together exactly what one sees, a restart repeats the epoch to the
bit, and a loss curve can be compared step by step. Ray Data's streaming split promises no order.
Where images lie on other machines' disks, give paths that all nodes can open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rayseg.images import ImageError, decode_image
from rayseg.records import Sample
from rayseg.store import read_file

MEAN_RGB = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION_RGB = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Crops:
    """Random crops as IRN trains its classifier on (METHODS 1.1).

    Attributes:
        crop: side of the square crop in pixels; smaller images lie at a random place in it, on
            ImageNet's mean colour.
        long_side: the image's longer side is resized to a random length in this range, bicubic.
        flip: half of the crops are mirrored.
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
        long_side = int(generator.integers(self.long_side[0], self.long_side[1] + 1))
        image = _resize_long(pixels, long_side)
        if self.flip and generator.random() < 0.5:
            image = image[:, ::-1]
        normalised = (image.astype(np.float32) / 255 - MEAN_RGB) / DEVIATION_RGB
        canvas = np.zeros((self.crop, self.crop, 3), np.float32)
        (to_y, from_y), (to_x, from_x) = (
            _overlap(side, self.crop, generator) for side in image.shape[:2]
        )
        canvas[to_y, to_x] = normalised[from_y, from_x]
        return canvas.transpose(2, 0, 1)

    def whole(self, pixels: UInt8[ndarray, "h w 3"]) -> Float[ndarray, "3 s s"]:
        """The whole image, its longer side resized to the crop's, for evaluation."""
        image = _resize_long(pixels, self.crop)
        canvas = np.zeros((self.crop, self.crop, 3), np.float32)
        height, width = image.shape[:2]
        canvas[:height, :width] = (image.astype(np.float32) / 255 - MEAN_RGB) / DEVIATION_RGB
        return canvas.transpose(2, 0, 1)


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


class TaggedCrops(Dataset[tuple[Tensor, Tensor]]):
    """Crops and 0/1 targets of samples; a key is (epoch, index), and epoch -1 asks for no crop.

    Raises:
        ImageError: when all of an image's neighbours are unreadable too; a single bad image is
            replaced by the next good one, so that training goes on.
    """

    def __init__(self, samples: Sequence[Sample], num_classes: int, crops: Crops, seed: int):
        self.samples = samples
        self.num_classes = num_classes
        self.crops = crops
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        sample, pixels = self._readable(index)
        if epoch < 0:
            image = self.crops.whole(pixels)
        else:
            image = self.crops.cut(pixels, np.random.default_rng([self.seed, epoch, index]))
        target = np.zeros(self.num_classes, np.float32)
        target[list(sample.tags)] = 1
        return torch.from_numpy(image), torch.from_numpy(target)

    def _readable(self, index: int) -> tuple[Sample, UInt8[ndarray, "h w 3"]]:
        reasons = []
        for step in range(min(len(self.samples), 20)):
            sample = self.samples[(index + step) % len(self.samples)]
            try:
                return sample, decode_image(read_file(sample.path)).pixels
            except ImageError as error:
                reasons.append(f"{sample.path}: {error}")
        raise ImageError(f"{len(reasons)} images in a row cannot be read, such as {reasons[0]}")


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """This worker's share of each global batch of one epoch, in an order drawn from the seed.

    Attributes:
        size: images in a global batch; a rest that does not fill one is left out (drop_last).
    """

    def __init__(
        self, num_samples: int, size: int, epoch: int, seed: int, rank: int = 0, world: int = 1
    ):
        if size % world:
            raise ValueError(f"batch size must divide by {world} workers, got {size}")
        if num_samples < size:
            raise ValueError(f"batch size must be at most the {num_samples} images, got {size}")
        self.num_samples, self.size, self.epoch, self.seed = num_samples, size, epoch, seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.num_samples // self.size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.num_samples)
        for start in range(0, len(self) * self.size, self.size):
            batch = order[start : start + self.size]
            yield [(self.epoch, int(index)) for index in batch[self.rank :: self.world]]


def training_batches(
    crops: TaggedCrops, order: EpochOrder, loader_workers: int = 0
) -> DataLoader[Any]:
    """The batches of one epoch for one worker; `loader_workers` processes decode ahead."""
    return DataLoader(crops, batch_sampler=order, num_workers=loader_workers)


def evaluation_batches(crops: TaggedCrops, size: int, loader_workers: int = 0) -> DataLoader[Any]:
    """Every image once, whole, in order."""
    keys = [(-1, index) for index in range(len(crops))]
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    return DataLoader(crops, batch_sampler=batches, num_workers=loader_workers)
