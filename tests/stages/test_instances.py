"""PredictInstances: a row for each row, masks painted by score, the CRF on each object."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rayseg.nets.detectors.design import MaskRCNNDesign
from rayseg.nets.detectors.instance_masks import SoftInstances
from rayseg.nets.detectors.mask_rcnn import MaskRCNN
from rayseg.nets.weights import to_safetensors
from rayseg.records.palette import decode_labels
from rayseg.records.rle import decode_mask
from rayseg.refine.instance_crf import InstanceCRF
from rayseg.refine.lattice import Lattice
from rayseg.stages.instances import InstancePrediction, PredictInstances
from rayseg.store import INSTANCES_SCHEMA, rows_to_table

CLASSES = ("cat", "dog", "emu")
PREDICTION = InstancePrediction(min_score=0.0, max_objects=4, batch_size=2, precision="fp32")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    network = MaskRCNN(
        MaskRCNNDesign(
            trunk="mobilenet_v2", classes=CLASSES, channels=16, width=32, test_side=64, max_side=96
        )
    )
    path = tmp_path_factory.mktemp("mask_rcnn") / "mask_rcnn.safetensors"
    path.write_bytes(to_safetensors(network, network.design.facts))
    return str(path)


def row(id_, seed, size_hw=(40, 56), **changed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), np.uint8)
    made = {"id": id_, "status": "", "error": "", "note": "", "classes": []}
    return made | {"height": size_hw[0], "width": size_hw[1], "pixels": pixels.tobytes()} | changed


@pytest.fixture(scope="module")
def rows():
    bad = row("bad", 1, status="error", error="bad.jpg: cut short", pixels=b"")
    return [row("a", 0), bad, row("b", 2, (48, 33)), row("c", 3), row("d", 4)]


def test_each_row_has_the_objects_of_its_image(weights, rows):
    stage = PredictInstances(PREDICTION, weights, CLASSES, "cpu")
    made = stage(rows)
    assert [one["id"] for one in made] == ["a", "bad", "b", "c", "d"]
    assert [one["status"] for one in made] == ["ok", "error", "ok", "ok", "ok"]
    for one, given in zip(made, rows, strict=True):
        if one["status"] == "error":
            continue
        size_hw = (given["height"], given["width"])
        pixels = np.frombuffer(given["pixels"], np.uint8).reshape(1, *size_hw, 3)
        (found,) = stage.network.predict(torch.from_numpy(pixels.copy()), 0.0, 4)
        assert one["classes"] == found.classes.tolist()
        np.testing.assert_allclose(one["scores"], found.scores, atol=1e-5)
        np.testing.assert_allclose(one["boxes_xyxy"], found.boxes_xyxy, atol=1e-3)
        for counts, mask in zip(one["foreground"], found.masks, strict=True):
            assert (decode_mask(counts, size_hw) == mask.numpy()).mean() > 0.999
        assert one["object_status"] == ["ok"] * 4
        assert one["places"] == [-1] * 4
        assert one["possible"] == [b""] * 4


def test_rows_are_of_the_stored_kind(weights, rows):
    made = PredictInstances(PREDICTION, weights, CLASSES, "cpu")(rows[:2])
    table = rows_to_table(made, INSTANCES_SCHEMA)
    assert table.column("classes").to_pylist()[0] == made[0]["classes"]


def test_a_row_that_failed_before_keeps_its_reason(weights, rows):
    made = PredictInstances(PREDICTION, weights, CLASSES, "cpu")(rows[:2])
    assert made[1]["error"] == "bad.jpg: cut short"
    assert "labels" not in made[1]


def test_an_image_that_fails_costs_its_own_row(weights, rows):
    short = row("short", 3, pixels=b"123")
    made = PredictInstances(PREDICTION, weights, CLASSES, "cpu")([short, *rows])
    assert [one["status"] for one in made] == ["error", "ok", "error", "ok", "ok", "ok"]
    assert made[0]["error"].startswith("ValueError: ")


def test_an_image_without_objects_is_ok_and_background(weights, rows):
    nothing = replace(PREDICTION, min_score=0.999)
    (made,) = PredictInstances(nothing, weights, CLASSES, "cpu")(rows[:1])
    assert made["status"] == "ok"
    assert not decode_labels(made["labels"]).any()
    lists = ("boxes_xyxy", "classes", "object_status", "scores", "foreground", "possible")
    assert all(made[name] == [] for name in lists)


class Found:
    """A network that finds two overlapping squares, the likelier one of class 2."""

    def __init__(self, grids):
        self.grids = grids

    def find(self, images, min_score, max_objects, precision):
        boxes = torch.tensor([[10.0, 10.0, 30.0, 30.0], [20.0, 20.0, 40.0, 36.0]])
        return [
            SoftInstances(
                boxes, torch.tensor([2, 0]), torch.tensor([0.9, 0.5]), self.grids, (40, 56)
            )
            for _ in images
        ]


def fixed(weights, prediction, grids):
    stage = PredictInstances(prediction, weights, CLASSES, "cpu")
    stage.network = Found(grids)
    return stage


def test_where_objects_overlap_the_likelier_one_is_painted(weights, rows):
    (made,) = fixed(weights, PREDICTION, torch.full((2, 8, 8), 0.99))(rows[:1])
    labels = decode_labels(made["labels"])
    assert labels[25, 25] == 3
    assert labels[33, 35] == 1
    assert labels[5, 5] == 0
    masks = [decode_mask(counts, (40, 56)) for counts in made["foreground"]]
    assert all(mask[25, 25] for mask in masks)
    assert np.array_equal(labels > 0, masks[0] | masks[1])


def test_the_threshold_of_masks_is_followed(weights, rows):
    for threshold, sides in ((0.5, 0), (0.3, 2)):
        prediction = replace(PREDICTION, mask_threshold=threshold)
        (made,) = fixed(weights, prediction, torch.full((2, 8, 8), 0.4))(rows[:1])
        assert len(set(np.unique(decode_labels(made["labels"]))) - {0}) == sides


def test_the_crf_draws_masks_to_edges_of_the_image(weights):
    pixels = np.full((40, 56, 3), 200, np.uint8)
    pixels[12:28, 12:28] = 20
    given = row("a", 0, pixels=pixels.tobytes())
    grids = torch.zeros(2, 8, 8)
    grids[0] = 0.45
    grids[0, 2:6, 2:6] = 0.9
    crf = replace(PREDICTION, crf=True, instance_crf=InstanceCRF(zoom=1))
    (plain,), (drawn,) = (fixed(weights, how, grids)([given]) for how in (PREDICTION, crf))
    dark = pixels[..., 0] < 100
    before, after = (decode_mask(one["foreground"][0], (40, 56)) for one in (plain, drawn))
    overlaps = [(mask & dark).sum() / (mask | dark).sum() for mask in (before, after)]
    assert overlaps[0] < 0.6
    assert overlaps[1] > 0.95


def test_instances_of_an_image_share_its_lattice(weights, rows, monkeypatch):
    build, images = Lattice.__init__, []
    monkeypatch.setattr(Lattice, "__init__", lambda *of: images.append(of) or build(*of))
    crf = replace(PREDICTION, crf=True, instance_crf=InstanceCRF(zoom=1))
    made = fixed(weights, crf, torch.full((2, 8, 8), 0.99))([rows[0], rows[3]])
    assert [len(one["classes"]) for one in made] == [2, 2]
    assert len(images) == 2


def test_weights_of_other_classes_are_refused(weights):
    with pytest.raises(ValueError, match=r"was trained on 3 classes .* has 2"):
        PredictInstances(PREDICTION, weights, ("cat", "dog"), "cpu")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"min_score": 1.0}, r"must lie in \[0, 1\), got 1.0 and 0.5"),
        ({"mask_threshold": -0.1}, r"must lie in \[0, 1\), got 0.05 and -0.1"),
        ({"max_objects": 0}, "must be 1 or more, got 0 and 4"),
        ({"batch_size": 0}, "must be 1 or more, got 100 and 0"),
    ],
)
def test_settings_without_meaning_are_refused(changed, said):
    with pytest.raises(ValueError, match=said):
        InstancePrediction(**changed)
