from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rayseg.records.rle import as_rle, decode_mask, encode_mask, mask_area
from rayseg.scores import (
    MaskQuality,
    ObjectGuesses,
    ObjectTruths,
    average_best_overlap,
    average_precision,
    mask_iou,
)
from rayseg.scores.instances import IOU_THRESHOLDS
from tests.reference import ap_literal as literal

SIZE = (16, 20)
BOUNDS = (20, 60)


def draw_boxes(rng, number):
    low = rng.integers(0, (SIZE[1] - 3, SIZE[0] - 3), (number, 2))
    return np.concatenate([low, low + rng.integers(2, 10, (number, 2))], 1).astype(np.float32)


def filled(box, size_hw=SIZE):
    x1, y1, x2, y2 = (int(side) for side in box)
    mask = np.zeros(size_hw, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def draw_masks(rng, boxes):
    """Boxes with some of their pixels gone."""
    return [filled(box) & (rng.random(SIZE) < 0.8) for box in boxes]


def draw_image(rng, num_classes=2):
    number = int(rng.integers(0, 5))
    boxes = draw_boxes(rng, number)
    ignored, crowd = rng.random((2, number)) < 0.2
    truth = ObjectTruths(
        SIZE,
        boxes,
        rng.integers(0, num_classes, number),
        ignored,
        crowd,
        tuple(map(encode_mask, draw_masks(rng, boxes))),
    )
    near = boxes[rng.integers(0, number, 4)] if number else draw_boxes(rng, 4)
    found = np.concatenate([near + rng.integers(-1, 2, (4, 4)), draw_boxes(rng, 2)])
    found = np.clip(found, 0, (SIZE[1], SIZE[0]) * 2).astype(np.float32)
    keep = ((found[:, 2:] - found[:, :2]) > 0).all(1)
    found = found[keep]
    guess = ObjectGuesses(
        found,
        rng.integers(0, num_classes, len(found)),
        rng.random(len(found)),
        tuple(map(encode_mask, draw_masks(rng, found))),
    )
    return truth, guess


def as_sets(truth, guess, category, kind):
    """An image's objects of one class for the literal version."""

    def entries(one):
        for i in np.flatnonzero(one.classes == category):
            mask = decode_mask(one.masks[i], SIZE)
            shape = mask if kind == "masks" else filled(one.boxes_xyxy[i], (30, 40))
            yield i, literal.pixels(shape), int(mask.sum())

    true = [
        {"pixels": p, "area": area, "ignored": truth.ignored[i], "crowd": truth.crowd[i]}
        for i, p, area in entries(truth)
    ]
    found = [{"pixels": p, "area": len(p), "score": guess.scores[i]} for i, p, _ in entries(guess)]
    return true, found


def one(boxes, classes=None, scores=None, ignored=None, crowd=None, size_hw=(100, 100)):
    """A truth, or a guess where scores are given, whose masks fill their boxes."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    number = len(boxes)
    classes = np.array(classes if classes is not None else [0] * number, np.int64)
    masks = tuple(encode_mask(filled(box, size_hw)) for box in boxes)
    if scores is not None:
        return ObjectGuesses(boxes, classes, np.array(scores, float), masks)
    marks = [np.array(m if m is not None else [0] * number, bool) for m in (ignored, crowd)]
    return ObjectTruths(size_hw, boxes, classes, *marks, masks)


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize("seed", range(6))
def test_precision_equals_a_literal_count(kind, seed):
    rng = np.random.default_rng(seed)
    images = {f"{i}": draw_image(rng) for i in range(12)}
    truths, guesses = ({k: v[i] for k, v in images.items()} for i in range(2))
    scores = average_precision(truths, guesses, 3, kind, BOUNDS)
    spans = [(0, 10**10), (0, BOUNDS[0]), BOUNDS, (BOUNDS[1], 10**10)]
    for category in range(3):
        sets = [as_sets(*images[k], category, kind) for k in sorted(images)]
        for t, threshold in enumerate(IOU_THRESHOLDS):
            for a, span in enumerate(spans):
                expected = literal.precision(sets, threshold, *span)
                np.testing.assert_allclose(
                    scores.table[t, category, a], np.nan if expected is None else expected
                )
    assert not np.isnan(scores.by_class[:2]).any(), "the draw must hold both classes"


def as_json(part, image, first):
    """Annotations or results of an image as pycocotools takes them."""
    sides = part.boxes_xyxy.astype(float)
    entries = []
    for i, (x1, y1, x2, y2) in enumerate(sides.tolist()):
        entry = {"id": first + i, "image_id": image, "category_id": int(part.classes[i]) + 1}
        entry |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "segmentation": as_rle(part.masks[i], SIZE)}
        if isinstance(part, ObjectTruths):
            area = mask_area(part.masks[i], SIZE)
            entry |= {"area": area, "iscrowd": int(part.crowd[i])}
        else:
            entry |= {"score": float(part.scores[i])}
        entries.append(entry)
    return entries


@pytest.mark.parametrize(("kind", "iou_type"), [("boxes", "bbox"), ("masks", "segm")])
def test_precision_equals_pycocotools_own_where_crowds_alone_are_ignored(kind, iou_type):
    rng = np.random.default_rng(11)
    images = [draw_image(rng) for _ in range(12)]
    images = [(replace(truth, ignored=truth.crowd), guess) for truth, guess in images]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(12)],
        "annotations": [e for i, (t, _) in enumerate(images) for e in as_json(t, i, 1 + 50 * i)],
        "categories": [{"id": 1}, {"id": 2}],
    }
    truth.createIndex()
    results = [e for i, (_, guess) in enumerate(images) for e in as_json(guess, i, 1)]
    if kind == "masks":
        results = [{k: v for k, v in entry.items() if k != "bbox"} for entry in results]
    official = COCOeval(truth, truth.loadRes(results), iou_type)
    official.evaluate()
    official.accumulate()
    official.summarize()
    ids = [f"{i:02d}" for i in range(12)]
    truths, guesses = ({i: pair[k] for i, pair in zip(ids, images, strict=True)} for k in (0, 1))
    scores = average_precision(truths, guesses, 2, kind)
    np.testing.assert_allclose(
        [scores.ap, scores.at(0.5), scores.at(0.75), scores.as_dict()["small"]], official.stats[:4]
    )


def test_best_overlap_equals_a_literal_count():
    rng = np.random.default_rng(3)
    images = {f"{i}": draw_image(rng) for i in range(8)}
    truths, guesses = ({k: v[i] for k, v in images.items()} for i in range(2))
    by_class = [[as_sets(*pair, c, "masks") for pair in images.values()] for c in range(3)]
    found = average_best_overlap(truths, guesses, 3)
    assert found == pytest.approx(literal.best_overlap(by_class))


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_the_truth_itself_scores_one(kind):
    boxes, classes = [[1, 2, 21, 30], [50, 50, 90, 95], [5, 40, 45, 99]], [0, 2, 2]
    scores = average_precision(
        {"a": one(boxes, classes)}, {"a": one(boxes, classes, [0.3, 0.9, 0.1])}, 3, kind
    )
    entry = scores.as_dict()
    assert [entry[k] for k in ("ap", "ap25", "ap50", "ap70", "ap75")] == pytest.approx([1] * 5)
    assert entry["ap_by_class"] == [pytest.approx(1), None, pytest.approx(1)]
    assert entry["small"] == entry["medium"] or entry["small"] == pytest.approx(1)
    assert entry["large"] is None


def test_a_guess_twice_is_false_the_second_time():
    truth = one([[0, 0, 10, 10], [20, 20, 40, 40]])
    guess = one([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]], scores=[0.9, 0.8, 0.7])
    scores = average_precision({"a": truth}, {"a": guess}, 1, "boxes")
    # recall up to .5 at precision 1, the 50 recalls above it at 2 / 3
    assert scores.ap == pytest.approx((51 + 50 * 2 / 3) / 101)


@pytest.mark.parametrize("false_first", range(4))
def test_a_guess_twice_is_false_after_any_number_of_false_ones(false_first):
    boxes = [[60, 60, 80, 80]] * false_first + [[0, 0, 10, 10]] * 3
    guess = one(boxes, scores=np.linspace(0.9, 0.1, len(boxes)))
    scores = average_precision({"a": one([[0, 0, 10, 10]])}, {"a": guess}, 1, "boxes")
    assert scores.ap == pytest.approx(1 / (1 + false_first))


@pytest.mark.parametrize("kind", ["boxes", "masks"])
@pytest.mark.parametrize(("better", "expected"), [(99, 1 / 100), (100, 0)])
def test_the_likeliest_hundred_guesses_of_a_class_in_an_image_count(kind, better, expected):
    box, elsewhere = [10, 10, 40, 40], [60, 60, 80, 80]
    scores = [1.0, *(2.0 + i for i in range(better)), *(3.0 + i for i in range(150))]
    classes = [0] * (1 + better) + [1] * 150  # another class's guesses take no place
    guess = one([box] + [elsewhere] * (better + 150), classes, scores)
    found = average_precision({"a": one([box])}, {"a": guess}, 2, kind)
    assert found.ap == pytest.approx(expected)


def test_any_number_of_guesses_of_a_difficult_object_count_for_nothing():
    truth = one([[0, 0, 10, 10], [20, 20, 40, 40]], ignored=[1, 0])
    guess = one([[0, 0, 10, 10], [0, 0, 10, 10], [20, 20, 40, 40]], scores=[0.9, 0.8, 0.7])
    assert average_precision({"a": truth}, {"a": guess}, 1, "boxes").ap == pytest.approx(1)


def test_a_part_of_a_crowd_is_no_false_guess_but_a_part_of_a_difficult_object_is():
    boxes, part = [[0, 0, 60, 60], [80, 80, 99, 99]], [[10, 10, 20, 20], [80, 80, 99, 99]]
    guess = {"a": one(part, scores=[0.9, 0.5])}
    for kind in ("boxes", "masks"):
        crowd = {"a": one(boxes, ignored=[1, 0], crowd=[1, 0])}
        assert average_precision(crowd, guess, 1, kind).ap == pytest.approx(1)
        difficult = {"a": one(boxes, ignored=[1, 0])}
        assert average_precision(difficult, guess, 1, kind).ap == pytest.approx(0.5)


def test_images_without_truth_or_guess():
    truth, nothing = one([[0, 0, 10, 10]]), one([])
    guess, silence = one([[0, 0, 10, 10]], scores=[0.5]), one([], scores=[])
    half = average_precision({"a": truth, "b": truth}, {"a": guess, "b": silence}, 1, "masks").ap
    assert half == pytest.approx(51 / 101)
    assert average_precision({"a": truth, "b": truth}, {"a": guess}, 1, "masks").ap == half
    sure = one([[0, 0, 10, 10]], scores=[0.9])
    falsely = average_precision({"a": truth, "b": nothing}, {"a": guess, "b": sure}, 1, "boxes")
    assert falsely.ap == pytest.approx(0.5)
    assert average_precision({"a": truth}, {}, 1, "boxes").ap == 0
    empty = average_precision({"a": nothing}, {"a": guess}, 1, "boxes").as_dict()
    assert empty["ap"] is None
    assert empty["ap_by_class"] == [None]
    assert average_precision({}, {}, 2, "boxes").as_dict()["ap50"] is None


def test_a_box_without_a_pixel_is_not_missed():
    boxes = [[0, 0, 10, 10], [5, 5, 5, 9], [9, 9, 2, 2], [200, 200, 210, 210]]
    guess = one(boxes[:1], scores=[0.5])
    assert average_precision({"a": one(boxes)}, {"a": guess}, 1, "boxes").ap == pytest.approx(1)


def test_the_order_of_images_and_objects_does_not_matter():
    rng = np.random.default_rng(5)
    images = {f"{i}": draw_image(rng) for i in range(6)}

    def turned(part):
        names = ("boxes_xyxy", "classes", "ignored", "crowd", "scores", "masks")
        fields = {n: getattr(part, n)[::-1] for n in names if hasattr(part, n)}
        return type(part)(**({"size_hw": SIZE} if "crowd" in fields else {}), **fields)

    forth = average_precision(*({k: v[i] for k, v in images.items()} for i in (0, 1)), 2, "masks")
    backwards = dict(reversed(images.items()))
    back = average_precision(
        *({k: turned(v[i]) for k, v in backwards.items()} for i in (0, 1)), 2, "masks"
    )
    np.testing.assert_allclose(forth.table, back.table)


def test_nothing_is_printed(capsys):
    average_precision({"a": one([[0, 0, 5, 5]])}, {}, 1, "boxes")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("truths", "guesses", "message"),
    [
        ({}, {"a": one([], scores=[])}, "0 images with truth, got 'a'"),
        ({"a": one([[0, 0, 1, 1]], [3])}, {}, r"classes of truths must be 0..2"),
        (
            {"a": ObjectTruths(SIZE, np.zeros((1, 4)), *np.zeros((3, 1), int))},
            {},
            "must have 1 masks for 'a', got 0",
        ),
        (
            {"a": ObjectTruths(SIZE, np.zeros((1, 4)), *np.zeros((3, 1), int), (b"",))},
            {},
            "'a' lacks one",
        ),
    ],
)
def test_contradictions_are_errors(truths, guesses, message):
    for score in (partial(average_precision, kind="masks"), average_best_overlap):
        with pytest.raises(ValueError, match=message):
            score(truths, guesses, 3)


def test_parts_of_unequal_number_are_refused():
    with pytest.raises(ValueError, match="scores must be 2, one a box, got 1"):
        ObjectGuesses(np.zeros((2, 4)), np.zeros(2, int), np.zeros(1))
    with pytest.raises(ValueError, match="masks must be 2, one a box, or none, got 1"):
        ObjectGuesses(np.zeros((2, 4)), np.zeros(2, int), np.zeros(2), (b"",))


def test_best_overlap_means_over_objects_then_classes():
    truth = one([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], [0, 0, 1])
    guess = one([[0, 0, 10, 5], [0, 0, 10, 8], [50, 50, 60, 60]], [0, 0, 1], [0.1, 0.9, 0.5])
    found = average_best_overlap({"a": truth}, {"a": guess}, 4)
    assert found == pytest.approx(((0.8 + 0) / 2 + 1) / 2)
    assert average_best_overlap({"a": one([])}, {}, 4) is None


def test_ignored_pixels_are_cut_from_all_masks_before_they_are_compared():
    rng = np.random.default_rng(7)
    images = {f"{i}": draw_image(rng) for i in range(8)}
    counted = rng.random(SIZE) < 0.7
    cut = {
        id_: [replace(one, masks=tuple(own(mask, counted) for mask in one.masks)) for one in pair]
        for id_, pair in images.items()
    }
    marked = {
        id_: replace(truth, counted=encode_mask(counted)) for id_, (truth, _) in images.items()
    }
    guesses = {id_: guess for id_, (_, guess) in images.items()}
    by_hand = [{id_: pair[i] for id_, pair in cut.items()} for i in range(2)]
    found, expected = (
        average_precision(*pair, 2, "masks", BOUNDS).table for pair in ((marked, guesses), by_hand)
    )
    np.testing.assert_array_equal(found, expected)
    assert average_best_overlap(marked, guesses, 2) == average_best_overlap(*by_hand, 2)
    boxes = [average_precision(one, guesses, 2, "boxes").table for one in (marked, by_hand[0])]
    np.testing.assert_array_equal(boxes[0][..., 0], boxes[1][..., 0])


def own(mask, counted):
    return encode_mask(decode_mask(mask, SIZE) & counted)


def test_the_iou_of_two_masks_is_taken_over_the_pixels_that_count():
    mask, truth = filled([0, 0, 10, 10]), filled([0, 0, 5, 10])
    assert mask_iou(mask, truth, np.ones(SIZE, bool)) == 0.5
    assert mask_iou(mask, truth, truth) == 1
    assert mask_iou(mask, truth, ~mask) == 0


def test_mask_quality_means_over_all_objects_and_those_of_a_size():
    quality = MaskQuality(np.array([1, 0.5, 0, 1]), np.array([16, 49, 50, 15]), (16, 50))
    assert quality.as_dict() == {
        "objects": 4,
        "mean_iou": 0.625,
        "iou_over_50": 0.5,
        "small": 1,
        "medium": 0.75,
        "large": 0,
        "bounds_px": [16, 50],
    }


def test_mask_quality_of_nothing_is_unknown():
    entry = MaskQuality(np.zeros(0), np.zeros(0, int)).as_dict()
    assert (entry["objects"], entry["mean_iou"], entry["iou_over_50"]) == (0, None, None)
    assert (entry["small"], entry["medium"], entry["large"]) == (None, None, None)
