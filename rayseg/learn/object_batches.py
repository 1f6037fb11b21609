"""Whole images with their objects for the training of detectors and Mask R-CNNs."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rayseg.labels import ObjectLabels, ObjectTargets, Targets
from rayseg.learn.batches import make_loader
from rayseg.learn.order import DrawOrder
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.store import read_pixels

logger = logging.getLogger(__name__)

_TRIES = 20


class ObjectImages(Dataset[tuple[Tensor, Targets, str]]):
    """Images as uint8 (3, h, w), their objects and ids; a key is (draw, index) as in `DrawOrder`.

    Images keep their size, since the networks resize them, and stay levels, a quarter of what
    floats would take to a device. An image that cannot be read, is of another size than its boxes
    were drawn in, or has stored masks of another size is replaced by the next one.

    Raises:
        ValueError: a sample has no labels.
        ImageError: when read, all of an image's neighbours are unusable too.
    """

    def __init__(self, samples: Sequence[Sample], labels: ObjectLabels, flip: bool, seed: int):
        missing = [sample.id for sample in samples if sample.id not in labels.ids]
        if missing:
            raise ValueError(
                f"all {len(samples)} images must have objects to learn, {len(missing)} have none, "
                f"such as {missing[0]!r}"
            )
        self.samples, self.labels, self.flip, self.seed = samples, labels, flip, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Targets, str]:
        draw, index = key
        sample, pixels, targets = self._usable(index)
        if self.flip and np.random.default_rng([self.seed, draw]).random() < 0.5:
            pixels, targets = pixels[:, ::-1], targets.mirrored(sample.width)
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))  # (3, h, w)
        return torch.from_numpy(planes), targets.as_tensors(), sample.id

    def _usable(self, index: int) -> tuple[Sample, UInt8[ndarray, "h w 3"], ObjectTargets]:
        """The image of that index, or the next one that can be used."""
        reasons = []
        for step in range(min(len(self.samples), _TRIES)):
            sample = self.samples[(index + step) % len(self.samples)]
            try:
                return sample, _fitting_pixels(sample), self.labels.read(sample)
            except ValueError as error:
                reasons.append(f"{sample.path}: {error}")
                logger.warning("another image trains in its place: %s", reasons[-1])
        raise ImageError(f"{len(reasons)} images in a row cannot be used, such as {reasons[0]}")


def _fitting_pixels(sample: Sample) -> UInt8[ndarray, "h w 3"]:
    """The image, of the size that the manifest says.

    Raises:
        ImageError: it cannot be read, or is of another size.
    """
    pixels = read_pixels(sample)
    if pixels.shape[:2] != (sample.height, sample.width):
        raise ImageError(
            f"image must be {(sample.height, sample.width)} as in the manifest, "
            f"got {pixels.shape[:2]}"
        )
    return pixels


def object_batches(
    images: ObjectImages, order: DrawOrder, loader_workers: int = 0
) -> DataLoader[Any]:
    """The batches of one worker, as lists of images, targets and ids, in order."""
    return make_loader(images, order, loader_workers, _as_lists)


def _as_lists(
    items: Sequence[tuple[UInt8[Tensor, "3 h w"], Targets, str]],
) -> tuple[list[UInt8[Tensor, "3 h w"]], list[Targets], list[str]]:
    planes, targets, ids = zip(*items, strict=True)
    return list(planes), list(targets), list(ids)
