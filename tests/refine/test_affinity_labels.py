from dataclasses import replace

import numpy as np
import pytest

from rayseg.refine import REFINERS
from rayseg.refine.affinity_labels import AffinityLabels, joined_labels
from tests.reference import crf_literal as literal
from tests.refine.test_crf import draw_scene


@pytest.mark.parametrize("num_maps", [1, 2, 3])
@pytest.mark.parametrize("alphas", [(4, 32), (4, 24), (1, 3)])
def test_labels_equal_two_fields_of_their_own(num_maps, alphas):
    image, maps = draw_scene(num_maps, (24, 24 * (num_maps + 1)), num_maps)
    classes = [7, 2, 11][:num_maps]
    low, high = alphas
    found = AffinityLabels(low_alpha=low, high_alpha=high)(image, maps, classes)
    expected = literal.psa_label(image, maps, classes, low, high)
    np.testing.assert_array_equal(found, expected)
    assert {0, 8} <= set(np.unique(found))


def test_there_are_doubts_between_the_two_sides_and_none_between_equal_ones():
    image, maps = draw_scene()
    maps *= 0.6
    weak = AffinityLabels(iterations=0)
    assert (weak(image, maps, [0, 1]) == 255).any()
    assert not (replace(weak, low_alpha=32)(image, maps, [0, 1]) == 255).any()


def test_an_image_without_a_class_is_background():
    image, maps = draw_scene()
    assert not AffinityLabels()(image, maps[:0], []).any()


def test_a_class_whose_map_is_empty_gets_no_pixel():
    image, maps = draw_scene()
    maps[1] = 0
    found = AffinityLabels()(image, maps, [4, 9])
    assert set(np.unique(found)) <= {0, 5, 255}
    maps[:] = 0
    assert not AffinityLabels()(image, maps, [4, 9]).any()


def test_labels_of_a_grid_are_unsure_where_nothing_has_a_score():
    low = np.array([[0.2, 0.8, 0.1, 0.0], [0.8, 0.2, 0.9, 0.0]]).reshape(2, 1, 4)
    high = np.array([[0.1, 0.3, 0.9, 0.0], [0.9, 0.7, 0.1, 0.0]]).reshape(2, 1, 4)
    np.testing.assert_array_equal(joined_labels(low, high, [6]), [[7, 255, 0, 255]])


def test_it_is_a_refiner_with_presets():
    assert REFINERS["affinity_labels"] is AffinityLabels
    assert AffinityLabels.official("advcam") == AffinityLabels.as_written() == AffinityLabels()
    for method in ("seam", "advcam_seam"):
        assert AffinityLabels.official(method) == AffinityLabels(low_alpha=4, high_alpha=24)


@pytest.mark.parametrize("fields", [{"low_alpha": 0}, {"low_alpha": 40}, {"high_alpha": 3.9}])
def test_exponents_that_cross_are_refused(fields):
    with pytest.raises(ValueError, match="low_alpha must be positive and not exceed high_alpha"):
        AffinityLabels(**fields)


def test_a_map_of_another_size_is_refused():
    image, maps = draw_scene()
    with pytest.raises(ValueError, match=r"maps must be float32 \(2, 24, 60\)"):
        AffinityLabels()(image, maps[:, 1:], [0, 1])
