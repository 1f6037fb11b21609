"""Which jobs a run from boxes does, in which order, and which labels it refuses; no Ray."""

import numpy as np
import pytest

from rayseg.config import RunConfig
from rayseg.learn import DetectorTraining, MaskRCNNTraining
from rayseg.on_ray import run as module
from rayseg.on_ray.run import check_labels, from_boxes
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.steps.outcome import Outcome
from rayseg.store import Folder, write_manifest, write_run

JOBS = (
    "train_classifier",
    "train_detector",
    "make_box_maps",
    "make_box_masks",
    "score",
    "train_mask_rcnn",
    "predict_instances",
)
MAPS = ["make_box_maps", "make_box_masks"]


@pytest.fixture
def done(monkeypatch):
    """The jobs that are done, each with the labels that it is given."""
    found = []

    def stand_in(name):
        def job(config):
            found.append((name, config.labels))
            return Outcome([name])

        return job

    for name in JOBS:
        monkeypatch.setattr(module, name, stand_in(name))
    return found


def names(done):
    return [name for name, _ in done]


def test_all_jobs_come_in_order_and_train_on_the_last_masks(done):
    outcome = from_boxes(RunConfig(supervision="boxes"), judged=True)
    trained = ["train_mask_rcnn", "predict_instances"]
    assert names(done) == ["train_detector", *MAPS, "score", *trained]
    assert {labels for name, labels in done if name in trained} == {("bbam+box_crf",)}
    assert outcome.lines == ["train_detector", *MAPS, *trained]


def test_a_detector_of_others_is_not_trained(done):
    from_boxes(RunConfig(supervision="boxes", detector_weights="a.onnx"), judged=True)
    assert names(done)[0] == "make_box_maps"


@pytest.mark.parametrize(
    "changed",
    [
        {"detector": DetectorTraining(weights="classifier")},
        {"mask_rcnn": MaskRCNNTraining(weights="classifier")},
    ],
)
def test_a_trunk_from_the_classifier_has_one_trained_first(done, changed):
    from_boxes(RunConfig(supervision="boxes", **changed), judged=True)
    assert names(done)[:2] == ["train_classifier", "train_detector"]


def test_no_classifier_is_trained_for_a_network_that_is_not(done):
    networks = {
        "detector": DetectorTraining(weights="classifier"),
        "mask_rcnn": MaskRCNNTraining(weights="classifier"),
    }
    given = {"detector_weights": "a.onnx", "until": "masks"}
    from_boxes(RunConfig(supervision="boxes", **networks, **given), judged=True)
    assert names(done) == MAPS


@pytest.mark.parametrize(("until", "last"), [("seeds", MAPS[:1]), ("masks", MAPS)])
def test_it_ends_where_it_is_told_to(done, until, last):
    from_boxes(RunConfig(supervision="boxes", until=until), judged=True)
    assert names(done) == ["train_detector", *last]


def test_without_images_to_judge_by_networks_are_trained_only_when_labels_are_named(done):
    from_boxes(RunConfig(supervision="boxes"), judged=False)
    assert names(done) == ["train_detector", *MAPS]
    done.clear()
    from_boxes(RunConfig(supervision="boxes", labels=("truth",)), judged=False)
    assert names(done)[-2:] == ["score", "train_mask_rcnn"]


# Labels


@pytest.fixture
def folder(tmp_path):
    """A run with masks from tags and from boxes, and one true mask of an object."""
    run = Folder(str(tmp_path))
    boxes = np.array([[1, 1, 20, 20]], np.float32)
    mask = (encode_mask(np.ones((24, 24), bool)),)
    sample = Sample("a", "a.png", 24, 24, (0,), boxes, np.array([0]), true_masks=mask)
    write_manifest(run / "manifest", [sample], ["cow"])
    for name, config in (("cam+threshold", {"seeds": {}}), ("bbam+old", {"box_maps": {}})):
        write_run(run / "masks" / name, {"config": config})
    return run


@pytest.mark.parametrize("name", ["bbam+box_crf", "bbam+old", "truth"])
def test_masks_of_objects_made_or_to_be_made_and_true_ones_are_labels(folder, name):
    check_labels(RunConfig(supervision="boxes", labels=(name,)), folder)


def test_masks_from_tags_are_no_labels_of_objects(folder):
    config = RunConfig(supervision="boxes", labels=("cam+threshold",))
    said = r"labels must be of bbam\+box_crf, bbam\+old, truth, got 'cam\+threshold'"
    with pytest.raises(ValueError, match=said):
        check_labels(config, folder)


def test_masks_from_boxes_are_labels_of_a_segmenter(folder):
    check_labels(RunConfig(labels=("bbam+old",)), folder)
