"""Masks made from boxes against true masks."""

import numpy as np
import pytest

from rayseg.datasets.base import write_mask
from rayseg.records import IGNORE, Sample
from rayseg.records.rle import encode_mask
from rayseg.stages.object_counting import CompareObjects
from rayseg.stages.true_objects import TrueObjects
from rayseg.store import Folder, write_manifest


def square(x1, y1, x2, y2):
    mask = np.zeros((20, 30), bool)
    mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture
def truths(tmp_path):
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [12, 12, 20, 20]], np.float32)
    masks = (encode_mask(square(0, 0, 10, 10)), encode_mask(square(5, 5, 15, 15)), b"")
    sample = Sample(
        "a", "a.png", 20, 30, (0, 1), boxes, np.array([0, 1, 1], np.int64), crowds=(2,),
        true_masks=masks,
    )  # fmt: skip
    folder = Folder(str(tmp_path))
    write_manifest(folder, [sample], ["x", "y"])
    return TrueObjects(folder)


def row(**changed):
    made = {
        "id": "a", "height": 20, "width": 30, "classes": [1, 0],
        "boxes_xyxy": [[5, 5, 15, 15], [0, 0, 10, 10]],
        "foreground": [encode_mask(square(5, 5, 15, 10)), b""],
    }  # fmt: skip
    return made | changed


def test_an_overlap_is_taken_with_the_objects_own_truth(truths):
    (counted,) = CompareObjects(truths)([row()])
    assert counted["ious"] == [0.5, 0.0]  # half of it; and an object without a mask counts as 0
    assert counted["areas"] == [100, 100]


def test_an_overlap_is_taken_by_the_place_where_a_row_has_places(truths):
    boxes = [[5.5, 5.5, 15, 15], [0, 0, 10, 10]]  # a moved box is the same object
    (counted,) = CompareObjects(truths)([row(boxes_xyxy=boxes, places=[1, 0])])
    assert (counted["ious"], counted["areas"]) == ([0.5, 0.0], [100, 100])
    (counted,) = CompareObjects(truths)([row(places=[-1, 2])])  # found by a network, and a crowd
    assert counted["ious"] == []


def test_two_objects_in_one_box_are_told_apart_by_their_places(tmp_path):
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32)
    masks = [encode_mask(square(0, 0, 5, 10)), encode_mask(square(5, 0, 10, 10))]
    sample = Sample("a", "a.png", 20, 30, (0,), boxes, np.zeros(2, int), true_masks=tuple(masks))
    write_manifest(Folder(str(tmp_path)), [sample], ["x"])
    compare = CompareObjects(TrueObjects(Folder(str(tmp_path))))
    made = row(boxes_xyxy=boxes.tolist(), classes=[0, 0], foreground=masks[::-1])
    assert compare([made | {"places": [1, 0]}])[0]["ious"] == [1.0, 1.0]
    assert compare([made])[0]["ious"] == [0.0, 0.0]  # all that could be known of rows of before


def test_a_strange_image_or_object_counts_nothing(truths):
    rows = [row(id="b"), row(boxes_xyxy=[[1, 1, 2, 2], [3, 3, 4, 4]])]
    (counted,) = CompareObjects(truths)(rows)
    assert counted["ious"] == []


def test_what_a_labelled_truth_ignores_counts_for_neither_mask(tmp_path):
    truth = square(4, 4, 10, 10)
    labels = np.where(square(3, 3, 11, 11) & ~truth, IGNORE, truth.astype(np.uint8))
    write_mask(tmp_path / "a.png", labels)
    sample = Sample(
        "a", "a.jpg", 20, 30, (0,), np.array([[3, 3, 11, 11]], np.float32), np.zeros(1, np.int64),
        mask_path=str(tmp_path / "a.png"), true_masks=(encode_mask(truth),),
    )  # fmt: skip
    write_manifest(Folder(str(tmp_path)), [sample], ["x"])
    made = {"boxes_xyxy": [[3, 3, 11, 11]], "classes": [0]}
    rows = [
        row(**made, foreground=[encode_mask(square(*box))])
        for box in ((3, 3, 11, 11), (4, 4, 13, 10))  # the border too; 6 x 2 pixels beyond it
    ]
    (counted,) = CompareObjects(TrueObjects(Folder(str(tmp_path))))(rows)
    assert counted["ious"] == [1.0, 36 / 48]
    assert counted["areas"] == [36, 36]
