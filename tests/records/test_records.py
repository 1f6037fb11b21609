"""The records refuse what does not fit, and say what was expected and what came."""

import numpy as np
import pytest

from rayseg.records import BACKGROUND, IGNORE, MAX_CLASSES, InstanceMasks, LabelMap, Sample, Seeds


def sample(**changed):
    given = {
        "id": "a", "path": "a.jpg", "height": 4, "width": 5, "tags": (0, 2),
        "boxes_xyxy": np.zeros((1, 4), np.float32), "box_classes": np.zeros(1, np.int64),
    }  # fmt: skip
    return Sample(**given | changed)


def test_a_fitting_sample_is_taken_as_it_is():
    assert sample().tags == (0, 2)


def test_the_last_class_has_the_label_before_the_ignored_one():
    assert (BACKGROUND, IGNORE) == (0, 255)  # VOC's
    assert MAX_CLASSES + 1 == IGNORE


@pytest.mark.parametrize("tags", [(2, 0), (1, 1)])
def test_tags_ascend_without_repeats(tags):
    with pytest.raises(
        ValueError, match=r"tags must ascend without repeats, got \(\d, \d\) for 'a'"
    ):
        sample(tags=tags)


def test_boxes_have_four_columns():
    with pytest.raises(ValueError, match=r"boxes_xyxy must be float32 \(\?, 4\).*float32 \(1, 5\)"):
        sample(boxes_xyxy=np.zeros((1, 5), np.float32))


def test_each_box_has_a_class():
    with pytest.raises(ValueError, match=r"box_classes must be int64 \(1\).*got int64 \(2,\)"):
        sample(box_classes=np.zeros(2, np.int64))


def test_maps_are_as_many_as_classes():
    with pytest.raises(
        ValueError, match=r"maps must be float32 \(3, \?, \?\).*got float32 \(2, 4, 4\)"
    ):
        Seeds("a", (0, 1, 2), np.zeros((2, 4, 4), np.float32), (16, 16))


def test_maps_are_float32():
    with pytest.raises(ValueError, match=r"maps must be float32 .* got float64"):
        Seeds("a", (0,), np.zeros((1, 4, 4)), (16, 16))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_maps_lie_between_0_and_1(value):
    with pytest.raises(ValueError, match=r"maps must lie in \[0, 1\], got .* for 'a'"):
        Seeds("a", (0,), np.full((1, 4, 4), value, np.float32), (16, 16))


def test_an_image_without_classes_has_seeds_without_maps():
    assert Seeds("a", (), np.zeros((0, 4, 4), np.float32), (16, 16)).maps.size == 0


def test_labels_are_bytes():
    with pytest.raises(ValueError, match=r"labels must be uint8 \(\?, \?\).*got int64 \(2, 2\)"):
        LabelMap("a", np.zeros((2, 2), np.int64))


def test_each_instance_has_a_class():
    with pytest.raises(
        ValueError, match=r"classes must be int64 \(2\) \(one a mask\), got int64 \(1,\)"
    ):
        InstanceMasks("a", np.zeros((2, 3, 3), bool), np.zeros(1, np.int64))
