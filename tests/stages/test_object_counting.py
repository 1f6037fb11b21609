"""Masks made from boxes against true masks."""

import numpy as np
import pytest

from rayseg.records import Sample
from rayseg.rle import encode_mask
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


def test_a_strange_image_or_object_counts_nothing(truths):
    rows = [row(id="b"), row(boxes_xyxy=[[1, 1, 2, 2], [3, 3, 4, 4]])]
    (counted,) = CompareObjects(truths)(rows)
    assert counted["ious"] == []
