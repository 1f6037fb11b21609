"""Relative positions on shapes whose answers are known."""

from functools import reduce
from operator import add

import numpy as np
import pytest

from rayseg.analyses.boxes import PositionCounts, head_positions, mask_contour, relative_positions


def radii(positions):
    return np.hypot(*positions.T)


def test_contour_pixels_lie_at_one(disc):
    np.testing.assert_allclose(radii(relative_positions(mask_contour(disc), disc)), 1)


def test_the_centroid_lies_at_zero(disc):
    np.testing.assert_allclose(relative_positions(np.array([[40.0, 30.0]]), disc), 0, atol=1e-12)


def test_on_the_axes_of_a_square_it_is_the_share_of_half_its_side():
    """The nearest pixel of the rim lies ahead, so that r1 + r2 = 20."""
    mask = np.zeros((61, 81), bool)
    mask[10:51, 20:61] = True
    steps = np.arange(21)
    right = relative_positions(np.stack([40.0 + steps, np.full(21, 30.0)], 1), mask)
    np.testing.assert_allclose(right, np.stack([steps / 20, 0 * steps], 1), atol=1e-12)
    down = relative_positions(np.array([[40.0, 45.0]]), mask)
    np.testing.assert_allclose(down, [[0, 0.75]], atol=1e-12)


def test_in_a_disc_it_is_about_the_share_of_the_radius(disc):
    y, x = np.nonzero(disc)
    found = radii(relative_positions(np.stack([x, y], 1).astype(float), disc))
    # pixels of the contour lie up to one inside of the circle
    np.testing.assert_allclose(found, np.hypot(x - 40, y - 30) / 20, atol=0.06)


def test_outside_it_falls_again(disc):
    """20 to the contour and 10 from it: 30 / 40."""
    np.testing.assert_allclose(radii(relative_positions(np.array([[70.0, 30.0]]), disc)), 0.75)


def test_a_square_has_its_rim_as_contour():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:8] = True
    found = {tuple(point) for point in mask_contour(mask)}
    rim = {(x, y) for y in range(2, 7) for x in range(3, 8) if y in (2, 6) or x in (3, 7)}
    assert found == rim


def test_at_the_image_edge_there_is_a_contour():
    assert len(mask_contour(np.ones((4, 5), bool))) == 4 * 5 - 2 * 3


def test_distances_in_parts_are_the_same(disc, monkeypatch):
    points = np.argwhere(disc)[:, ::-1].astype(float)
    whole = relative_positions(points, disc)
    monkeypatch.setattr("rayseg.analyses.boxes.positions._DISTANCES_AT_ONCE", 1000)
    assert np.array_equal(relative_positions(points, disc), whole)


def test_only_pixels_above_the_threshold_have_a_position(disc):
    map_ = np.full(disc.shape, 0.9)
    map_[30, 40] = 0.91
    map_[30, 60] = 1.0
    np.testing.assert_allclose(head_positions(map_, disc), [[0, 0], [1, 0]], atol=1e-12)


def test_a_pixel_alone_is_its_own_centre():
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True
    assert head_positions(mask.astype(float), mask).tolist() == [[0, 0]]


def test_a_map_without_high_pixels_has_no_position(disc):
    found = head_positions(np.zeros(disc.shape), disc)
    assert found.shape == (0, 2)
    assert PositionCounts.of(found).near_share == 0


def test_counts_know_rim_from_core(disc):
    """A disc's rim is near the boundary, half its radius is not."""
    y, x = np.mgrid[:61, :81]
    core = ((x - 40) ** 2 + (y - 30) ** 2 <= 10**2).astype(float)
    rim = np.zeros(disc.shape)
    rim[tuple(mask_contour(disc)[:, ::-1].astype(int).T)] = 1
    assert PositionCounts.of(head_positions(core, disc)).near_share == 0
    assert PositionCounts.of(head_positions(rim, disc)).near_share == 1


def test_rows_of_the_density_run_downwards():
    counts = PositionCounts.of(np.array([[0.0, -1.0], [0.0, 0.0], [1.0, 0.0]]))
    assert np.argwhere(counts.density).tolist() == [[0, 20], [20, 20], [20, 40]]


def test_counts_of_parts_add_up_to_those_of_the_whole():
    positions = np.random.default_rng(0).uniform(-0.7, 0.7, (50, 2))
    whole = PositionCounts.of(positions)
    parts = [PositionCounts.of(some) for some in np.split(positions, 5)]
    total = reduce(add, parts, PositionCounts())
    assert total.figures() == whole.figures()
    assert total.density.sum() == total.pixels == 50


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="mask must have a pixel, got none"):
        head_positions(np.ones((3, 3)), np.zeros((3, 3), bool))


def test_a_map_of_another_size_is_refused(disc):
    with pytest.raises(ValueError, match=r"mask's size \(61, 81\), got \(3, 3\)"):
        head_positions(np.ones((3, 3)), disc)
