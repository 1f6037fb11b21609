import numpy as np
import pytest

from rayseg.records.boxes import box_areas, box_ious, box_problem, clip_boxes, mask_extent


def cells(box):
    x1, y1, x2, y2 = (int(side) for side in box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def draw(rng, number):
    """Boxes of whole pixels, some of no area or upside down."""
    low = rng.integers(-5, 10, (number, 2))
    return np.concatenate([low, low + rng.integers(-2, 8, (number, 2))], 1).astype(np.float32)


def test_areas_and_overlaps_equal_counts_of_cells():
    rng = np.random.default_rng(0)
    a, b = draw(rng, 30), draw(rng, 20)
    np.testing.assert_array_equal(box_areas(a), [len(cells(box)) for box in a])
    ious = box_ious(a, b)
    for i, first in enumerate(map(cells, a)):
        for j, second in enumerate(map(cells, b)):
            union = len(first | second)
            expected = len(first & second) / union if union else 0
            assert ious[i, j] == pytest.approx(expected), (a[i], b[j])


def test_no_boxes_have_no_overlaps():
    none, one = np.zeros((0, 4), np.float32), np.ones((1, 4), np.float32)
    assert box_ious(none, one).shape == (0, 1)
    assert box_ious(one, none).shape == (1, 0)
    assert box_areas(none).shape == (0,)


def test_overlaps_do_not_depend_on_the_order():
    rng = np.random.default_rng(1)
    a, b = draw(rng, 9), draw(rng, 7)
    np.testing.assert_array_equal(box_ious(a, b), box_ious(b, a).T)


def test_clipped_boxes_hold_the_cells_of_the_image():
    boxes = draw(np.random.default_rng(2), 40)
    image = cells((0, 0, 8, 6))
    for box, clipped in zip(boxes, clip_boxes(boxes, (6, 8)), strict=True):
        assert cells(clipped) == cells(box) & image
    assert clip_boxes(boxes, (6, 8)).dtype == np.float32


def test_the_extent_of_a_mask_is_the_smallest_box_with_its_pixels():
    mask = np.zeros((6, 9), bool)
    mask[2, 7] = mask[4, 3] = True
    assert mask_extent(mask).tolist() == [3, 2, 8, 5]
    assert mask_extent(~mask).tolist() == [0, 0, 9, 6]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 60, 40), ""),
        ((-9, -9, 1, 1), ""),
        ((59, 39, 90, 90), ""),
        ((1, 1, 1.5, 1.5), ""),
        ((5, 5, 5, 9), "x1 < x2 and y1 < y2, got (5, 5, 5, 9)"),
        ((5, 9, 9, 5), "x1 < x2 and y1 < y2, got (5, 9, 9, 5)"),
        ((60, 0, 70, 9), "in the image of 60x40, got (60, 0, 70, 9)"),
        ((0, 40, 9, 50), "in the image of 60x40"),
        ((-9, 0, 0, 9), "in the image of 60x40"),
        ((0, -9, 9, 0), "in the image of 60x40"),
        ((np.nan, 0, 9, 9), "four numbers, got (nan, 0, 9, 9)"),
        ((0, 0, np.inf, 9), "four numbers"),
    ],
)
def test_what_is_wrong_with_a_box_is_said_on_both_sides(box, message):
    problem = box_problem(np.array(box, np.float32), (40, 60))
    assert message in problem
    assert bool(problem) == bool(message)
