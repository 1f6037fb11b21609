import numpy as np
import pytest
from pycocotools import mask as codec
from scipy import ndimage

from rayseg.export.polygons import mask_polygons, polygons_iou
from rayseg.records.rle import decode_mask


def drawn(polygons, size_hw):
    return decode_mask(codec.merge(codec.frPyObjects(polygons, *size_hw))["counts"], size_hw)


def enclosed(polygons, size_hw):
    """Pixels whose middle lies in any polygon, by counting crossed edges."""
    inside = np.zeros(size_hw, bool)
    for polygon in polygons:
        points = np.array(polygon).reshape(-1, 2)
        for y in range(size_hw[0]):
            for x in range(size_hw[1]):
                crossings = 0
                for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
                    if (y1 > y + 0.5) != (y2 > y + 0.5):
                        crossings += x + 0.5 < x1 + (y + 0.5 - y1) * (x2 - x1) / (y2 - y1)
                inside[y, x] |= crossings % 2 == 1
    return inside


@pytest.mark.parametrize("seed", range(5))
def test_noise_with_holes_and_pieces_comes_back_exactly(seed):
    mask = np.random.default_rng(seed).random((17, 23)) < (0.2, 0.5, 0.8, 0.95, 0.6)[seed]
    polygons = mask_polygons(mask)
    np.testing.assert_array_equal(drawn(polygons, mask.shape), mask)
    np.testing.assert_array_equal(enclosed(polygons, mask.shape), mask)
    assert polygons_iou(polygons, mask) == 1


def test_blobs_come_back_exactly_and_with_fewer_points_nearly():
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.random((80, 100)), 4)
    mask = noise > np.quantile(noise, 0.6)
    exact, simple = mask_polygons(mask), mask_polygons(mask, tolerance_px=0.5)
    np.testing.assert_array_equal(drawn(exact, mask.shape), mask)
    assert sum(map(len, simple)) < 0.7 * sum(map(len, exact))
    shared = (drawn(simple, mask.shape) & mask).sum() / (drawn(simple, mask.shape) | mask).sum()
    assert polygons_iou(simple, mask) == pytest.approx(shared)
    assert 0.95 < shared < 1


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (["1"], 1),
        (["111", "101", "111"], 2),
        (["10", "01"], 2),
        (["1110111", "1010101", "1110111"], 4),
        (["11111", "10001", "10101", "10001", "11111"], 3),
        (["000", "000"], 0),
    ],
)
def test_a_hole_costs_one_cut_and_pieces_are_apart(rows, count):
    mask = np.array([[cell == "1" for cell in row] for row in rows])
    polygons = mask_polygons(mask)
    assert len(polygons) == count
    assert all(len(polygon) >= 6 for polygon in polygons)
    np.testing.assert_array_equal(enclosed(polygons, mask.shape), mask)
    assert polygons_iou(polygons, mask) == 1


def test_a_rectangle_has_few_points_on_its_own_edge():
    mask = np.zeros((10, 12), bool)
    mask[2:7, 3:11] = True
    (polygon,) = mask_polygons(mask)
    points = np.array(polygon).reshape(-1, 2)
    assert len(points) <= 9
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([3, 2], [11, 7])


def test_overlap_of_wrong_polygons_is_stated():
    mask = np.zeros((10, 10), bool)
    mask[:4] = True
    assert polygons_iou([[0, 0, 10, 0, 10, 8, 0, 8]], mask) == pytest.approx(0.5)
    assert polygons_iou([], mask) == 0


def test_a_piece_smaller_than_the_tolerance_stays():
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = mask[15, 15] = True
    assert enclosed(mask_polygons(mask, tolerance_px=3.0), mask.shape)[15, 15]
