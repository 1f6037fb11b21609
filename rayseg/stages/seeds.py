"""Localization maps of images by an attribution method."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from rayseg.attribution import Attribution, Companions, Localization, OnRIB
from rayseg.networks import NETWORKS
from rayseg.stages.rows import Row, Rows, choose_device, in_sizes, outcome, stack_pixels
from rayseg.store import MAP_STRIDE, local_copy, pack_maps


class MakeSeeds:
    """Decoded rows to rows of SEEDS_SCHEMA, by one attribution method on one network.

    Args:
        companions: gives the bank; asked once, and only by a method that uses companions.

    Raises:
        ValueError: the weights are of another network or other classes.
    """

    def __init__(
        self,
        method: Attribution | OnRIB,
        weights: str,
        classes: Sequence[str],
        device: str = "auto",
        threads: int = 0,
        companions: Callable[[], Companions] | None = None,
    ):
        if threads:
            torch.set_num_threads(threads)
        self.method = method
        network = NETWORKS[method.network_kind].load(local_copy(weights), classes)
        bank = companions() if companions and method.uses_companions else None
        self.network = method.prepare(network, choose_device(device), bank)

    def __call__(self, rows: Rows) -> Rows:
        """Runs the method on images of one size at a time; rows come back in their order."""
        return in_sizes(rows, self._localize, "seeds")

    def _localize(self, rows: Rows) -> Rows:
        """Seeds of images of one size."""
        found = self.method.run(
            self.network,
            stack_pixels(rows),
            [row["classes"] for row in rows],
            MAP_STRIDE,
            [row["id"] for row in rows],
        )
        return [_seeds_row(row, one) for row, one in zip(rows, found, strict=True)]


def _seeds_row(row: Row, found: Localization) -> Row:
    maps = found.maps.cpu().numpy()
    if not np.isfinite(maps).all():
        raise FloatingPointError("maps must be finite, got nan or infinity")
    return outcome(row) | {
        "status": "ok",
        "note": "; ".join(filter(None, [row["note"], found.note])),
        "classes": row["classes"],
        "maps": pack_maps(maps),
        "scores": found.scores.tolist(),
        "gains": found.gains.tolist(),
        "steps": found.steps,
    }
