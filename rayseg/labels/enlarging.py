"""Stored localization maps at the size of their image."""

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch.nn import functional

from rayseg.records import Seeds
from rayseg.store import MAP_STRIDE


def enlarge(seeds: Seeds) -> Float[ndarray, "k h w"]:
    """The maps at the image's size, bilinear; stored cells lie over the pixels they came from."""
    if not seeds.classes:
        return np.zeros((0, *seeds.size_hw), np.float32)
    grown = functional.interpolate(
        torch.from_numpy(seeds.maps)[None],
        scale_factor=MAP_STRIDE,
        mode="bilinear",
        align_corners=False,
    )[0]
    return np.ascontiguousarray(grown[:, : seeds.size_hw[0], : seeds.size_hw[1]].numpy())
