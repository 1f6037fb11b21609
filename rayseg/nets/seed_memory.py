"""Seeds that stay grown from one visit of an image to the next."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Int16, UInt8
from torch import Tensor, nn

_UNSEEN = -1
Visit = tuple[int, int, bool, UInt8[Tensor, "h w"]]
"""Place in the batch of all workers, number of the image, whether it is mirrored, its seeds."""


def _alone(share: Any) -> list[Any]:
    return [share]


class SeedMemory(nn.Module):
    """Grown seeds by the image's number; they travel with the state of the network it is part of.

    What is kept of an image lies as the image does, not mirrored.

    Attributes:
        gather: gives what each worker has; all then keep the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: dict[int, UInt8[Tensor, "h w"]] = {}
        self.gather: Callable[[Any], list[Any]] = _alone

    def recall(
        self, number: int, mirrored: bool, cues: UInt8[Tensor, "h w"]
    ) -> UInt8[Tensor, "h w"]:
        """The seeds that an image was left with, at its first visit the cues."""
        kept = self._kept.get(number)
        return cues if kept is None else _turned(kept, mirrored)

    def keep(self, visits: Iterable[Visit]) -> None:
        """Takes the seeds of all workers' images; of one that comes twice the last."""
        shares = self.gather(list(visits))
        every = (visit for share in shares for visit in share)
        for _, number, mirrored, seeds in sorted(every, key=lambda visit: visit[0]):
            self._kept[number] = _turned(seeds, mirrored)

    def get_extra_state(self) -> Int16[Tensor, "m h w"]:
        """All seeds, -1 for images that were not visited."""
        if not self._kept:
            return torch.zeros(0, 0, 0, dtype=torch.int16)
        shape = next(iter(self._kept.values())).shape
        planes = torch.full((max(self._kept) + 1, *shape), _UNSEEN, dtype=torch.int16)
        for number, seeds in self._kept.items():
            planes[number] = seeds
        return planes

    def set_extra_state(self, state: Int16[Tensor, "m h w"]) -> None:
        """Takes what `get_extra_state` gave."""
        self._kept = {
            number: seeds.to(torch.uint8)
            for number, seeds in enumerate(state.cpu())
            if (seeds != _UNSEEN).all()
        }


def _turned(plane: UInt8[Tensor, "h w"], mirrored: bool) -> UInt8[Tensor, "h w"]:
    return plane.flip(1) if mirrored else plane
