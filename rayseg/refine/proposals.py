"""Mask proposals of one image, in a form that takes little memory and is quick to count in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from jaxtyping import Bool, Int32, Int64, Integer
from numpy import ndarray


@dataclass(frozen=True)
class Proposals:
    """Mask proposals of one image, held by their cells: pixels that the same proposals hold.

    A bool a pixel of each would take gigabytes for a photo.

    Attributes:
        cells: number of each pixel's cell, from 0 without a gap.
        holds: whether a proposal holds a cell; no two columns are equal.
    """

    cells: Int32[ndarray, "h w"]
    holds: Bool[ndarray, "p cells"]

    @classmethod
    def of_masks(cls, masks: Iterable[Bool[ndarray, "h w"]], size_hw: tuple[int, int]) -> Self:
        """Proposals that are masks; they are gone through twice, one mask at a time."""
        # exclusive or of one random number a proposal: two cells of 10^5 collide once in 10^9
        # images, while sorting columns of p bits takes seconds
        random, sums = np.random.default_rng(0), np.zeros(size_hw, np.uint64)
        for mask in masks:
            key = random.integers(0, 2**64, dtype=np.uint64)
            np.bitwise_xor(sums, key, out=sums, where=mask)
        _, first, cells = np.unique(sums, return_index=True, return_inverse=True)
        holds = np.array([mask.ravel()[first] for mask in masks], bool).reshape(-1, len(first))
        return cls(cells.astype(np.int32).reshape(size_hw), holds)

    @classmethod
    def of_groups(
        cls, superpixels: Integer[ndarray, "h w"], groups: Sequence[Sequence[int] | ndarray]
    ) -> Proposals:
        """Proposals that are groups of superpixels, which may be of any number."""
        numbers, places = np.unique(superpixels, return_inverse=True)
        chosen = np.zeros((len(groups), int(numbers[-1]) + 1), bool)
        for row, group in zip(chosen, groups, strict=True):
            row[group] = True
        merged = cls.of_masks(chosen[:, numbers], numbers.shape)
        return replace(merged, cells=merged.cells[places].reshape(superpixels.shape))

    def __len__(self) -> int:
        return len(self.holds)

    def __getitem__(self, place: int) -> Bool[ndarray, "h w"]:
        return self.holds[place][self.cells]

    def sums(self, counts: Int64[ndarray, " cells"]) -> Int64[ndarray, " p"]:
        """What is counted in the cells of each proposal."""
        return np.array([counts[own].sum() for own in self.holds], np.int64)
