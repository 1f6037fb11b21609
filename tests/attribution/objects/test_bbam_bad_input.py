"""What BBAM refuses, and what costs one object alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.attribution import BBAM, Objects
from rayseg.nets.detection import Reading
from tests.attribution.tiny_detector import TinyDetector
from tests.attribution.tiny_objects import BOXES, CLASSES, METHOD, assert_same, objects, run_one


class Breaking(TinyDetector):
    """Knows no number for candidates of class 1 once anything is hidden."""

    def read(self, inputs, owner, candidates):
        reading = super().read(inputs, owner, candidates)
        if not torch.is_grad_enabled():
            return reading
        nothing = torch.zeros_like(reading.deltas)
        nothing[:, 1] = torch.nan
        return Reading(
            reading.probabilities, reading.background, reading.deltas + nothing, reading.boxes_xyxy
        )


def test_nan_is_the_object_s_own(detector, images):
    plain = run_one(METHOD, detector, images[0])
    found = run_one(METHOD, Breaking(), images[0])
    for one, other, class_index in zip(found, plain, CLASSES, strict=True):
        if class_index != 1:
            assert_same(one, other)
        else:
            assert one.status == "error: the losses are no numbers after 0 of 6 steps"
            assert one.grid.shape == other.grid.shape
            assert (one.grid == 0).all()


def test_nan_of_a_head_that_does_not_count_costs_nothing(detector, images):
    method = replace(METHOD, use_box=False)
    found, expected = (run_one(method, one, images[0]) for one in (Breaking(), detector))
    for one, other, class_index in zip(found, expected, CLASSES, strict=True):
        assert one.status == "ok"
        assert np.isnan(one.box_loss) == (class_index == 1)
        torch.testing.assert_close(one.grid, other.grid, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([5.0, 5, 5, 9], r"box must have x1 < x2 and y1 < y2, got (5, 5, 5, 9)"),
        ([9.0, 5, 5, 9], r"box must have x1 < x2 and y1 < y2, got (9, 5, 5, 9)"),
        ([60.0, 5, 70, 9], r"box must lie in the image of 56x40, got (60, 5, 70, 9)"),
        ([float("nan"), 5, 7, 9], r"box must be four numbers, got (nan, 5, 7, 9)"),
    ],
)
def test_a_bad_box_says_why_and_leaves_the_others_alone(detector, images, box, reason):
    found = run_one(METHOD, detector, images[0], objects([BOXES[0], box], [1, 1]))
    assert found[1].status == reason
    assert (found[1].grid == 0).all()
    assert_same(found[0], run_one(METHOD, detector, images[0], objects(BOXES[:1], [1]))[0])
    with pytest.raises(ValueError, match="box must"):
        METHOD(detector, images[0], torch.tensor([box]), [1])


def test_a_box_over_the_edge_is_cut_to_the_image(detector, images):
    over, cut = ([30, 20, 80, 60], [30, 20, 56, 40])
    targets = [
        next(
            iter(
                METHOD.find_targets(
                    detector,
                    detector.encode(images),
                    0,
                    detector.fit((40, 56)),
                    objects([box], [1]),
                    "a",
                )
            )
        )
        for box in (over, cut)
    ]
    assert torch.equal(targets[0].box_xyxy, targets[1].box_xyxy)
    assert targets[0].share == pytest.approx(26 * 20 / (40 * 56))


def test_an_image_without_objects_has_no_maps(detector, images):
    none = objects([], [])
    assert METHOD.run(detector, images, [none, none], ["a", "b"]) == [[], []]
    mixed = METHOD.run(detector, images, [none, objects(BOXES[:1], [1])], ["a", "b"])
    assert [len(row) for row in mixed] == [0, 1]


def test_an_unknown_class_is_refused(detector, images):
    with pytest.raises(ValueError, match=r"classes must lie in 0\.\.2, got 3"):
        run_one(METHOD, detector, images[0], objects(BOXES[:1], [3]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("jitter", 0.5, r"jitter must lie in \[0, 0.5\), got 0.5"),
        ("iou_levels", (0.8, 0.9), "iou_levels must descend"),
        ("iou_levels", (), "iou_levels must lie"),
        ("iou", "round", "iou must be int or exact, got 'round'"),
        ("region", "crop", "region must be full or windows, got 'crop'"),
        ("steps", -1, "steps must be 0 or more, got -1"),
        ("num_jitters", 0, "num_jitters must be 1 or more, got 0"),
        ("stride_base", 0.0, r"stride_base must be 1 or more, got 0\.0"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(BBAM(), **{field: value})


def test_a_method_of_no_head_is_refused():
    with pytest.raises(ValueError, match="use_box or use_class must be true, got neither"):
        replace(BBAM(), use_box=False, use_class=False)


@pytest.mark.parametrize(
    ("boxes", "classes", "candidates", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2).long(), None, r"boxes_xyxy must be float \(o, 4\)"),
        (torch.zeros(2, 4), torch.zeros(1).long(), None, r"classes must be int64 \(2,\)"),
        (torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(1, 4), "candidates must be 2"),
    ],
)
def test_objects_that_do_not_fit_are_refused(boxes, classes, candidates, message):
    with pytest.raises(ValueError, match=message):
        Objects(boxes, classes, candidates)
