"""Cues that a segmenter grows its labels from: the confident pixels of maps, or given masks."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from rayseg.labels.enlarging import enlarge
from rayseg.labels.masks import LabelSource, StoredRows
from rayseg.records import BACKGROUND, IGNORE, Sample, Seeds
from rayseg.store import Folder, unpack_seeds


@dataclass(frozen=True)
class Cues:
    """Labels of few pixels, with the tags that say what else they may grow into.

    Attributes:
        source: of the labels, 255 where there is no cue.
    """

    source: LabelSource

    @property
    def ids(self) -> Set[str]:
        """Of the images that have labels."""
        return self.source.ids

    def name(self, id_: str) -> str:
        """What an error calls the cues of an image, with their file."""
        return self.source.name(id_)

    def content(self, sample: Sample) -> bytes:
        """What is learnt of an image, to be compared: the classes as well."""
        return self.source.content(sample) + repr(sorted(sample.tags)).encode()

    def read(self, id_: str, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The cues of an image of that size; see `LabelSource`."""
        return self.source.read(id_, size_hw)

    @property
    def of_maps(self) -> bool:
        """Whether they are read off maps; masks are cues as they are."""
        return isinstance(self.source, ConfidentPixels)

    def sure(self, foreground: float, background: float) -> Cues:
        """The same with other thresholds, where maps are what they are read off."""
        if not isinstance(self.source, ConfidentPixels):
            return self
        return Cues(self.source.sure(foreground, background))


class ConfidentPixels(StoredRows):
    """The pixels of a run's localization maps that are surely of a class or of background.

    Args:
        folder: shards of SEEDS_SCHEMA.
        foreground: value above which a pixel is of the class whose map is highest there.
        background: value that no map exceeds where a pixel is of background.

    Raises:
        FileNotFoundError: the folder has no shard.
        ValueError: its shards are not of maps.
    """

    def __init__(self, folder: Folder, foreground: float = 0.35, background: float = 0.15):
        super().__init__(folder, ["height", "width", "classes", "maps"], "map")
        self.foreground, self.background = foreground, background

    def sure(self, foreground: float, background: float) -> ConfidentPixels:
        """The same maps with other thresholds."""
        return ConfidentPixels(self.folder, foreground, background)

    def read(self, id_: str, size_hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
        """The sure pixels of an image of that size.

        Raises:
            ValueError: the maps are missing or of an image of another size.
        """
        seeds = unpack_seeds(self.row(id_))
        if seeds.size_hw != size_hw:
            raise ValueError(f"{self.name(id_)} must be of {size_hw}, got {seeds.size_hw}")
        return sure_labels(seeds, self.foreground, self.background)


def sure_labels(seeds: Seeds, foreground: float, background: float) -> UInt8[ndarray, "h w"]:
    """Class index + 1 where a map exceeds `foreground`, 0 where none exceeds `background`, or 255.

    Where several do, the highest counts. An image of no class is background everywhere, as every
    refiner has it.
    """
    maps = enlarge(seeds)
    if not len(maps):
        return np.full(seeds.size_hw, BACKGROUND, np.uint8)
    labels = np.full(seeds.size_hw, IGNORE, np.uint8)
    peaks = maps.max(0)
    sure = peaks > foreground
    values = np.array([one + 1 for one in seeds.classes], np.uint8)
    labels[peaks <= background] = BACKGROUND
    labels[sure] = values[maps.argmax(0)][sure]
    return labels
