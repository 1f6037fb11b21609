import json
from dataclasses import replace

import pytest
import torch

from rayseg.nets.classifier import CamClassifier
from rayseg.nets.detectors import DETECTORS, build_detector, load_detector
from rayseg.nets.weights import to_safetensors
from tests.nets.detectors import tiny
from tests.nets.detectors.tiny import pictures

CLASSES = ["cat", "dog", "emu"]
UNUSUAL = {"upsample": "nearest", "channels": 96, "test_side": 72, "max_side": 91}
UNUSUAL_HEAD = {"width": 40, "first_level": 3, "anchors": (10, 20, 30, 50)}


def written(folder, network, facts=None):
    path = folder / "detector.safetensors"
    path.write_bytes(to_safetensors(network, facts or network.design.facts))
    return str(path)


@pytest.fixture
def saved(tmp_path):
    network = tiny.build("retinanet", "mobilenet_v2")
    return written(tmp_path, network)


def refusal(path, *arguments):
    with pytest.raises(ValueError, match=path) as caught:
        load_detector(path, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", DETECTORS)
def test_detector_comes_back_from_its_file(kind, tmp_path):
    changed = UNUSUAL | (UNUSUAL_HEAD if kind == "faster_rcnn" else {})
    network = tiny.build(kind, "mobilenet_v2", **changed)
    path = written(tmp_path, network)
    back = load_detector(path, CLASSES)
    assert type(back) is type(network)
    assert not back.training
    assert back.design.facts == network.design.facts
    images = pictures(1, (60, 80))
    assert back.fit((60, 80)) == network.fit((60, 80))
    for one, other in zip(back.detect(images), network.detect(images), strict=True):
        assert len(one.scores) > 0
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)


@pytest.mark.parametrize("kind", DETECTORS)
def test_builder_hands_every_setting_on(kind):
    changed = UNUSUAL | {"min_sides": (50, 60), **UNUSUAL_HEAD, "regions": 17}
    made = build_detector(*tiny.apart({"kind": kind, "trunk": "mobilenet_v2"} | changed))
    known = UNUSUAL | (UNUSUAL_HEAD if kind == "faster_rcnn" else {})
    start = {"network": kind, "classes": tiny.CLASSES, "trunk": "mobilenet_v2"}
    assert made.design.facts == start | known
    transform = made.fit_training if kind == "faster_rcnn" else made.network.transform
    assert (transform.min_size, transform.max_size) == ((50, 60), 91)
    if kind == "faster_rcnn":
        assert made.boxes.fg_bg_sampler.batch_size_per_image == 17


def test_what_stands_beside_the_weights_is_the_design_in_this_order():
    design, _ = tiny.apart({"trunk": "resnet18"} | UNUSUAL | UNUSUAL_HEAD)
    assert json.dumps(design.facts) == (
        '{"network": "faster_rcnn", "classes": ["cat", "dog", "emu"], "trunk": "resnet18", '
        '"upsample": "nearest", "channels": 96, "width": 40, "first_level": 3, '
        '"anchors": [10, 20, 30, 50], "test_side": 72, "max_side": 91}'
    )
    assert json.dumps(replace(design, kind="fcos").facts) == (
        '{"network": "fcos", "classes": ["cat", "dog", "emu"], "trunk": "resnet18", '
        '"upsample": "nearest", "channels": 96, "test_side": 72, "max_side": 91}'
    )


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="one of faster_rcnn, retinanet, fcos, got 'ssd'"):
        build_detector(*tiny.apart({"kind": "ssd", "trunk": "resnet18"}))


def test_wrong_number_of_anchors_is_refused():
    with pytest.raises(ValueError, match="anchors must be 5, one a level, got 2"):
        tiny.build("faster_rcnn", "mobilenet_v2", channels=8, anchors=(8, 16))


def test_other_classes_are_refused_with_both_sides(saved):
    reason = refusal(saved, ["cat", "dog"])
    assert "trained on 3 classes (cat, dog, emu), the manifest has 2 (cat, dog" in reason


def test_file_of_a_classifier_is_refused(tmp_path):
    network = CamClassifier("mobilenet_v2", 3)
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": CLASSES}
    assert "holds a classifier, not a detector" in refusal(written(tmp_path, network, facts))


def test_facts_that_are_not_a_detectors_are_refused(tmp_path):
    network = tiny.build("fcos", "mobilenet_v2")
    facts = network.design.facts
    del facts["upsample"]
    reason = refusal(written(tmp_path, network, facts | {"stride": 8}))
    assert "'upsample'], got [" in reason
    assert "'stride'" in reason


def test_tensors_of_another_kind_are_refused(tmp_path):
    network = tiny.build("fcos", "mobilenet_v2")
    facts = network.design.facts | {"network": "retinanet"}
    assert "weights of another network" in refusal(written(tmp_path, network, facts))


def test_missing_file_is_named(tmp_path):
    for name in ("none.safetensors", "none.onnx"):
        with pytest.raises(FileNotFoundError, match=rf"{name} does not exist"):
            load_detector(str(tmp_path / name))


@pytest.mark.parametrize("name", ["text.safetensors", "text.onnx"])
def test_file_that_is_none_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"<html>not weights</html>")
    kind = "ONNX network" if name.endswith("onnx") else "safetensors file"
    assert kind in refusal(str(path))
