"""PredictLabels and SmoothLabels: a row for each row, the CRF on the planes that matter."""

from functools import partial

import numpy as np
import pytest
import torch

from rayseg.nets.deeplab import Segmenter, segmenter_facts
from rayseg.nets.prediction import Prediction
from rayseg.nets.weights import to_safetensors
from rayseg.records.palette import decode_labels
from rayseg.refine.segmenter_crf import SegmenterCRF
from rayseg.stages import PredictLabels, SmoothLabels

CLASSES = ("cat", "dog", "emu")
PREDICTION = Prediction(precision="fp32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = Segmenter("deeplab_v2", "resnet18", 4, stride=16, input_scales=(1.0,))
    path = tmp_path_factory.mktemp("segmenter") / "segmenter.safetensors"
    path.write_bytes(to_safetensors(network, segmenter_facts(network, CLASSES)))
    return str(path)


def row(id_, seed, size_hw=(40, 56), **changed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    made = {"id": id_, "status": "", "error": "", "note": "", "classes": []}
    return made | {"height": size_hw[0], "width": size_hw[1], "pixels": pixels.tobytes()} | changed


@pytest.fixture(scope="module")
def rows():
    bad = row("bad", 1, status="error", error="bad.jpg: cut short", pixels=b"")
    return [row("a", 0), bad, row("b", 2, (48, 33))]


def test_labels_are_the_likeliest_at_each_pixel(weights, rows):
    stage = PredictLabels(PREDICTION, weights, CLASSES, "cpu")
    made = stage(rows)
    assert [one["id"] for one in made] == ["a", "bad", "b"]
    assert [one["status"] for one in made] == ["ok", "error", "ok"]
    pixels = np.frombuffer(rows[2]["pixels"], np.uint8).reshape(1, 48, 33, 3)
    expected = PREDICTION(stage.network, torch.from_numpy(pixels.copy()))[0].argmax(0)
    assert np.array_equal(decode_labels(made[2]["labels"]), expected.numpy())


def test_a_row_that_failed_before_keeps_its_reason(weights, rows):
    made = PredictLabels(PREDICTION, weights, CLASSES, "cpu")(rows)
    assert made[1]["error"] == "bad.jpg: cut short"
    assert "labels" not in made[1]


def test_an_image_that_fails_costs_its_own_row(weights, rows):
    short = row("short", 3, pixels=b"123")
    made = PredictLabels(PREDICTION, weights, CLASSES, "cpu")([short, *rows])
    assert [one["status"] for one in made] == ["error", "ok", "error", "ok"]
    assert made[0]["error"].startswith("ValueError: ")


def test_a_crf_of_no_iterations_changes_nothing(weights, rows):
    plain = PredictLabels(PREDICTION, weights, CLASSES, "cpu")(rows)
    planes = PredictLabels(PREDICTION, weights, CLASSES, "cpu", for_crf=True)(rows)
    smooth = SmoothLabels(SegmenterCRF(iterations=0))(planes)
    for one, other in zip(plain, smooth, strict=True):
        assert one["status"] == other["status"]
        if one["status"] == "ok":
            same = decode_labels(one["labels"]) == decode_labels(other["labels"])
            assert same.mean() > 0.99  # planes travel as float16


def test_only_labels_that_are_likely_somewhere_reach_the_crf(weights, rows):
    make = partial(PredictLabels, PREDICTION, weights, CLASSES, "cpu", for_crf=True)
    whole, some = make()(rows[:1])[0], make(min_probability=0.3)(rows[:1])[0]
    planes = np.frombuffer(whole["planes"], np.float16).reshape(4, 40, 56)
    assert whole["kept"] == [0, 1, 2, 3]
    assert some["kept"] == [label for label in range(4) if planes[label].max() >= 0.3]
    assert 0 < len(some["kept"]) < 4
    assert len(make(min_probability=2.0)(rows[:1])[0]["kept"]) == 1
    smooth = SmoothLabels(SegmenterCRF(iterations=0))
    (made,) = smooth([some])  # what is kept sums to one again, as the CRF demands
    assert made["status"] == "ok"
    assert set(np.unique(decode_labels(made["labels"]))) <= set(some["kept"])


def test_the_crf_sees_the_image_and_its_winners_get_their_labels():
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    planes = np.zeros((2, 4, 5), np.float16)
    planes[1, 2:] = planes[0, :2] = 1
    seen = []

    def crf(image, probabilities):
        seen.append((image, probabilities))
        return probabilities.argmax(0).astype(np.uint8)

    given = row("a", 0, (4, 5), pixels=pixels.tobytes(), seconds=1.0)
    given |= {"kept": [0, 3], "planes": planes.tobytes()}
    (made,) = SmoothLabels(crf)([given])
    assert np.array_equal(seen[0][0], pixels)
    assert seen[0][1].dtype == np.float32
    labels = decode_labels(made["labels"])
    assert (labels[:2] == 0).all()
    assert (labels[2:] == 3).all()
    assert made["seconds"] >= 1.0


def test_a_crf_that_fails_costs_its_own_row():
    def crf(image, probabilities):
        raise ValueError("no lattice")

    given = row(
        "a", 0, (4, 5), seconds=0.0, kept=[0], planes=np.ones((1, 4, 5), np.float16).tobytes()
    )
    (made,) = SmoothLabels(crf)([given])
    assert (made["status"], made["error"]) == ("error", "ValueError: no lattice")


def test_weights_of_other_classes_are_refused(weights):
    with pytest.raises(ValueError, match=r"was trained on 3 classes .* has 2"):
        PredictLabels(PREDICTION, weights, ("cat", "dog"), "cpu")
