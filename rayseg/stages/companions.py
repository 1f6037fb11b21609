"""The bank of companions: crops of tagged images, cut once and shared by all that draw from it."""

import hashlib
import logging
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from rayseg.attribution import Companions
from rayseg.learn import Crops
from rayseg.records import Sample
from rayseg.records.images import ImageError
from rayseg.store import read_pixels

logger = logging.getLogger(__name__)

Cut = tuple[UInt8[ndarray, "s s 3"], tuple[int, int, int, int]]


@dataclass(frozen=True)
class CompanionBank:
    """Which crops of which images a method finds its companions among.

    The public code of RIB cuts new crops at each step; ours are cut once, so that a step costs no
    decoding, and a method that takes twenty a step sees each of five hundred once in 25 steps.

    Attributes:
        images: Crops in the bank, one an image; with fewer tagged images it has them all.
        split: Split that the crops are cut from; empty is all images.
        crops: How each image is cut.
        seed: Seed of the choice and of the crops.
    """

    images: int = 500
    split: str = "train"
    crops: Crops = Crops()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images must be 1 or more, got {self.images}")


def fill_bank(samples: Iterable[Sample], num_classes: int, bank: CompanionBank) -> Companions:
    """Cuts a bank from tagged images, drawn without replacement.

    Which images and which crops follows from the seed and the ids alone, so that every machine cuts
    the same bank. An image that cannot be read is passed over and the next one drawn.

    Args:
        samples: in any order; those without tags are passed over, since nobody knows what their
            logits ought to be.
    """
    tagged = sorted((sample for sample in samples if sample.tags), key=lambda one: one.id)
    if not tagged:
        raise ValueError("companions must be cut from tagged images, got no image with a tag")
    order = np.random.default_rng(bank.seed).permutation(len(tagged)).tolist()
    size, side = min(bank.images, len(tagged)), bank.crops.crop
    pixels = np.zeros((size, side, side, 3), np.uint8)
    boxes_yxyx = np.zeros((size, 4), np.int64)
    chosen: list[Sample] = []
    with ThreadPoolExecutor(max_workers=8) as pool:  # a remote store answers slowly
        while order and len(chosen) < size:
            missing = size - len(chosen)
            drawn, order = [tagged[i] for i in order[:missing]], order[missing:]
            for sample, cut in zip(drawn, pool.map(partial(_cut, bank), drawn), strict=True):
                if cut is not None:
                    pixels[len(chosen)], boxes_yxyx[len(chosen)] = cut
                    chosen.append(sample)
    if not chosen:
        raise ValueError(f"companions must be images that can be read, got none in {len(tagged)}")
    tags = np.zeros((len(chosen), num_classes), bool)
    for row, sample in zip(tags, chosen, strict=True):
        row[list(sample.tags)] = True
    arrays = (pixels[: len(chosen)], boxes_yxyx[: len(chosen)], tags)
    return Companions(tuple(sample.id for sample in chosen), *map(torch.from_numpy, arrays))


def _cut(bank: CompanionBank, sample: Sample) -> Cut | None:
    """The crop of one image; None where it cannot be read."""
    try:
        pixels = read_pixels(sample)
    except ImageError as error:
        logger.warning("no companion from %s: %s", sample.path, error)
        return None
    digest = hashlib.blake2b(f"{bank.seed}/{sample.id}".encode(), digest_size=8).digest()
    return bank.crops.cut_levels(pixels, np.random.default_rng(int.from_bytes(digest, "big")))


@dataclass(frozen=True)
class CompanionArrays:
    """Companions as arrays, which travel between processes through shared memory without a copy.

    Attributes:
        ids: as `Companions` has them, like all that follow.
        pixels: RGB, 0 to 255.
        boxes_yxyx: where each crop holds image.
        tags: which classes each image has.
    """

    ids: tuple[str, ...]
    pixels: UInt8[ndarray, "m s s 3"]
    boxes_yxyx: Int[ndarray, "m 4"]
    tags: Bool[ndarray, "m c"]

    @classmethod
    def of(cls, companions: Companions) -> Self:
        """The same bank on the same memory."""
        parts = (companions.pixels, companions.boxes_yxyx, companions.tags)
        return cls(companions.ids, *(part.numpy() for part in parts))

    def companions(self) -> Companions:
        """The same bank on the same memory, which may be read-only: nobody writes to companions."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            parts = [torch.from_numpy(part) for part in (self.pixels, self.boxes_yxyx, self.tags)]
        return Companions(self.ids, *parts)
