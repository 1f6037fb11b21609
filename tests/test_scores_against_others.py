"""Pixel counts and ratios against scikit-learn's, average precision against pycocotools' own."""

from functools import reduce
from operator import add

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.metrics import confusion_matrix, jaccard_score, precision_recall_fscore_support

from rayseg.scores import (
    Confusion,
    ObjectGuesses,
    ObjectTruths,
    SizeCounts,
    ThresholdSweep,
    average_precision,
)

NUM_CLASSES = 4
LABELS = range(NUM_CLASSES + 1)


def draw(seed, missing=()):
    """Pairs of masks, some pixels of which are to be ignored or unsure."""
    rng = np.random.default_rng(seed)
    kept = [label for label in LABELS if label not in missing]
    for _ in range(5):
        truth, found = rng.choice(kept, (2, 13, 17)).astype(np.uint8)
        found = np.where(rng.random(truth.shape) < 0.4, truth, found)
        truth[rng.random(truth.shape) < 0.1] = 255
        found[rng.random(truth.shape) < 0.1] = 255
        yield truth, found


def flat(pairs):
    """All pixels that count, the unsure ones as background."""
    truth, found = (np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1))
    kept = truth != 255
    return truth[kept], np.where(found == 255, 0, found)[kept]


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_ratios_equal_scikit_learns(seed):
    pairs = list(draw(seed))
    whole = reduce(add, [Confusion.of(*pair, NUM_CLASSES) for pair in pairs])
    truth, found = flat(pairs)
    np.testing.assert_array_equal(whole.counts, confusion_matrix(truth, found, labels=LABELS))
    precision, recall, f1, support = precision_recall_fscore_support(truth, found, labels=LABELS)
    np.testing.assert_allclose(
        whole.overlap.iou, jaccard_score(truth, found, labels=LABELS, average=None)
    )
    np.testing.assert_allclose(whole.overlap.precision, precision)
    np.testing.assert_allclose(whole.overlap.recall, recall)
    np.testing.assert_allclose(whole.overlap.f1, f1)
    np.testing.assert_array_equal(whole.overlap.truth, support)
    assert whole.mean_iou() == pytest.approx(jaccard_score(truth, found, average="macro"))


def test_means_over_the_labels_that_occur_equal_scikit_learns():
    pairs = list(draw(3, missing=(2,)))
    whole = reduce(add, [Confusion.of(*pair, NUM_CLASSES) for pair in pairs])
    truth, found = flat(pairs)
    assert np.isnan(whole.overlap.iou[2])
    assert whole.mean_iou() == pytest.approx(jaccard_score(truth, found, average="macro"))
    some = [1, 2, 4]
    expected = jaccard_score(truth, found, labels=[1, 4], average="macro")
    assert whole.mean_iou(some) == pytest.approx(expected)


def test_every_threshold_of_a_sweep_equals_scikit_learns():
    rng = np.random.default_rng(5)
    (truth, _), thresholds = next(draw(4)), (0.2, 0.5, 0.7)
    maps = rng.random((2, *truth.shape)).astype(np.float32)
    sweep = ThresholdSweep.of(truth, maps, (3, 0), NUM_CLASSES, thresholds)
    for i, threshold in enumerate(thresholds):
        planes = np.concatenate([np.full((1, *truth.shape), threshold, np.float32), maps])
        pair = flat([(truth, np.array([0, 4, 1])[planes.argmax(0)])])
        expected = jaccard_score(*pair, labels=LABELS, average=None)
        np.testing.assert_allclose(sweep.overlap.iou[i], expected)


def test_bands_of_size_are_the_counts_of_their_own_images():
    pairs, bounds = list(draw(6)), (30, 40)
    sizes = reduce(add, [SizeCounts.of(Confusion.of(*p, NUM_CLASSES), bounds) for p in pairs])
    for label in LABELS[1:]:
        area = [(truth == label).sum() for truth, _ in pairs]
        for name, (low, high) in {"small": (1, 30), "medium": (30, 40), "large": (40, 999)}.items():
            own = [pair for pair, pixels in zip(pairs, area, strict=True) if low <= pixels < high]
            assert sizes.regions[("small", "medium", "large").index(name), label] == len(own)
            if own:
                expected = jaccard_score(*flat(own), labels=[label], average=None)
                np.testing.assert_allclose(sizes.band(name).iou[label], expected)


def crowded(rng, truths):
    """More than a hundred guesses of a class, many of them near an object."""
    near = np.repeat(truths, 40, 0) + rng.normal(0, 3, (40 * len(truths), 4))
    corner = rng.uniform(0, 80, (60, 2))
    boxes = np.concatenate(
        [near, np.concatenate([corner, corner + rng.uniform(5, 60, (60, 2))], 1)]
    )
    return boxes[((boxes[:, 2:] - boxes[:, :2]) > 1).all(1)].astype(np.float32)


def entries(boxes, classes, image, first, **more):
    for i, (x1, y1, x2, y2) in enumerate(boxes.astype(float).tolist()):
        box = [x1, y1, x2 - x1, y2 - y1]
        own = {key: float(values[i]) for key, values in more.items()}
        yield {
            "id": first + i, "image_id": image, "category_id": int(classes[i]) + 1, "bbox": box,
            "area": box[2] * box[3], "iscrowd": 0,
        } | own  # fmt: skip


def test_precision_of_crowded_images_equals_pycocotools_own(capsys):
    """All figures of its summary, and those of each class, where only a hundred guesses count."""
    rng = np.random.default_rng(0)
    truths, guesses, true, found = {}, {}, [], []
    for image in range(4):
        corner = rng.uniform(0, 60, (6, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 130, (6, 2))], 1).astype(np.float32)
        classes = rng.integers(0, 2, 6)
        said = crowded(rng, boxes)
        kinds, scores = rng.integers(0, 2, len(said)), rng.permutation(len(said)) / len(said)
        none = np.zeros(6, bool)
        truths[f"{image}"] = ObjectTruths((200, 200), boxes, classes, none, none)
        guesses[f"{image}"] = ObjectGuesses(said, kinds, scores)
        true += entries(boxes, classes, image, 1 + 1000 * image)
        found += entries(said, kinds, image, 1 + 1000 * image, score=scores)
        assert np.bincount(kinds).min() > 100
    official = COCO()
    official.dataset = {
        "images": [{"id": i, "height": 200, "width": 200} for i in range(4)],
        "annotations": true,
        "categories": [{"id": 1}, {"id": 2}],
    }
    official.createIndex()
    judged = COCOeval(official, official.loadRes(found), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    capsys.readouterr()
    ours = average_precision(truths, guesses, 2, "boxes")
    entry = ours.as_dict()
    figures = [entry[key] for key in ("ap", "ap50", "ap75", "small", "medium", "large")]
    np.testing.assert_allclose(figures, judged.stats[:6])
    np.testing.assert_allclose(
        ours.by_class, judged.eval["precision"][:, :, :, 0, -1].mean((0, 1)), rtol=1e-12
    )
    assert 0.05 < ours.ap < 0.95
