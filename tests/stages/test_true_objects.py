"""Which objects a semantic mask tells apart, and what a manifest knows of them."""

import pickle

import numpy as np
import pytest

from rayseg.datasets.base import write_mask
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.stages.true_objects import AloneInBox, TrueObjects, places_of
from rayseg.store import Folder, write_manifest

BOX = np.array([[10, 10, 40, 30]], np.float32)


def labels(*parts):
    """A mask of 60x80 with labelled rectangles (label, x1, y1, x2, y2)."""
    made = np.zeros((60, 80), np.uint8)
    for label, x1, y1, x2, y2 in parts:
        made[y1:y2, x1:x2] = label
    return made


def test_an_object_whose_pixels_fill_its_box_is_told_apart():
    truth = labels((3, 11, 10, 39, 30))
    (mask,) = AloneInBox()(BOX, [2], truth).values()
    np.testing.assert_array_equal(mask, truth == 3)


@pytest.mark.parametrize(
    "truth",
    [
        labels((4, 10, 10, 40, 30)),  # of another class
        labels((3, 10, 10, 20, 30)),  # only half of the box
        labels((3, 10, 10, 44, 33)),  # reaches beyond it
        labels((3, 10, 10, 15, 15)),  # few pixels
        labels(),
    ],
)
def test_an_object_is_not_told_apart_where_pixels_and_box_disagree(truth):
    assert AloneInBox()(BOX, [2], truth) == {}


def test_two_boxes_of_a_class_that_overlap_are_left_out_and_of_two_classes_are_not():
    boxes = np.array([[10, 10, 40, 30], [30, 10, 60, 30]], np.float32)
    truth = labels((3, 10, 10, 40, 30), (5, 40, 10, 60, 30))
    assert AloneInBox(min_iou=0.6)(boxes, [2, 2], truth) == {}
    assert set(AloneInBox(min_iou=0.6)(boxes, [2, 4], truth)) == {0, 1}


def test_a_box_of_no_pixels_has_no_mask():
    boxes = np.array([[40, 30, 10, 10], [90, 0, 95, 20]], np.float32)
    assert AloneInBox()(boxes, [2, 2], labels((3, 0, 0, 80, 60))) == {}


@pytest.fixture
def manifest(tmp_path):
    truth = labels((3, 10, 10, 40, 30))
    write_mask(tmp_path / "b.png", truth)
    own = np.zeros((60, 80), bool)
    own[12:20, 12:20] = True

    def sample(id_, **more):
        return Sample(id_, "x.png", 60, 80, (2,), BOX, np.array([2], np.int64), **more)

    samples = [
        sample("a", true_masks=(encode_mask(own),)),
        sample("b", mask_path=str(tmp_path / "b.png")),
        sample("c"),
    ]
    folder = Folder(str(tmp_path / "manifest"))
    write_manifest(folder, samples, ["x", "y", "z"])
    return folder, own, truth == 3


def test_known_masks_come_first_then_those_out_of_semantic_masks(manifest):
    folder, own, drawn = manifest
    truths = TrueObjects(folder)
    np.testing.assert_array_equal(truths.masks("a", (60, 80))[0], own)
    np.testing.assert_array_equal(truths.masks("b", (60, 80))[0], drawn)
    assert truths.masks("c", (60, 80)) == {}
    assert truths.masks("nobody", (60, 80)) == {}


def test_a_semantic_mask_of_another_size_is_an_error(manifest):
    with pytest.raises(ValueError, match=r"must be \(50, 80\) as its image, got \(60, 80\)"):
        TrueObjects(manifest[0]).masks("b", (50, 80))


def test_pixels_count_that_a_labelled_truth_does_not_ignore(tmp_path):
    drawn = labels((3, 10, 10, 40, 30), (255, 40, 10, 42, 30))
    write_mask(tmp_path / "a.png", drawn)

    def sample(id_, **more):
        return Sample(id_, "x.png", 60, 80, (2,), BOX, np.array([2], np.int64), **more)

    labelled = {"mask_path": str(tmp_path / "a.png")}
    samples = [sample("a", **labelled), sample("b"), sample("c", crowds=(0,), **labelled)]
    write_manifest(Folder(str(tmp_path)), samples, ["x", "y", "z"])
    truths = TrueObjects(Folder(str(tmp_path)))
    np.testing.assert_array_equal(truths.counted("a", (60, 80)), drawn != 255)
    assert truths.counted("b", (60, 80)).all()
    assert truths.counted("c", (60, 80)).all()  # its 255 may be the crowd, as COCO's are
    with pytest.raises(ValueError, match=r"must be \(50, 80\) as its image, got \(60, 80\)"):
        truths.counted("a", (50, 80))


def test_true_masks_do_not_travel_to_workers(manifest):
    folder, own, _ = manifest
    truths = TrueObjects(folder)
    sent = pickle.dumps(truths)
    truths.masks("a", (60, 80))
    assert len(pickle.dumps(truths)) == len(sent)
    assert encode_mask(own) not in sent
    np.testing.assert_array_equal(pickle.loads(sent).masks("a", (60, 80))[0], own)


KNOWN = {"boxes_xyxy": [[0, 0, 5, 5], [0, 0, 5, 5], [1, 1, 2, 2]], "box_classes": [1, 2, 2]}


@pytest.mark.parametrize("lacking", [{}, {"places": None}, {"places": []}])
def test_objects_of_a_row_of_before_are_found_again_by_box_and_class(lacking):
    boxes = [[1, 1, 2, 2], [0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 5.5]]
    row = {"boxes_xyxy": boxes, "classes": [2, 2, 2, 2], **lacking}
    assert places_of(row, KNOWN) == [2, 1, -1, -1]


def test_objects_with_places_are_not_looked_for():
    row = {"boxes_xyxy": [[9, 9, 9, 9], [0, 0, 5, 5]], "classes": [0, 0], "places": [2, -1]}
    assert places_of(row, KNOWN) == [2, -1]
    assert places_of({"boxes_xyxy": [], "classes": [], "places": []}, KNOWN) == []
