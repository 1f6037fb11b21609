"""Trials of refiners that walk on the output of a network: one walk an image for many settings."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rayseg.labels import enlarge
from rayseg.refine.network_refiner import NetworkRefiner, Prepared
from rayseg.scores import Confusion
from rayseg.stages.trials import Figures, TrialImage


class WalkTrial:
    """Mean IoU of the masks of a refiner for each value that is read off its walk.

    Args:
        refiner: with its network, which is called once an image.
        variants: the refiner with each of these values.
        read: the values that each variant has, such as ``{"log_steps": 8}``.
        over: labels of the mean; empty for all that the truth or the labels hold.
    """

    def __init__(
        self,
        refiner: Prepared,
        variants: Sequence[NetworkRefiner],
        read: Sequence[Mapping[str, float]],
        num_classes: int,
        over: Sequence[int] = (),
    ):
        self.refiner, self.variants, self.read = refiner, variants, read
        self.num_classes, self.over = num_classes, list(over)

    def zeros(self) -> Int64[ndarray, "t c+1 c+1"]:
        """A confusion for each variant."""
        one = Confusion.zeros(self.num_classes).counts
        return np.zeros((len(self.variants), *one.shape), np.int64)

    def count(self, image: TrialImage) -> Int64[ndarray, "t c+1 c+1"]:
        """The confusions of one image."""
        if image.seeds is None:
            raise ValueError(f"image {image.id!r} must come with stored maps, got none")
        maps, classes = enlarge(image.seeds), image.seeds.classes
        made = self.refiner.course(image.pixels, maps, classes, self.variants)
        return np.stack(
            [Confusion.of(image.truth, labels, self.num_classes).counts for labels in made]
        )

    def figures(self, counts: Int64[ndarray, "t c+1 c+1"]) -> Figures:
        """``miou`` for each value that was read off."""
        means = [Confusion(own).mean_iou(self.over or None) for own in counts]
        pairs = zip(self.read, means, strict=True)
        return [{**read, "miou": float(np.nan_to_num(mean))} for read, mean in pairs]
