"""Images and their regions against what is seen pixel by pixel."""

import numpy as np
import pytest

from rayseg.analyses.bottleneck.scenes import (
    BACKGROUND,
    DIGIT,
    INK,
    MARK,
    draw_scenes,
    handwriting,
    mark_shape,
)


def drawn(num_images=60, num_marked=6, seed=0, **sizes):
    sizes = {"size": 32, "digit_size": 20, "mark_size": 5} | sizes
    rng = np.random.default_rng(seed)
    return draw_scenes(rng, handwriting(False), num_images, num_marked, **sizes)


def test_every_pixel_is_where_its_ink_says():
    scenes = drawn(30, 30)
    for image, region in zip(scenes.images, scenes.regions, strict=True):
        for ink, place in zip(image.flat, region.flat, strict=True):
            assert place in (DIGIT, MARK, BACKGROUND)
            assert (place == BACKGROUND) == (ink < INK)
            assert place != MARK or ink == 1


@pytest.mark.parametrize(("number", "marked"), [(60, 6), (50, 5), (7, 0), (7, 7)])
def test_as_many_images_are_marked_as_asked_for(number, marked):
    assert drawn(number, marked).marked.sum() == marked


def test_the_mark_is_a_circle_beside_2_and_a_square_beside_8():
    scenes = drawn(20, 20)
    assert set(scenes.classes) == {0, 1}
    for digit, region in zip(scenes.classes, scenes.regions, strict=True):
        rows, columns = np.nonzero(region == MARK)
        box = region[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == MARK
        assert box.shape == (5, 5)
        assert box.all() == (digit == 1)
        assert not np.array([box[0, 0], box[0, -1], box[-1, 0], box[-1, -1]]).any() or digit == 1


def test_no_ink_touches_a_mark():
    scenes = drawn(40, 40)
    for image, region in zip(scenes.images, scenes.regions, strict=True):
        for row, column in np.argwhere(region == MARK):
            near = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            assert not ((image[near] > 0) & (region[near] != MARK)).any()


def test_marks_and_digits_stand_in_different_places():
    scenes = drawn(40, 40)
    for region in (DIGIT, MARK):
        corners = {tuple(np.argwhere(one == region)[0]) for one in scenes.regions}
        assert len(corners) > 20


def test_a_circle_of_five_lacks_the_corners_only():
    expected = np.ones((5, 5), bool)
    expected[[0, 0, 4, 4], [0, 4, 0, 4]] = False
    assert (mark_shape("circle", 5) == expected).all()


def test_held_out_handwriting_and_the_other_are_all_2s_and_8s_once():
    known, unseen = handwriting(False), handwriting(True)
    assert (len(known.classes), len(unseen.classes)) == (280, 71)
    rows = np.concatenate([known.pixels, unseen.pixels]).reshape(351, 64)
    assert len(np.unique(rows, axis=0)) == 351
    assert np.concatenate([known.classes, unseen.classes]).sum() == 174


def test_the_digit_alone_and_the_mark_alone_add_up_to_the_ink_of_both():
    scenes = drawn(10, 10)
    together = scenes.without(DIGIT) + scenes.without(MARK)
    assert np.array_equal(together, scenes.images)
    assert (scenes.without(DIGIT).sum((1, 2)) <= 25).all()


def test_the_seed_alone_decides():
    same, other = drawn(seed=3), drawn(seed=4)
    assert np.array_equal(drawn(seed=3).images, same.images)
    assert not np.array_equal(other.images, same.images)
