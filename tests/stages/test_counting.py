import re

import numpy as np
import pytest
from PIL import Image

from rayseg.labels import Truths
from rayseg.records.palette import encode_labels
from rayseg.refine import Threshold
from rayseg.scores import Confusion, ThresholdSweep
from rayseg.stages import CountLabels, RefineSeeds, SweepSeeds, enlarge
from rayseg.store import unpack_seeds
from tests.bad_images import encode


def grey(labels, mode="L"):
    return encode(Image.fromarray(labels).convert(mode))


BAD_TRUTHS = {
    "is missing": None,
    "whole PNG": b"cat",
    "mode RGB": grey(np.ones((18, 22), np.uint8), "RGB"),
    r"must be \(18, 22\) as its image, got \(22, 18\)": grey(np.ones((22, 18), np.uint8)),
    "up to 3 classes, got 4": grey(np.full((18, 22), 4, np.uint8)),
}


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize(("reason", "data"), BAD_TRUTHS.items())
def test_a_bad_true_mask_costs_its_own_image(run, tmp_path, reason, data, threshold):
    manifest, rows = run
    truths = Truths(manifest)
    stage = SweepSeeds(truths, [0.5]) if threshold is None else CountLabels(truths, threshold)
    expected = stage([rows[0], rows[2]])[0]
    (tmp_path / "m1.png").unlink()
    if data is not None:
        (tmp_path / "m1.png").write_bytes(data)
    (counted,) = stage(rows)
    assert np.array_equal(counted["counts"], expected["counts"])
    assert [item["id"] for item in counted["skipped"]] == ["i1"]
    assert re.search(rf"m1\.png.* {reason}", counted["skipped"][0]["reason"])


def test_sweeping_rows_equals_one_argmax_a_threshold(run):
    manifest, rows = run
    truths, thresholds = Truths(manifest), (0.0, 0.25, 0.5, 0.9)
    (counted,) = SweepSeeds(truths, thresholds)([*rows, rows[0] | {"status": "error"}])
    zero = ThresholdSweep.zeros(3, thresholds)
    sweep = ThresholdSweep(zero.thresholds, counted["counts"].reshape(zero.counts.shape))
    assert counted["images"] == 3
    for index, threshold in enumerate(thresholds):
        expected = brute_force(truths, rows, threshold)
        assert np.array_equal(sweep.confusion(index).counts, expected)


def test_counting_rows_equals_brute_force(run):
    manifest, rows = run
    truths = Truths(manifest)
    (counted,) = CountLabels(truths, 0.5)(rows)
    assert np.array_equal(counted["counts"].reshape(4, 4), brute_force(truths, rows, 0.5))
    assert counted["ids"] == ["i0", "i1", "i2"]
    assert counted["ious"][1] == Confusion(brute_force(truths, rows[1:2], 0.5)).mean_iou()


def test_counting_masks_equals_counting_what_they_were_made_of(run):
    manifest, rows = run
    truths = Truths(manifest)
    masks = RefineSeeds(Threshold(0.5), manifest)(rows)
    (of_masks,), (of_seeds,) = CountLabels(truths)(masks), CountLabels(truths, 0.5)(rows)
    assert np.array_equal(of_masks["counts"], of_seeds["counts"])
    assert np.array_equal(of_masks["sizes"], of_seeds["sizes"])


def test_pixels_that_masks_leave_open_are_counted_where_the_truth_is_known(run):
    manifest, rows = run
    truths, rng = Truths(manifest), np.random.default_rng(3)
    labels = [rng.choice(np.array([0, 1, 255], np.uint8), truths.of(row).shape) for row in rows]
    pairs = zip(rows, labels, strict=True)
    masks = [row | {"labels": encode_labels(one)} for row, one in pairs]
    (counted,) = CountLabels(truths)(masks)
    known = [truths.of(row) != 255 for row in rows]
    assert counted["pixels"] == sum(int(one.sum()) for one in known)
    both = zip(known, labels, strict=True)
    assert counted["undecided"] == sum(int((one == 255)[kept].sum()) for kept, one in both) > 0


def brute_force(truths, rows, threshold):
    counts = np.zeros((4, 4), np.int64)
    for row in rows:
        truth, seeds = truths.of(row), unpack_seeds(row)
        maps = enlarge(seeds)
        for y, x in np.ndindex(truth.shape):
            values = [np.float32(threshold), *maps[:, y, x]]
            label = [0, *(c + 1 for c in seeds.classes)][int(np.argmax(values))]
            if truth[y, x] != 255:
                counts[truth[y, x], label] += 1
    return counts
