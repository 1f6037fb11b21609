import numpy as np
import pytest

from rayseg.records.pairs import pixel_pairs
from tests.reference import pairs_literal as literal


@pytest.mark.parametrize(("radius", "number"), [(5, 34), (10, 152), (2, 4)])
def test_there_are_as_many_pairs_as_in_irns_code(radius, number):
    assert len(pixel_pairs(radius).offsets_yx) == number


@pytest.mark.parametrize("radius", [2, 3, 5, 10])
def test_pairs_are_the_half_disc_and_paths_the_cells_near_the_line(radius):
    found = pixel_pairs(radius)
    offsets = [tuple(map(int, one)) for one in found.offsets_yx]
    assert len(set(offsets)) == len(offsets)
    assert set(offsets) == literal.pairs(radius)
    for offset, path in zip(offsets, found.paths, strict=True):
        cells = [tuple(map(int, one)) for one in path]
        assert (cells[0], cells[-1]) == (offset, (0, 0))
        assert len(set(cells)) == len(cells)
        assert set(cells) == literal.path(offset)


def test_groups_hold_paths_of_one_length_in_the_order_of_the_offsets():
    found = pixel_pairs(10)
    targets = np.concatenate([group[:, 0] for group in found.path_groups])
    np.testing.assert_array_equal(targets, found.offsets_yx)
    lengths = [group.shape[1] for group in found.path_groups]
    assert lengths == sorted(set(lengths))


def test_sources_are_irns_13090_and_all_their_targets_lie_in_the_grid():
    found = pixel_pairs(10)
    grid = np.arange(128 * 128).reshape(128, 128)
    window = found.sources((128, 128))
    sources = grid[window]
    assert sources.size == 13090
    for down, right in found.offsets_yx:
        targets = grid[found.shifted(window, (down, right))]
        np.testing.assert_array_equal(targets, sources + down * 128 + right)


@pytest.mark.parametrize("size", [(3, 40), (40, 8), (4, 8), (1, 1)])
def test_a_grid_smaller_than_the_radius_has_no_source(size):
    assert np.zeros(size)[pixel_pairs(5).sources(size)].size == 0


@pytest.mark.parametrize("size", [(9, 7), (1, 1), (2, 9), (9, 2)])
def test_pixels_inside_are_those_whose_target_is(size):
    found = pixel_pairs(5)
    for down, right in found.offsets_yx:
        marked = np.zeros(size, bool)
        marked[found.inside(size, (down, right))] = True
        for y, x in np.ndindex(size):
            assert marked[y, x] == (y + down < size[0] and 0 <= x + right < size[1])


def test_pairs_are_made_once_and_cannot_be_changed():
    found = pixel_pairs(5)
    assert pixel_pairs(5) is found
    with pytest.raises(ValueError, match="read-only"):
        found.offsets_yx[0] = 7


@pytest.mark.parametrize("radius", [1, 0, -3])
def test_a_radius_without_a_pair_is_refused(radius):
    with pytest.raises(ValueError, match="radius must be 2 or more"):
        pixel_pairs(radius)
