"""Samples to crops with their targets, and crops to batches."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from rayseg.labels import LabelSource, read_trainable
from rayseg.learn.crops import Crops, PairCrops, SegmentationCrops, WarpedImages
from rayseg.learn.order import DrawOrder, EpochOrder
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.store import read_pixels

logger = logging.getLogger(__name__)

_TRIES = 20


class TaggedCrops(Dataset[tuple[Tensor, Tensor, str]]):
    """Crops, 0/1 targets and ids of samples; a key is (epoch, index), epoch -1 asking for no crop.

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

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        epoch, index = key
        sample, pixels = _readable(self.samples, index)
        if epoch < 0:
            image = self.crops.whole(pixels)
        else:
            image = self.crops.cut(pixels, np.random.default_rng([self.seed, epoch, index]))
        target = np.zeros(self.num_classes, np.float32)
        target[list(sample.tags)] = 1
        return torch.from_numpy(image), torch.from_numpy(target), sample.id


class LabelledCrops(Dataset[tuple[Tensor, Tensor, str]]):
    """Crops, their labels and the ids of samples; a key is (draw, index), as `DrawOrder` has it.

    Raises:
        ValueError: a sample has no labels; when read, its labels are not of its image's size or
            cannot be learnt from.
        ImageError: when read, as `TaggedCrops` has it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        labels: LabelSource,
        crops: SegmentationCrops | PairCrops | WarpedImages,
        seed: int,
    ):
        missing = [sample.id for sample in samples if sample.id not in labels.ids]
        if missing:
            raise ValueError(
                f"all {len(samples)} images must have labels, {len(missing)} have none, such as "
                f"{labels.name(missing[0])}"
            )
        self.samples = samples
        self.labels = labels
        self.crops = crops
        self.seed = seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        draw, index = key
        sample, pixels = _readable(self.samples, index)
        height, width, _ = pixels.shape
        try:
            labels = read_trainable(self.labels, sample.id, (height, width))
        except ValueError as error:
            raise ValueError(f"{sample.path}: {error}") from None
        cut = self.crops.cut(pixels, labels, np.random.default_rng([self.seed, draw]))
        return torch.from_numpy(cut[0]), torch.from_numpy(cut[1]), sample.id


def _readable(samples: Sequence[Sample], index: int) -> tuple[Sample, UInt8[ndarray, "h w 3"]]:
    """The sample of that index, or the next one whose image can be read."""
    reasons = []
    for step in range(min(len(samples), _TRIES)):
        sample = samples[(index + step) % len(samples)]
        try:
            return sample, read_pixels(sample)
        except ImageError as error:
            reasons.append(f"{sample.path}: {error}")
            logger.warning("another image trains in its place: %s", reasons[-1])
    raise ImageError(f"{len(reasons)} images in a row cannot be read, such as {reasons[0]}")


def make_loader(
    data: Dataset[Any],
    batches: Iterable[list[Any]],
    workers: int,
    collate: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """A loader of batches of keys; `workers` processes decode ahead, one a core at most.

    More would only take each other's turns, which torch warns of. The batches are the same.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return DataLoader(
        data, batch_sampler=batches, num_workers=min(workers, cores), collate_fn=collate
    )


def training_batches(
    crops: TaggedCrops, order: EpochOrder, loader_workers: int = 0
) -> DataLoader[Any]:
    """The batches of one epoch for one worker; `loader_workers` processes decode ahead."""
    return make_loader(crops, order, loader_workers, _with_ids)


def evaluation_batches(
    crops: TaggedCrops, size: int, loader_workers: int = 0, rank: int = 0, world: int = 1
) -> DataLoader[Any]:
    """Every image of this worker's share once, whole, in order."""
    keys = [(-1, index) for index in range(rank, len(crops), world)]
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    return make_loader(crops, batches, loader_workers, _with_ids)


def labelled_batches(
    crops: LabelledCrops, order: DrawOrder, loader_workers: int = 0
) -> DataLoader[Any]:
    """The micro-batches of one worker, as (images, labels, ids), in order."""
    return make_loader(crops, order, loader_workers, _with_ids)


def _with_ids(
    items: list[tuple[Tensor, Tensor, str]],
) -> tuple[Float[Tensor, "n 3 s s"], Tensor, list[str]]:
    images, labels, ids = zip(*items, strict=True)
    return torch.stack(images), torch.stack(labels), list(ids)
