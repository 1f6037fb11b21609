"""Shaken boxes grow or shrink, by no more than asked for."""

import numpy as np
import pytest

from rayseg.analyses.boxes import NoiseAnalysis, shake_boxes

BOXES = np.random.default_rng(1).uniform(0, 50, (400, 2))
BOXES = np.hstack([BOXES, BOXES + np.random.default_rng(2).uniform(5, 90, (400, 2))])


def shares(boxes, moved):
    """How far each side moved outwards, in sides of its box."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return (moved - boxes) * [-1, -1, 1, 1] / sides


@pytest.mark.parametrize("amount", [0.2, 0.05, -0.05, -0.2])
def test_each_side_moves_by_up_to_the_amount(amount):
    found = shares(BOXES, shake_boxes(BOXES, amount, np.random.default_rng(0))) / amount
    assert found.min() >= -1e-9
    assert found.max() <= 1 + 1e-9
    np.testing.assert_allclose(found.mean(0), 0.5, atol=0.06)
    np.testing.assert_allclose(found.std(0), 12**-0.5, atol=0.04)
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 0.2  # no side follows another


def test_no_noise_changes_nothing():
    assert np.array_equal(shake_boxes(BOXES, 0.0, np.random.default_rng(0)), BOXES)


def test_twice_the_amount_moves_the_same_sides_twice_as_far():
    one, two = (
        shares(BOXES, shake_boxes(BOXES, amount, np.random.default_rng(3))) for amount in (0.1, 0.2)
    )
    np.testing.assert_allclose(two, 2 * one, atol=1e-9)


def test_boxes_keep_their_type_and_are_left_alone():
    boxes = BOXES.astype(np.float32)
    before = boxes.copy()
    assert shake_boxes(boxes, 0.2, np.random.default_rng(0)).dtype == np.float32
    assert np.array_equal(boxes, before)


def test_no_boxes_give_no_boxes():
    assert shake_boxes(np.zeros((0, 4)), 0.2, np.random.default_rng(0)).shape == (0, 4)


@pytest.mark.parametrize("amount", [-0.5, float("nan")])
def test_an_amount_that_turns_boxes_over_is_refused(amount):
    with pytest.raises(ValueError, match=r"share above -0\.5, got"):
        shake_boxes(BOXES, amount, np.random.default_rng(0))


def test_what_is_kept_is_over_what_no_noise_gives():
    result = NoiseAnalysis((-0.1, 0.0, 0.2), (0.3, 0.6, 0.45), 7)
    np.testing.assert_allclose(result.kept, [0.5, 1, 0.75])


@pytest.mark.parametrize("amounts", [(0.0, -0.1), (0.1, 0.2), (0.0, 0.0)])
def test_amounts_ascend_through_zero(amounts):
    with pytest.raises(ValueError, match="amounts must ascend, 0 among them"):
        NoiseAnalysis(amounts, (0.5, 0.5), 1)


def test_a_value_an_amount():
    with pytest.raises(ValueError, match="one an amount, 2, got 1"):
        NoiseAnalysis((0.0, 0.1), (0.5,), 1)
