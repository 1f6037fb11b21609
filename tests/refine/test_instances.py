import numpy as np
import pytest

from rayseg.refine import BoxMask, semantic_labels


def masked(text):
    """A mask drawn as rows: # is sure, ? is doubtful."""
    cells = np.array([list(row) for row in text.split()])
    return BoxMask(cells == "#", (cells == "#") | (cells == "?"))


def box(*sides):
    return np.array([sides], np.float32)


def literal_labels(masks, boxes, classes, size):
    """The authors' steps: a plane a class, pixels of several, nested boxes, the largest first."""
    planes = np.zeros((254, *size), int)
    for mask, index in zip(masks, classes, strict=True):
        planes[index][mask.foreground] = 1
    labels = np.zeros(size, int)
    for index in range(254):
        labels[planes[index] == 1] = index + 1
    labels[planes.sum(0) > 1] = 255
    area = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
    for i in sorted(range(len(boxes)), key=lambda i: -area[i]):
        a = boxes[i]
        for b in boxes:
            if (
                list(a) != list(b)
                and b[0] <= a[0]
                and b[1] <= a[1]
                and b[2] >= a[2]
                and b[3] >= a[3]
            ):
                labels[masks[i].foreground] = classes[i] + 1
    for mask in masks:
        labels[mask.possible & ~mask.foreground] = 255
    return labels


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_what_the_steps_written_out_give(seed):
    rng = np.random.default_rng(seed)
    size, number = (8, 9), 4
    possible = rng.random((number, *size)) < 0.5
    masks = [BoxMask(p & (rng.random(size) < 0.7), p) for p in possible]
    low = rng.integers(0, 4, (number, 2))
    boxes = np.concatenate([low, low + rng.integers(1, 6, (number, 2))], 1).astype(np.float32)
    boxes[3] = boxes[0]
    classes = rng.integers(0, 3, number).tolist()
    found = semantic_labels(masks, boxes, classes, size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, literal_labels(masks, boxes, classes, size))


def test_objects_of_two_classes_meet_in_255_and_of_one_class_in_it():
    masks = [masked("###.. ###.."), masked("..### ..###"), masked(".##.. .....")]
    boxes = np.concatenate([box(0, 0, 3, 2), box(2, 0, 5, 2), box(1, 0, 3, 3)])
    found = semantic_labels(masks, boxes, [4, 7, 4], (2, 5))
    assert found.tolist() == [[5, 5, 255, 8, 8], [5, 5, 255, 8, 8]]


def test_a_third_object_does_not_win_back_what_two_classes_share():
    masks = [masked("#"), masked("#"), masked("#")]
    boxes = np.concatenate([box(0, 0, 1, 1)] * 3)
    assert semantic_labels(masks, boxes, [1, 2, 1], (1, 1)).tolist() == [[255]]


def test_a_nested_box_keeps_its_class_unless_told_otherwise():
    masks = [masked("#### ####"), masked(".##. ....")]
    boxes = np.concatenate([box(0, 0, 4, 2), box(1, 0, 3, 1)])
    found = semantic_labels(masks, boxes, [0, 1], (2, 4))
    assert found.tolist() == [[1, 2, 2, 1], [1, 1, 1, 1]]
    found = semantic_labels(masks, boxes, [0, 1], (2, 4), keep_nested=False)
    assert found.tolist() == [[1, 255, 255, 1], [1, 1, 1, 1]]


def test_of_nested_boxes_the_smaller_one_wins():
    masks = [masked("##.."), masked("####"), masked("###.")]
    boxes = np.concatenate([box(0, 0, 2, 1), box(0, 0, 4, 1), box(0, 0, 3, 1)])
    assert semantic_labels(masks, boxes, [2, 0, 1], (1, 4)).tolist() == [[3, 3, 2, 1]]


def test_equal_boxes_are_not_nested():
    masks = [masked("##"), masked("#.")]
    boxes = np.concatenate([box(0, 0, 2, 1)] * 2)
    assert semantic_labels(masks, boxes, [0, 1], (1, 2)).tolist() == [[255, 1]]


def test_doubt_is_255_whatever_another_object_says():
    masks = [masked("##??.."), masked("..##?.")]
    boxes = np.concatenate([box(0, 0, 4, 1), box(2, 0, 6, 1)])
    assert semantic_labels(masks, boxes, [0, 0], (1, 6)).tolist() == [[1, 1, 255, 255, 255, 0]]


def test_boxes_without_a_mask_are_255_where_they_would_be_background():
    masks = [masked("##?... ......"), masked("..##.. ......")]
    boxes = np.concatenate([box(0, 0, 3, 1), box(2, 0, 4, 1)])
    unmasked = np.concatenate([box(1, 0, 5, 1), box(4, 0, 5, 2)])
    found = semantic_labels(masks, boxes, [0, 1], (2, 6), unmasked_xyxy=unmasked)
    assert found.tolist() == [[1, 1, 255, 2, 255, 0], [0, 0, 0, 0, 255, 0]]


def test_no_object_is_all_background():
    found = semantic_labels([], np.zeros((0, 4), np.float32), [], (2, 3))
    assert found.tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("boxes", "classes", "size", "message"),
    [
        (box(0, 0, 2, 1), [0, 1], (1, 2), r"classes 1, one a mask, got \(1, 4\) and 2"),
        (np.zeros((2, 4)), [0], (1, 2), r"boxes_xyxy must be \(1, 4\)"),
        (box(0, 0, 2, 1), [0], (1, 3), r"\(1, 3\) pixels \(h, w\), got \(1, 2\)"),
        (box(0, 0, 2, 1), [254], (1, 2), "0 to 253, got 254"),
        (box(0, 0, 2, 1), [-1], (1, 2), "got -1"),
    ],
)
def test_what_does_not_fit_is_refused(boxes, classes, size, message):
    with pytest.raises(ValueError, match=message):
        semantic_labels([masked("##")], boxes, classes, size)
