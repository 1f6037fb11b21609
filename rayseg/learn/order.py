"""Which images make which batch, and which worker takes which of them."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochOrder(Sampler[list[tuple[int, int]]]):
    """This worker's share of each global batch of one epoch, in an order drawn from the seed.

    Attributes:
        size: images in a global batch; a rest that does not fill one is left out (drop_last).
        first: batch of the epoch to start at.
    """

    def __init__(
        self,
        num_samples: int,
        size: int,
        epoch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        first: int = 0,
    ):
        _check_shares(size, world)
        if num_samples < size:
            raise ValueError(f"batch size must be at most the {num_samples} images, got {size}")
        self.num_samples, self.size, self.epoch, self.seed = num_samples, size, epoch, seed
        self.rank, self.world, self.first = rank, world, first

    def __len__(self) -> int:
        return self.num_samples // self.size - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = _permutation(self.num_samples, self.epoch, self.seed)
        for number in range(self.first, self.num_samples // self.size):
            batch = order[number * self.size : (number + 1) * self.size]
            yield [(self.epoch, index) for index in batch[self.rank :: self.world]]


class DrawOrder(Sampler[list[tuple[int, int]]]):
    """This worker's share of the micro-batches of a training that is counted in iterations.

    Images are drawn from an endless row of permutations, one an epoch, and a micro-batch may cross
    from one to the next: nothing is left out. A key is (draw, index): the place in that row, and
    the image at that place. What a micro-batch holds follows from its number alone.

    Attributes:
        num_samples: images to draw from; may be fewer than fill a micro-batch.
        size: images in a micro-batch of all workers together; this worker takes every `world`-th.
        first: micro-batch to start at, counted over the whole training.
        stop: micro-batch to end before.

    Raises:
        ValueError: no image, a size that workers cannot share, or an end before the start.
    """

    def __init__(
        self,
        num_samples: int,
        size: int,
        first: int,
        stop: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ):
        _check_shares(size, world)
        if num_samples < 1:
            raise ValueError(f"there must be at least 1 image to draw from, got {num_samples}")
        if not 0 <= first <= stop:
            raise ValueError(f"micro-batches must run from 0 or later to a stop, got {first, stop}")
        self.num_samples, self.size, self.first, self.stop = num_samples, size, first, stop
        self.seed, self.rank, self.world = seed, rank, world

    def __len__(self) -> int:
        return self.stop - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        at, order = -1, []
        for batch in range(self.first, self.stop):
            share = []
            start = batch * self.size
            for draw in range(start + self.rank, start + self.size, self.world):
                epoch, place = divmod(draw, self.num_samples)
                if epoch != at:
                    at, order = epoch, _permutation(self.num_samples, epoch, self.seed)
                share.append((draw, order[place]))
            yield share


def _check_shares(size: int, world: int) -> None:
    if size < 1 or size % world:
        raise ValueError(f"batch size must divide by {world} workers, got {size}")


def _permutation(num_samples: int, epoch: int, seed: int) -> list[int]:
    return np.random.default_rng([seed, epoch]).permutation(num_samples).tolist()
