"""Maps as the bytes of grey PNGs."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from PIL import Image

from rayseg.records import Seeds

MAP_STRIDE = 4
"""Stored maps have ceil(h / 4) x ceil(w / 4) cells; cell i covers pixels 4i to 4i + 3."""
VIEW_STRIDES = {"edges": 4, "affinities": 8}
"""Image pixels of a cell of what a walk goes by, by its column of WALKED_SCHEMA.

Of an image that the network saw smaller a cell covers more.
"""


def pack_maps(maps: Float[ndarray, "k h w"]) -> list[bytes]:
    """Maps in [0, 1] as one grey PNG each, value = round(255 * map)."""
    packed = []
    for grey in np.rint(maps * 255).astype(np.uint8):
        sink = io.BytesIO()
        Image.fromarray(grey).save(sink, "png", compress_level=9)
        packed.append(sink.getvalue())
    return packed


def unpack_seeds(row: Mapping[str, Any]) -> Seeds:
    """A row of SEEDS_SCHEMA as a record; its maps are those of `pack_maps` to within 1/510."""
    size_hw = (row["height"], row["width"])
    cells = [-(-side // MAP_STRIDE) for side in size_hw]
    planes = [np.asarray(Image.open(io.BytesIO(data))) for data in row["maps"]]
    stacked = np.stack(planes) if planes else np.zeros((0, *cells), np.uint8)
    return Seeds(row["id"], tuple(row["classes"]), stacked.astype(np.float32) / 255, size_hw)


def unpack_grid(data: bytes) -> Float[ndarray, "y x"]:
    """One map of `pack_maps` in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(data))).astype(np.float32) / 255
