import pytest
import torch

from rayseg.nets.classifier import CamClassifier
from rayseg.nets.detectors import DETECTORS, build_detector, detector_facts, load_detector
from rayseg.nets.weights import to_safetensors
from tests.nets.detectors import tiny
from tests.nets.detectors.tiny import pictures

CLASSES = ["cat", "dog", "emu"]
UNUSUAL = {"upsample": "nearest", "channels": 96, "test_side": 72, "max_side": 91}
UNUSUAL_HEAD = {"width": 40, "first_level": 3, "anchors": (10, 20, 30, 50)}


def written(folder, network, facts):
    path = folder / "detector.safetensors"
    path.write_bytes(to_safetensors(network, facts))
    return str(path)


@pytest.fixture
def saved(tmp_path):
    network = tiny.build("retinanet", "mobilenet_v2")
    return written(tmp_path, network, detector_facts(network, CLASSES))


def refusal(path, *arguments):
    with pytest.raises(ValueError, match=path) as caught:
        load_detector(path, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", DETECTORS)
def test_detector_comes_back_from_its_file(kind, tmp_path):
    changed = UNUSUAL | (UNUSUAL_HEAD if kind == "faster_rcnn" else {})
    network = tiny.build(kind, "mobilenet_v2", **changed)
    path = written(tmp_path, network, detector_facts(network, CLASSES))
    back = load_detector(path, CLASSES)
    assert type(back) is type(network)
    assert not back.training
    assert back.facts == network.facts
    images = pictures(1, (60, 80))
    assert back.fit((60, 80)) == network.fit((60, 80))
    for one, other in zip(back.detect(images), network.detect(images), strict=True):
        assert len(one.scores) > 0
        assert torch.equal(one.scores, other.scores)
        assert torch.equal(one.boxes_xyxy, other.boxes_xyxy)


@pytest.mark.parametrize("kind", DETECTORS)
def test_builder_hands_every_setting_on(kind):
    changed = UNUSUAL | {"min_sides": (50, 60), **UNUSUAL_HEAD, "regions": 17}
    made = build_detector(kind, "mobilenet_v2", 3, **changed)
    known = UNUSUAL | (UNUSUAL_HEAD if kind == "faster_rcnn" else {})
    known = {name: list(v) if isinstance(v, tuple) else v for name, v in known.items()}
    assert made.facts == {"trunk": "mobilenet_v2", **known}
    transform = made.fit_training if kind == "faster_rcnn" else made.network.transform
    assert (transform.min_size, transform.max_size) == ((50, 60), 91)
    if kind == "faster_rcnn":
        assert made.boxes.fg_bg_sampler.batch_size_per_image == 17


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="one of faster_rcnn, retinanet, fcos, got 'ssd'"):
        build_detector("ssd", "resnet18", 3)


def test_wrong_number_of_anchors_is_refused():
    with pytest.raises(ValueError, match="anchors must be 5, one a level, got 2"):
        build_detector("faster_rcnn", "mobilenet_v2", 3, channels=8, anchors=(8, 16))


def test_other_classes_are_refused_with_both_sides(saved):
    reason = refusal(saved, ["cat", "dog"])
    assert "trained on 3 classes (cat, dog, emu, ...), the manifest has 2 (cat, dog" in reason


def test_file_of_a_classifier_is_refused(tmp_path):
    network = CamClassifier("mobilenet_v2", 3)
    facts = {"trunk": "mobilenet_v2", "stride": 16, "classes": CLASSES}
    assert "holds a classifier, not a detector" in refusal(written(tmp_path, network, facts))


def test_facts_that_are_not_a_detectors_are_refused(tmp_path):
    network = tiny.build("fcos", "mobilenet_v2")
    facts = detector_facts(network, CLASSES)
    del facts["upsample"]
    reason = refusal(written(tmp_path, network, facts | {"stride": 8}))
    assert "'upsample'], got [" in reason
    assert "'stride'" in reason


def test_tensors_of_another_kind_are_refused(tmp_path):
    network = tiny.build("fcos", "mobilenet_v2")
    facts = detector_facts(network, CLASSES) | {"network": "retinanet"}
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
