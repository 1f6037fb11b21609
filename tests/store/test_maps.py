"""Maps as bytes."""

import numpy as np
import pytest

from rayseg.store import MASKS_SCHEMA, VIEW_STRIDES, WALKED_SCHEMA, pack_maps, unpack_seeds


@pytest.mark.parametrize("k", [0, 1, 2])
def test_maps_come_back_to_within_half_a_grey_value(k):
    maps = np.random.default_rng(0).random((k, 5, 7), dtype=np.float32)
    row = {"id": "a", "height": 19, "width": 27, "classes": list(range(k)), "maps": pack_maps(maps)}
    back = unpack_seeds(row)
    assert back.maps.shape == (k, 5, 7)
    assert abs(back.maps - maps).max(initial=0) <= 1 / 510 + 1e-6


def test_the_ends_of_the_range_are_exact():
    maps = np.array([[[0, 1]]], np.float32)
    row = {"id": "a", "height": 1, "width": 5, "classes": [0], "maps": pack_maps(maps)}
    assert unpack_seeds(row).maps.tolist() == maps.tolist()


def test_every_column_of_a_walk_has_its_stride():
    assert WALKED_SCHEMA.names == [*MASKS_SCHEMA.names, *VIEW_STRIDES]
