"""IoUs by threshold against one comparison at a time, and their sums by size."""

import json

import numpy as np
import pytest

from rayseg.analyses.boxes import (
    SIZE_EDGES,
    THRESHOLDS,
    OverlapAnalysis,
    OverlapSums,
    threshold_ious,
)


def literal(map_, mask):
    return [((map_ > t) & mask).sum() / ((map_ > t) | mask).sum() for t in THRESHOLDS]


def test_ious_are_those_of_one_threshold_at_a_time():
    draw = np.random.default_rng(4)
    map_, mask = draw.random((20, 30)), draw.random((20, 30)) > 0.6
    map_[0, :19] = THRESHOLDS  # a value that is a threshold is not above it
    np.testing.assert_allclose(threshold_ious(map_, mask), literal(map_, mask), atol=1e-12)


def test_pixels_that_do_not_count_might_as_well_not_be_there():
    draw = np.random.default_rng(5)
    map_, mask = draw.random((20, 30)), draw.random((20, 30)) > 0.6
    counted = np.zeros((20, 30), bool)
    counted[3:15, 4:28] = True
    found = threshold_ious(map_, mask, counted)
    np.testing.assert_array_equal(found, threshold_ious(map_[3:15, 4:28], mask[3:15, 4:28]))
    with pytest.raises(ValueError, match="mask must have a pixel, got none"):
        threshold_ious(map_, mask, ~mask)


def test_the_true_mask_itself_scores_one(disc):
    np.testing.assert_array_equal(threshold_ious(disc.astype(float), disc), 1)


def test_an_empty_map_scores_nothing(disc):
    np.testing.assert_array_equal(threshold_ious(np.zeros(disc.shape), disc), 0)


def test_an_empty_mask_is_refused(disc):
    with pytest.raises(ValueError, match="mask must have a pixel, got none"):
        threshold_ious(np.ones(disc.shape), np.zeros_like(disc))


def test_another_size_is_refused(disc):
    with pytest.raises(ValueError, match=r"map_ must be .*\(61, 81\), got \(2, 2\)"):
        threshold_ious(np.ones((2, 2)), disc)


def ious(**by_place):
    values = np.zeros(len(THRESHOLDS))
    for place, value in by_place.items():
        values[int(place[1:])] = value
    return values


def test_one_threshold_serves_all_sizes():
    """The small object alone is best at 2, the large one at 9; together 9 gives more."""
    small, large = OverlapSums.of(ious(_2=0.7, _9=0.2), 0.01), OverlapSums.of(ious(_9=0.9), 0.81)
    total = small + large
    assert (small.best, large.best, total.best) == (2, 9, 9)
    assert total.means[9] == pytest.approx(0.55)
    np.testing.assert_allclose(total.by_size, [0.2, np.nan, np.nan, np.nan, 0.9])


@pytest.mark.parametrize(
    ("share", "place"), [(0.0, 0), (0.0399, 0), (0.0401, 1), (0.25, 2), (0.5, 3), (0.7, 4), (1, 4)]
)
def test_sizes_are_told_apart_by_the_root_of_the_share(share, place):
    counts = OverlapSums.of(np.zeros(len(THRESHOLDS)), share).objects
    assert counts.tolist() == [int(place == i) for i in range(len(SIZE_EDGES) + 1)]


def test_numbers_survive_json():
    one = OverlapSums.of(ious(_3=0.5), 0.3)
    read = json.loads(json.dumps(OverlapAnalysis({"BBAM": one + one}).figures()))["kinds"]["BBAM"]
    assert (read["objects"], read["threshold"], read["iou"]) == (2, 0.2, 0.5)
    assert read["iou_by_size"] == [None, None, 0.5, None, None]
