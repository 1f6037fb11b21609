import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from rayseg.refine.seeded_growing import SeededGrowing
from tests.reference import growing_literal as literal

ALL = np.ones(4, bool)


def draw(seed=0, size=(23, 31), labels=4):
    """Probabilities of smooth blobs, and seeds, some of two labels at once."""
    rng = np.random.default_rng(seed)
    logits = gaussian_filter(rng.normal(size=(labels, *size)), (0, 1.5, 1.5)) * 25
    probabilities = np.exp(logits)
    seeds = rng.random((labels, *size)) < 0.01
    return (probabilities / probabilities.sum(0)).astype(np.float32), seeds


@pytest.mark.parametrize("seed", range(6))
def test_growing_equals_a_flood_fill(seed):
    probabilities, seeds = draw(seed)
    present = np.array([seed % 2 == 0, True, False, True])
    growing = SeededGrowing(sure_background=0.9)
    found = growing(probabilities, seeds, present)
    expected = literal.grow(probabilities, seeds, present, 0.85, 0.9)
    assert {tuple(map(int, place)) for place in np.argwhere(found)} == expected
    assert found.sum() > seeds.sum() + 30


def test_only_sure_pixels_that_reach_a_seed_join():
    probabilities = np.zeros((2, 5, 9), np.float32)
    probabilities[0] = 0.5
    probabilities[1, :, [0, 1, 2, 4, 5]] = 0.9
    probabilities[1, 2, 3] = 0.8
    seeds = np.zeros((2, 5, 9), bool)
    seeds[1, 0, 0] = True
    found = SeededGrowing()(probabilities, seeds, np.ones(2, bool))
    np.testing.assert_array_equal(np.flatnonzero(found[1].all(0)), [0, 1, 2])
    assert found.sum() == 15
    wider = SeededGrowing(sure_foreground=0.7)(probabilities, seeds, np.ones(2, bool))
    assert wider[1].sum() == 26


def test_corners_connect():
    probabilities = np.zeros((2, 4, 4), np.float32)
    probabilities[1] = np.eye(4)
    seeds = np.zeros((2, 4, 4), bool)
    seeds[1, 0, 0] = True
    found = SeededGrowing()(probabilities, seeds, np.ones(2, bool))
    np.testing.assert_array_equal(found[1], np.eye(4, dtype=bool))


def test_a_class_that_is_absent_or_has_no_seed_grows_nowhere():
    probabilities, seeds = draw()
    seeds[3] = False
    found = SeededGrowing()(probabilities, seeds, np.array([True, True, False, True]))
    assert not found[3].any()
    np.testing.assert_array_equal(found[2], seeds[2])
    assert not SeededGrowing()(probabilities, np.zeros_like(seeds), ALL).any()


def test_a_seed_is_not_taken_by_another_class():
    probabilities = np.zeros((3, 1, 3), np.float32)
    probabilities[1] = 1
    seeds = np.zeros((3, 1, 3), bool)
    seeds[1, 0, 0] = seeds[2, 0, 1] = True
    found = SeededGrowing()(probabilities, seeds, np.ones(3, bool))
    np.testing.assert_array_equal(found[:, 0], [[0, 0, 0], [1, 0, 0], [0, 1, 0]])


def test_background_has_a_threshold_of_its_own_and_is_always_present():
    probabilities = np.full((2, 3, 3), 0.95, np.float32)
    probabilities[1] = 0
    seeds = np.zeros((2, 3, 3), bool)
    seeds[0, 1, 1] = True
    absent = np.zeros(2, bool)
    assert SeededGrowing()(probabilities, seeds, absent).sum() == 1
    assert SeededGrowing(sure_background=0.9)(probabilities, seeds, absent).sum() == 9


def test_arguments_are_not_changed():
    probabilities, seeds = draw()
    for array in (probabilities, seeds):
        array.setflags(write=False)
    before = seeds.copy()
    SeededGrowing()(probabilities, seeds, ALL)
    np.testing.assert_array_equal(seeds, before)


def test_what_does_not_fit_is_refused():
    probabilities, seeds = draw()
    with pytest.raises(ValueError, match="sure_foreground must lie in"):
        SeededGrowing(sure_foreground=1.2)
    with pytest.raises(ValueError, match=r"probabilities must be floating \(l, h, w\)"):
        SeededGrowing()(probabilities[0], seeds, ALL)
    with pytest.raises(ValueError, match=r"seeds must be bool \(4, 23, 31\)"):
        SeededGrowing()(probabilities, seeds[:, 1:], ALL)
    with pytest.raises(ValueError, match=r"present must be bool \(4,\)"):
        SeededGrowing()(probabilities, seeds, ALL[1:])
