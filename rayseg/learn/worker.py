"""Those who train together, each on its share of every batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def _unwrapped(network: nn.Module, **options: Any) -> nn.Module:
    return network


def _unheard(facts: Mapping[str, Any]) -> None:
    pass


@dataclass(frozen=True)
class Worker:
    """One of those who train together; alone by default, which needs no Ray.

    Attributes:
        rank: of this worker, from 0.
        world: number of workers.
        device: that it trains on.
        wrap: the network as it is trained by several, its gradients averaged over them; takes
            options of torch's DistributedDataParallel.
        report: says progress to whoever watches; all workers call it at the same steps.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")
    wrap: Callable[..., nn.Module] = _unwrapped
    report: Callable[[Mapping[str, Any]], None] = _unheard

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of what each worker has."""
        if self.world == 1:
            return tensor
        tensor = tensor.clone()
        torch.distributed.all_reduce(tensor)
        return tensor

    def gather(self, share: Any) -> list[Any]:
        """What each worker has, in their order."""
        if self.world == 1:
            return [share]
        shares: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(shares, share)
        return shares
