"""Which jobs a run does, in which order, and which labels it refuses."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from rayseg.config import RunConfig
from rayseg.learn import (
    DetectorTraining,
    DSRGTraining,
    MaskRCNNTraining,
    SEAMTraining,
    SegmenterTraining,
)
from rayseg.records import Sample
from rayseg.records.rle import encode_mask
from rayseg.steps.recipe import recipe, wrong_labels
from rayseg.steps.starting import refuse
from rayseg.store import Folder, write_manifest, write_run

boxes = partial(RunConfig, supervision="boxes")
MAPS = ["box_maps", "object_masks"]


def kinds(config, judged=True):
    return [part.kind or "score" for part in recipe(config, judged)]


def test_a_run_from_boxes_trains_on_its_last_masks():
    parts = recipe(boxes(), judged=True)
    trained = ["mask_rcnn", "instances"]
    assert kinds(boxes()) == ["detector", *MAPS, "score", *trained, "score"]
    assert {part.labels for part in parts if part.kind in trained} == {("bbam+box_crf",)}
    assert [part.shown for part in parts if not part.kind] == [False, True]


def test_a_run_from_tags_trains_on_its_last_masks():
    config = RunConfig(methods=("cam", "advcam"), crf=True)
    trained = ["segmenter", "predictions"]
    assert kinds(config) == ["classifier", "seeds", "masks", "score", *trained, "score"]
    parts = {part.kind: part for part in recipe(config, judged=True)}
    assert parts["masks"].names == ("cam+label_crf", "advcam+label_crf")
    assert parts["segmenter"].names == parts["predictions"].labels == ("advcam+label_crf",)
    assert parts["predictions"].names == ("advcam+label_crf+crf",)


def test_each_network_that_methods_work_on_is_trained_first():
    config = RunConfig(methods=("cam", "ficklenet"), until="seeds")
    assert kinds(config) == ["classifier", "ficklenet", "seeds", "score"]
    given = RunConfig(methods=("cam", "ficklenet"), until="seeds", weights="a.safetensors")
    assert kinds(given) == ["ficklenet", "seeds", "score"]
    refined = RunConfig(methods=("seam", "advcam_seam"), until="seeds")
    assert kinds(refined) == ["seam", "seeds", "score"]
    assert kinds(replace(refined, seam_weights="a.safetensors")) == ["seeds", "score"]
    started = replace(refined, seam_classifier=SEAMTraining(weights="classifier"))
    assert kinds(started) == ["classifier", "seam", "seeds", "score"]


def test_tags_and_boxes_stand_in_one_run():
    config = RunConfig(supervision="tags+boxes", detector=DetectorTraining(weights="classifier"))
    found = kinds(config)
    assert found.count("classifier") == 1
    assert [kind for kind in found if kind != "score"] == [
        "classifier", "seeds", "masks", "segmenter", "predictions", "detector", *MAPS,
        "mask_rcnn", "instances",
    ]  # fmt: skip
    parts = {part.kind: part for part in recipe(config, judged=True)}
    assert parts["segmenter"].labels == ("advcam+label_crf",)
    assert parts["mask_rcnn"].labels == ("bbam+box_crf",)


def test_labels_that_are_named_come_before_the_last_masks():
    salient = RunConfig(methods=("cam",), saliency_maps="maps")
    assert labels_of(salient) == ("cam+label_crf+saliency",)
    assert labels_of(RunConfig(labels=("truth",))) == ("truth",)
    assert labels_of(boxes(labels=("truth",))) == ("truth",)


def labels_of(config):
    (part,) = (one for one in recipe(config, True) if one.kind in ("segmenter", "mask_rcnn"))
    return part.labels


def test_labels_that_end_in_dsrg_are_grown_and_all_are_predicted():
    labels = ("truth", "advcam+dsrg", "advcam+label_crf+dsrg")
    parts = recipe(RunConfig(labels=labels, crf=True), judged=True)
    found = {part.kind: part for part in parts}
    assert found["segmenter"].labels == ("truth",)
    assert found["dsrg"].names == found["dsrg"].labels == labels[1:]
    assert found["predictions"].labels == ("truth", *labels[1:])
    assert found["predictions"].names[1] == "advcam+dsrg+crf"
    alone = RunConfig(labels=labels[1:], dsrg=DSRGTraining(weights="classifier"), methods=())
    assert [kind for kind in kinds(alone) if kind not in ("seeds", "masks", "score")] == [
        "classifier", "dsrg", "predictions",
    ]  # fmt: skip


def test_a_detector_of_others_is_not_trained():
    assert kinds(boxes(detector_weights="a.onnx"))[0] == "box_maps"


@pytest.mark.parametrize(
    "changed",
    [
        {"detector": DetectorTraining(weights="classifier")},
        {"mask_rcnn": MaskRCNNTraining(weights="classifier")},
    ],
)
def test_a_trunk_from_the_classifier_has_one_trained_first(changed):
    assert kinds(boxes(**changed))[:2] == ["classifier", "detector"]


def test_a_segmenter_that_starts_from_the_classifier_has_one_trained_first():
    config = RunConfig(methods=("ficklenet",), segmenter=SegmenterTraining(weights="classifier"))
    assert kinds(config)[:2] == ["classifier", "ficklenet"]
    assert kinds(RunConfig(methods=("ficklenet",)))[0] == "ficklenet"


def test_no_classifier_is_trained_for_a_segmenter_that_nobody_will_judge():
    segmenter = SegmenterTraining(weights="classifier")
    given = RunConfig(methods=("cam",), weights="a.safetensors", segmenter=segmenter)
    assert kinds(given, judged=False) == ["seeds", "masks", "score"]
    assert kinds(given, judged=True)[0] == "classifier"


def test_no_classifier_is_trained_for_a_network_that_is_not():
    networks = {
        "detector": DetectorTraining(weights="classifier"),
        "mask_rcnn": MaskRCNNTraining(weights="classifier"),
    }
    assert kinds(boxes(**networks, detector_weights="a.onnx", until="masks")) == [*MAPS, "score"]


@pytest.mark.parametrize(("until", "last"), [("seeds", MAPS[:1]), ("masks", MAPS)])
def test_it_ends_where_it_is_told_to(until, last):
    assert kinds(boxes(until=until)) == ["detector", *last, "score"]


def test_without_images_to_judge_by_networks_are_trained_only_when_labels_are_named():
    assert kinds(boxes(), judged=False) == ["detector", *MAPS, "score"]
    named = boxes(labels=("truth",))
    assert kinds(named, judged=False)[-3:] == ["score", "mask_rcnn", "score"]


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
    refuse(wrong_labels(boxes(run=folder.location, labels=(name,))))


def test_masks_from_tags_are_no_labels_of_objects(folder):
    config = boxes(run=folder.location, labels=("cam+threshold",))
    said = r"labels must be of bbam\+box_crf, bbam\+old, truth, got 'cam\+threshold'"
    with pytest.raises(ValueError, match=said):
        refuse(wrong_labels(config))


def test_masks_from_boxes_are_labels_of_a_segmenter(folder):
    refuse(wrong_labels(RunConfig(run=folder.location, labels=("bbam+old",))))


@pytest.mark.parametrize("name", ["advcam+dsrg", "cam+threshold+dsrg", "bbam+old+dsrg"])
def test_seeds_and_masks_can_be_grown(folder, name):
    refuse(wrong_labels(RunConfig(run=folder.location, labels=(name,))))
    with pytest.raises(ValueError, match=r"labels must be of .*, got 'rib\+dsrg'"):
        refuse(wrong_labels(RunConfig(run=folder.location, labels=("rib+dsrg",))))


def test_each_of_two_roads_learns_from_the_labels_that_it_can(folder):
    both = {"run": folder.location, "supervision": "tags+boxes"}
    config = RunConfig(**both, labels=("cam+threshold", "truth"))
    refuse(wrong_labels(config))
    labels = {part.kind: part.labels for part in recipe(config, judged=True)}
    assert labels["segmenter"] == ("cam+threshold",)  # no image has a labelled truth
    assert labels["mask_rcnn"] == ("truth",)
