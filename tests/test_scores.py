import json
import math
from functools import reduce
from operator import add

import numpy as np
import pytest

from rayseg.scores import BANDS, Confusion, Overlap, SizeCounts, ThresholdSweep, extreme_classes
from tests.reference import scores_literal as literal

THRESHOLDS = tuple(np.arange(0.05, 0.95, 0.05).tolist())


def draw(rng, shape=(5, 6), num_classes=3, ignore=0.15):
    labels = rng.integers(0, num_classes + 1, shape).astype(np.uint8)
    labels[rng.random(shape) < ignore] = 255
    return labels


def draw_maps(rng, classes, shape=(5, 6)):
    """Maps in which many values equal a threshold, and each other, to the last bit."""
    maps = rng.random((len(classes), *shape)).astype(np.float32)
    tied = rng.choice(np.array(THRESHOLDS, np.float32), maps.shape)
    maps = np.where(rng.random(maps.shape) < 0.6, tied, maps)
    if len(classes) > 1:
        maps[1] = np.where(rng.random(shape) < 0.5, maps[0], maps[1])
    return maps


def test_confusion_equals_a_count_of_single_pixels():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth, predicted = draw(rng), draw(rng)
        counts = Confusion.of(truth, predicted, 3).counts
        assert counts.tolist() == literal.confusion(truth, predicted, 3)


def test_a_case_counted_by_hand():
    truth = np.array([[0, 0, 1], [1, 255, 2]], np.uint8)
    predicted = np.array([[0, 1, 1], [255, 2, 0]], np.uint8)
    confusion = Confusion.of(truth, predicted, 3)
    assert confusion.counts.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(confusion.overlap.iou, [1 / 4, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(confusion.overlap.precision, [1 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(confusion.overlap.recall, [1 / 2, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(confusion.overlap.f1, [0.4, 0.5, 0, np.nan])
    assert confusion.mean_iou() == pytest.approx((1 / 4 + 1 / 3) / 3)
    assert confusion.mean_iou([0, 1]) == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert confusion.present == (0, 1, 2)


def test_ratios_equal_fractions():
    rng = np.random.default_rng(1)
    for _ in range(20):
        # sparse counts, so that empty rows, columns and labels occur
        counts = rng.integers(0, 4, (5, 5)) * (rng.random((5, 5)) < 0.3)
        confusion = Confusion(counts.astype(np.int64))
        for label in range(5):
            expected = literal.ratios(counts.tolist(), label)
            found = [
                getattr(confusion.overlap, n)[label] for n in ("iou", "precision", "recall", "f1")
            ]
            if expected is None:
                assert np.isnan(found).all()
            else:
                np.testing.assert_allclose(found, [float(value) for value in expected])
        expected = literal.mean_iou(counts.tolist(), range(5))
        assert confusion.mean_iou() == pytest.approx(
            math.nan if expected is None else expected, nan_ok=True
        )


def test_counts_add_as_if_the_images_were_one():
    rng = np.random.default_rng(2)
    truths, found = [draw(rng) for _ in range(4)], [draw(rng) for _ in range(4)]
    parts = [Confusion.of(t, p, 3) for t, p in zip(truths, found, strict=True)]
    whole = Confusion.of(np.concatenate(truths), np.concatenate(found), 3)
    assert (reduce(add, parts, Confusion.zeros(3)).counts == whole.counts).all()
    assert (reduce(add, parts[::-1]).counts == whole.counts).all()


def test_mean_is_of_the_sum_and_not_over_images():
    right = Confusion.of(np.ones((1, 9), np.uint8), np.ones((1, 9), np.uint8), 1)
    wrong = Confusion.of(np.ones((1, 1), np.uint8), np.zeros((1, 1), np.uint8), 1)
    assert (right + wrong).overlap.iou[1] == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("precision", "recall", "f1"),
    [
        (61.9, 72.7, 66.9),
        (66.5, 73.2, 69.7),
        (67.2, 76.5, 71.5),
        (68.5, 76.7, 72.4),
        (66.8, 77.6, 71.8),
        (71.5, 77.9, 74.6),
    ],
)
def test_f1_of_means_is_that_of_table_4_1(precision, recall, f1):
    # one label whose precision and recall are the table's, to a tenth of a percent
    hit = 10**9
    counts = [np.array([round(hit / share)]) for share in (1, recall / 100, precision / 100)]
    means = Overlap(*counts).over()
    assert 100 * means.f1 == pytest.approx(f1, abs=0.06)


def test_mean_f1_is_the_harmonic_mean_of_the_means():
    confusion = Confusion(np.array([[6, 2, 0], [0, 4, 4], [3, 0, 1]], np.int64))
    means = confusion.over()
    precision, recall = confusion.overlap.precision.mean(), confusion.overlap.recall.mean()
    assert means.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert means.f1 > confusion.overlap.f1.mean()


def test_nothing_counted_is_nan_without_a_warning():
    means = Confusion.zeros(2).over()
    assert all(math.isnan(value) for value in vars(means).values())
    assert means.as_dict() == dict.fromkeys(vars(means))


@pytest.mark.parametrize(
    ("truth", "predicted", "error", "message"),
    [
        (
            np.zeros((2, 3), np.uint8),
            np.zeros((3, 2), np.uint8),
            ValueError,
            r"\(2, 3\) and \(3, 2\)",
        ),
        (np.full((2, 2), 4, np.uint8), np.zeros((2, 2), np.uint8), ValueError, "truth .* got 4"),
        (np.zeros((2, 2), np.uint8), np.full((2, 2), -1), ValueError, "predicted .* got -1"),
        (np.zeros((2, 2)), np.zeros((2, 2), np.uint8), TypeError, "float64"),
    ],
)
def test_bad_labels_are_refused(truth, predicted, error, message):
    with pytest.raises(error, match=message):
        Confusion.of(truth, predicted, 3)


def test_counts_of_other_datasets_do_not_add():
    with pytest.raises(ValueError, match="3 and 2"):
        Confusion.zeros(3) + Confusion.zeros(2)
    with pytest.raises(ValueError, match="thresholds"):
        ThresholdSweep.zeros(3, [0.1]) + ThresholdSweep.zeros(3, [0.2])
    with pytest.raises(ValueError, match="bounds"):
        SizeCounts.zeros(3) + SizeCounts.zeros(3, (4, 9))


def test_a_label_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="0 to 3"):
        Confusion.zeros(3).over([4])


@pytest.mark.parametrize("classes", [(), (1,), (0, 2), (2, 0, 1)])
def test_sweep_equals_one_argmax_a_threshold(classes):
    rng = np.random.default_rng(3)
    for _ in range(10):
        truth, maps = draw(rng), draw_maps(rng, classes)
        sweep = ThresholdSweep.of(truth, maps, classes, 3, THRESHOLDS)
        for index, threshold in enumerate(THRESHOLDS):
            labels = literal.predict(maps, classes, threshold)
            expected = literal.confusion(truth, labels, 3)
            assert sweep.confusion(index).counts.tolist() == expected


def test_sweep_of_a_value_at_its_threshold_is_background():
    maps = np.array([[[0.3, np.nextafter(np.float32(0.3), np.float32(1))]]], np.float32)
    sweep = ThresholdSweep.of(np.ones((1, 2), np.uint8), maps, [0], 1, [0.3])
    assert sweep.confusion(0).counts.tolist() == [[0, 0], [1, 1]]


def test_sweeps_add_and_their_curve_is_that_of_the_confusions():
    rng = np.random.default_rng(4)
    parts = []
    for classes in [(0,), (1, 2), (), (0, 1, 2)]:
        parts.append(ThresholdSweep.of(draw(rng), draw_maps(rng, classes), classes, 3, THRESHOLDS))
    total = reduce(add, parts, ThresholdSweep.zeros(3, THRESHOLDS))
    for index in range(len(THRESHOLDS)):
        summed = reduce(add, [part.confusion(index) for part in parts])
        assert (total.confusion(index).counts == summed.counts).all()
        assert total.mean_iou()[index] == pytest.approx(summed.mean_iou())
        assert total.mean_iou([0, 2])[index] == pytest.approx(summed.mean_iou([0, 2]))
        np.testing.assert_allclose(total.overlap.precision[index], summed.overlap.precision)
        np.testing.assert_allclose(total.overlap.recall[index], summed.overlap.recall)


def test_best_is_the_top_of_the_curve():
    rng = np.random.default_rng(5)
    sweep = ThresholdSweep.of(draw(rng), draw_maps(rng, (0, 1, 2)), (0, 1, 2), 3, THRESHOLDS)
    for labels in (None, [3]):
        threshold, curve = sweep.best(labels), sweep.mean_iou(labels)
        confusion = sweep.confusion(THRESHOLDS.index(threshold))
        assert confusion.mean_iou(labels) == pytest.approx(curve.max())
        assert (curve[: THRESHOLDS.index(threshold)] < curve.max()).all()


def test_an_empty_sweep_has_no_best():
    assert ThresholdSweep.zeros(2, [0.1, 0.2]).best() is None
    assert ThresholdSweep.zeros(2, [0.1, 0.2]).as_dict()["miou"] == [None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": np.zeros((2, 4, 4), np.float32)}, r"float32 \(1, 4, 4\)"),
        ({"maps": np.zeros((1, 4, 4))}, "float64"),
        ({"maps": np.full((1, 4, 4), np.nan, np.float32)}, "nan"),
        ({"classes": [3]}, "0 to 2"),
        ({"thresholds": [0.2, 0.2]}, "ascend"),
        ({"thresholds": []}, "ascend"),
        ({"truth": np.full((4, 4), 9, np.uint8)}, "got 9"),
    ],
)
def test_sweep_refuses_what_does_not_fit(change, message):
    given = {
        "truth": np.zeros((4, 4), np.uint8),
        "maps": np.zeros((1, 4, 4), np.float32),
        "classes": [0],
        "num_classes": 3,
        "thresholds": [0.1, 0.2],
    }
    with pytest.raises(ValueError, match=message):
        ThresholdSweep.of(**(given | change))


def test_size_bands_equal_a_count_of_single_images():
    rng = np.random.default_rng(6)
    bounds = (5, 9)
    pairs = [(draw(rng), draw(rng, ignore=0)) for _ in range(12)]
    sizes = reduce(add, [SizeCounts.of(Confusion.of(t, p, 3), bounds) for t, p in pairs])
    for label in range(4):
        expected = dict.fromkeys(BANDS, 0) | {"absent": 12}
        hits = dict.fromkeys(BANDS, 0)
        for truth, predicted in pairs:
            for size in literal.region_sizes([truth], label):
                name = literal.band(size, *bounds)
                expected[name] += 1
                expected["absent"] -= 1
                hits[name] += int(((truth == label) & (predicted == label)).sum())
        assert dict(zip(BANDS, sizes.regions[:, label].tolist(), strict=True)) == expected
        assert dict(zip(BANDS, sizes.intersection[:, label].tolist(), strict=True)) == hits
        areas = literal.region_sizes([truth for truth, _ in pairs], label)
        assert sizes.mean_size_px[label] == pytest.approx(np.mean(areas))


def test_size_bands_sum_to_the_whole_confusion():
    rng = np.random.default_rng(7)
    images = [Confusion.of(draw(rng), draw(rng), 3) for _ in range(6)]
    sizes = reduce(add, map(SizeCounts.of, images), SizeCounts.zeros(3))
    whole = reduce(add, images)
    np.testing.assert_array_equal(sizes.total.iou, whole.overlap.iou)
    np.testing.assert_array_equal(sizes.total.precision, whole.overlap.precision)
    np.testing.assert_array_equal(sizes.total.recall, whole.overlap.recall)


def test_means_of_a_band_are_over_its_classes_without_background():
    truth = np.zeros((3, 4), np.uint8)
    truth[0, :2], truth[1] = 1, 2
    predicted = np.zeros_like(truth)
    predicted[0, 0], predicted[1, :3] = 1, 2
    sizes = SizeCounts.of(Confusion.of(truth, predicted, 3), (3, 20))
    assert sizes.over("small").iou == 1 / 2
    assert sizes.over("medium").iou == 3 / 4  # background's 6 pixels lie in the band as well
    assert sizes.over("medium").recall == 3 / 4
    assert math.isnan(sizes.over("large").iou)


def test_a_size_at_a_bound_is_the_larger_band():
    truth = np.zeros((1, 20), np.uint8)
    truth[0, :5], truth[0, 5:9] = 1, 2
    sizes = SizeCounts.of(Confusion.of(truth, truth, 3), (5, 6))
    assert [BANDS[row] for row in sizes.regions.argmax(0)] == ["large", "medium", "small", "absent"]


@pytest.mark.parametrize(
    ("pixels", "band"), [(1023, "small"), (1024, "medium"), (9215, "medium"), (9216, "large")]
)
def test_the_bounds_of_size_are_cocos(pixels, band):
    truth = (np.arange(10_000).reshape(100, 100) < pixels).astype(np.uint8)
    sizes = SizeCounts.of(Confusion.of(truth, truth, 1))
    assert BANDS[sizes.regions[:, 1].argmax()] == band


def test_pixels_of_a_class_that_the_image_lacks_are_in_no_size():
    zeros, ones = np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)
    sizes = SizeCounts.of(Confusion.of(zeros, ones, 1), (4, 9))
    assert sizes.predicted[:, 1].tolist() == [0, 0, 0, 9]
    assert math.isnan(sizes.over("small").iou)


@pytest.mark.parametrize(
    ("mean_sizes", "smallest", "largest"),
    [
        ([99.0, 5, 3, 9, 1], (4, 2), (1, 3)),
        ([99.0, 5, 3, 9], (2,), (3,)),
        ([99.0, 5, np.nan, 9], (1,), (3,)),
        ([99.0, 5], (), ()),
        ([0.0, *range(30, 0, -1)], tuple(range(30, 20, -1)), tuple(range(10, 0, -1))),
    ],
)
def test_ends_of_the_classes_by_size(mean_sizes, smallest, largest):
    assert extreme_classes(np.array(mean_sizes)) == (smallest, largest)


def test_means_of_the_ends_are_means_of_the_confusion():
    rng = np.random.default_rng(8)
    images = [Confusion.of(draw(rng, (9, 9), 6), draw(rng, (9, 9), 6), 6) for _ in range(5)]
    sizes, whole = reduce(add, map(SizeCounts.of, images)), reduce(add, images)
    ends = sizes.by_class_size(2)
    smallest, largest = extreme_classes(sizes.mean_size_px, 2)
    assert not set(smallest) & set(largest)
    assert ends["smallest"] == whole.over(smallest)
    assert ends["largest"] == whole.over(largest)


def test_ten_classes_are_at_each_end():
    truth = np.repeat(np.arange(1, 26), np.arange(1, 26)).astype(np.uint8)[None]
    rng = np.random.default_rng(10)
    confusion = Confusion.of(truth, rng.permuted(truth), 25)
    ends = SizeCounts.of(confusion).by_class_size()
    assert ends["smallest"] == confusion.over(range(1, 11))
    assert ends["largest"] == confusion.over(range(16, 26))


def test_dicts_are_json_without_nan():
    rng = np.random.default_rng(9)
    truth = draw(rng, num_classes=2)  # class index 2 never occurs
    confusion = Confusion.of(truth, draw(rng, num_classes=2), 3)
    sweep = ThresholdSweep.of(truth, draw_maps(rng, (0, 1)), (0, 1), 3, THRESHOLDS)
    parts = (confusion.over([3]), sweep, SizeCounts.of(confusion))
    for found in [*(part.as_dict() for part in parts), sweep.as_dict([3])]:
        assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert confusion.over([3]).as_dict()["iou"] is None
