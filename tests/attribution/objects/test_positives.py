"""Which candidates predict an object."""

from dataclasses import replace

import pytest
import torch

from rayseg.attribution import Objects
from rayseg.attribution.objects.positives import jittered_boxes, overlaps, pick_positives
from tests.attribution.tiny_detector import TinyDetector, TinyPoints
from tests.attribution.tiny_objects import (
    BOXES,
    METHOD,
    assert_all_same,
    objects,
    points_objects,
    run_one,
)


def test_jitters_stay_within_their_share_and_on_their_outer_side_in_the_image():
    box = torch.tensor([10.0, 2, 30, 12], dtype=torch.float64)
    jitters = jittered_boxes(box, (14, 100), 2000, 0.3, torch.Generator().manual_seed(0))
    low = torch.tensor([4.0, 0, 24, 9], dtype=torch.float64)
    high = torch.tensor([16.0, 5, 36, 14], dtype=torch.float64)
    assert ((low <= jitters) & (jitters <= high)).all()
    torch.testing.assert_close(jitters.amin(0), low, rtol=0, atol=0.1)
    torch.testing.assert_close(jitters.amax(0), high, rtol=0, atol=0.1)
    assert float(jitters[:, 0].mean()) == pytest.approx(10, abs=0.3)


def test_overlaps_cut_fractions_off_as_the_public_code_does():
    box = torch.tensor([0.0, 0, 10, 10])
    boxes = torch.tensor([[0.9, 0.9, 10.9, 5.9], [20, 20, 30, 30], [0.5, 0, 10, 10]])
    assert overlaps(boxes, box, "int").tolist() == [0.5, 0.0, 1.0]
    assert overlaps(boxes, box, "exact")[2].item() == pytest.approx(0.95)


def test_overlaps_of_nothing_are_0():
    assert overlaps(torch.zeros(1, 4), torch.full((4,), 0.5), "int").tolist() == [0.0]


@pytest.mark.parametrize(
    ("above", "between", "expected"),
    [
        (5, 0, (0, 1, 2)),  # enough above the first level: the first three of them
        (2, 1, (0, 1, 2)),  # never more than three: all above the last level
        (0, 0, ()),
    ],
)
def test_a_level_counts_where_more_than_the_limit_exceed_it(above, between, expected):
    ious = torch.tensor([0.95] * above + [0.87] * between + [0.5] * 4)
    picked = pick_positives(torch.ones_like(ious, dtype=torch.bool), ious, (0.9, 0.85), 3)
    assert tuple(picked.tolist()) == expected


def test_as_many_as_the_limit_do_not_exceed_it():
    ious = torch.tensor([0.87, 0.95, 0.95, 0.95, 0.87])
    right = torch.ones(5, dtype=torch.bool)
    assert pick_positives(right, ious, (0.9, 0.85), 3).tolist() == [0, 1, 2]
    assert pick_positives(right, ious, (0.9, 0.85), 2).tolist() == [1, 2]


def test_positives_are_strictly_above_a_level_and_of_the_class():
    ious = torch.tensor([0.75, 0.8, 0.9, 0.9])
    right = torch.tensor([True, True, True, False])
    assert pick_positives(right, ious, (0.75,), 100).tolist() == [1, 2]


def test_without_a_limit_all_above_the_last_level_are_positives():
    ious = torch.tensor([0.95] * 5 + [0.82] * 5)
    right = torch.ones(10, dtype=torch.bool)
    assert len(pick_positives(right, ious, (0.9, 0.8), 0)) == 10


@pytest.mark.parametrize("kind", [TinyDetector, TinyPoints])
def test_a_predicted_box_is_explained_by_what_it_was_predicted_from(images, kind):
    detector = kind()
    (found, _) = detector.detect(images, max_objects=3)
    own = Objects(found.boxes_xyxy, found.classes, found.candidates)
    maps = run_one(replace(METHOD, record=True), detector, images[0], own)
    assert [one.positives for one in maps] == [1, 1, 1]
    fit, inputs = detector.fit((40, 56)), detector.encode(images)
    targets = list(METHOD.find_targets(detector, inputs, 0, fit, own, "a"))
    for i, target in enumerate(targets):
        assert torch.equal(target.candidates, found.candidates[i : i + 1])
        torch.testing.assert_close(target.probabilities, found.scores[i : i + 1])
        torch.testing.assert_close(fit.to_image(target.boxes_xyxy), found.boxes_xyxy[i : i + 1])
    assert_all_same(run_one(replace(METHOD, seed=9), detector, images[0], own), maps)


def test_anchors_that_predict_the_object_take_the_proposals_place(images):
    detector = TinyPoints()
    predicted = points_objects(detector, images[0])
    given = Objects(predicted.boxes_xyxy, predicted.classes)
    method = replace(METHOD, iou_levels=(0.5,))
    found = run_one(method, detector, images[0], given)
    assert all(one.status == "ok" and one.positives >= 1 for one in found)
    targets = list(
        method.find_targets(
            detector, detector.encode(images), 0, detector.fit((40, 56)), given, "a"
        )
    )
    for i, target in enumerate(targets):
        assert int(predicted.candidates[i]) in target.candidates.tolist()


def test_the_first_anchors_are_random_ones(images):
    detector = TinyPoints()
    given = points_objects(detector, images[0], 1)
    given = Objects(given.boxes_xyxy, given.classes)
    fit, inputs = detector.fit((40, 56)), detector.encode(images)
    method = replace(METHOD, iou_levels=(0.3,), max_positives=3)
    picked = [
        set(
            next(
                iter(replace(method, seed=seed).find_targets(detector, inputs, 0, fit, given, "a"))
            ).candidates.tolist()
        )
        for seed in range(4)
    ]
    assert all(len(one) == 3 for one in picked)
    assert any(one != picked[0] for one in picked)


def test_a_candidate_below_the_threshold_predicts_nothing(images):
    detector = TinyPoints()
    own = points_objects(detector, images[0])
    detector.score_threshold = 0.99
    found = run_one(METHOD, detector, images[0], Objects(own.boxes_xyxy, own.classes))
    assert [one.status for one in found] == ["missed"] * 3


def test_an_object_that_is_never_found_is_missed_with_a_grid_of_zeros(detector, images):
    (found,) = run_one(
        replace(METHOD, iou_levels=(0.999,)), detector, images[0], objects(BOXES[:1], [1])
    )
    assert (found.status, found.positives, found.steps) == ("missed", 0, 0)
    assert found.grid.shape == (5, 7)
    assert (found.grid == 0).all()
