import numpy as np
import pytest

from rayseg.records import painting
from rayseg.records.palette import VOC_PALETTE
from rayseg.report import overlays


def test_outline_is_what_brute_force_finds():
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (9, 7))
    layer = overlays.label_layer(labels)
    for y, x in np.ndindex(labels.shape):
        near = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        others = [labels[p] for p in near if 0 <= p[0] < 9 and 0 <= p[1] < 7]
        edge = labels[y, x] in (1, 2) and any(other != labels[y, x] for other in others)
        assert (tuple(layer[y, x]) == painting.OUTLINE) == edge


def test_background_is_clear_and_classes_have_their_colour():
    labels = np.full((5, 5), 3, np.uint8)
    assert (overlays.label_layer(labels) == [*VOC_PALETTE[3], painting.FILL_ALPHA]).all()
    assert not overlays.label_layer(np.zeros((5, 5), np.uint8))[..., 3].any()


def test_maps_become_the_strongest_class_above_the_threshold():
    maps = np.array([[[0.9, 0.5, 0.3]], [[0.2, 0.6, 0.31]]], np.float32)
    assert overlays.maps_to_labels(maps, (4, 7), 0.3).tolist() == [[5, 8, 8]]
    assert overlays.maps_to_labels(maps, (4, 7), 0.5).tolist() == [[5, 8, 0]]
    assert overlays.maps_to_labels(maps[:0], (), 0.5).tolist() == [[0, 0, 0]]


def test_cells_beyond_the_image_are_cut_off():
    # 6 pixels are one cell and a half: the second cell shows only its left half.
    maps = np.array([[[0.0, 1.0]]], np.float32)
    shown = overlays.resize_maps(maps, (4, 6), (40, 60))
    assert shown.shape == (1, 40, 60)
    middle = shown[0, 20]
    assert middle[19] < 0.05
    assert middle[40] == pytest.approx(0.5, abs=0.03)
    assert middle[59] == pytest.approx(1, abs=0.03)


def test_a_plane_is_grey_and_its_cells_lie_where_they_do():
    # 6 pixels are a cell and a half of 4: half of the second lies beyond.
    layer = overlays.grey_layer(np.array([[0, 1]], np.float32), 4, (4, 6), (40, 60))
    assert layer.shape == (40, 60, 4)
    assert (layer[..., 3] == 255).all()
    assert (layer[..., 0] == layer[..., 1]).all()
    assert (layer[..., 0] == layer[..., 2]).all()
    middle = layer[20, :, 0] / 255
    assert middle[19] < 0.05
    assert middle[40] == pytest.approx(0.5, abs=0.05)
    assert middle[59] > 0.95


def test_cells_of_an_image_that_was_seen_smaller_cover_all_of_it():
    grid = np.zeros((10, 10), np.float32)
    grid[9] = 1
    layer = overlays.grey_layer(grid, 4, (400, 400), (100, 100))
    assert layer[97].min() > 240
    assert layer[:80, :, 0].max() == 0


@pytest.mark.parametrize(
    ("size_hw", "fitted"), [((100, 200), (160, 320)), ((1, 5000), (1, 320)), ((1, 1), (320, 320))]
)
def test_the_longer_side_is_fitted(size_hw, fitted):
    assert overlays.fit(size_hw) == fitted
