"""What trainings and predictions follow from and what is said of them; no Ray."""

import hashlib

import numpy as np
import pytest

from rayseg.config import TRAIN_CONFIGS
from rayseg.learn import DetectorTraining, SegmenterTraining
from rayseg.records import Sample
from rayseg.stages import InstancePrediction
from rayseg.steps.labels import mask_labels
from rayseg.steps.predictions import prediction_identity
from rayseg.steps.sources import finished_config
from rayseg.steps.training import images_identity, training_steps
from rayseg.steps.weights import start_of, weights_identity
from rayseg.store import (
    SEEDS_SCHEMA,
    Folder,
    read_manifest,
    rows_to_table,
    write_manifest,
    write_run,
    write_shard,
)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "start.safetensors"
    path.write_bytes(b"numbers")
    return str(path)


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_training_follows_from_what_a_file_of_weights_holds(weights, scheme):
    assert weights_identity(scheme + weights) == {"weights": hashlib.sha256(b"numbers").hexdigest()}


@pytest.mark.parametrize("name", ["none", "IMAGENET1K_V1"])
def test_names_of_weights_say_all(name):
    assert weights_identity(name) == {}


@pytest.mark.parametrize("kind", [DetectorTraining, SegmenterTraining])
def test_a_run_without_a_classifier_starts_no_training_from_it(tmp_path, kind):
    with pytest.raises(FileNotFoundError, match="make it with `rayseg train-classifier`"):
        start_of(Folder(str(tmp_path)), kind(weights="classifier"))


def test_a_training_starts_from_the_runs_own_classifier(tmp_path):
    (Folder(str(tmp_path)) / "classifier").write("classifier.safetensors", b"numbers")
    started = start_of(Folder(str(tmp_path)), DetectorTraining(weights="classifier"))
    assert started == DetectorTraining(weights=f"{tmp_path}/classifier/classifier.safetensors")


def test_a_smaller_batch_is_the_same_prediction_and_another_score_is_not(weights):
    default = prediction_identity(InstancePrediction(), weights)
    assert prediction_identity(InstancePrediction(batch_size=1), weights) == default
    assert prediction_identity(InstancePrediction(min_score=0.2), weights) != default


@pytest.fixture
def detector(tmp_path):
    """The step that trains a detector on one image with a box."""
    box = np.array([[1, 1, 6, 6]], np.float32), np.array([0])
    sample = Sample("a", "a.png", 8, 8, (0,), *box, "train")
    write_manifest(Folder(str(tmp_path)) / "manifest", [sample], ["cow"])
    (step,) = training_steps("detector", TRAIN_CONFIGS["detector"](run=str(tmp_path)))
    return step


def finish(step, **changed):
    told = {
        "curve": [{"iteration": 8, "loss": 0.5}],
        "judged": [],
        "images": 7,
        "images_left_out": 1,
        "left_out": {"count": 0, "examples": []},
    }
    write_run(step.folder, told | changed)
    return step.tell(step.folder)


def test_a_training_without_a_bad_box_is_said_in_one_line(detector):
    outcome = finish(detector)
    assert outcome.lines == ["detector: loss 0.500 after 8 iterations on 7 of 8 images"]
    assert outcome.left_out == 0


def test_boxes_that_a_training_left_out_are_said_with_a_reason(detector):
    left_out = {"count": 2, "examples": [{"id": "i01", "reason": "box must <so>"}]}
    outcome = finish(detector, left_out=left_out)
    assert outcome.lines[1:] == ["left out: 2 boxes, such as one of i01: box must <so>"]
    assert outcome.left_out == 2


def test_what_a_training_went_on_from_is_cleared_when_it_has_ended(detector):
    detector.folder.write("state.safetensors", b"numbers")
    (detector.folder / "ray").write("log", b"lines")
    finish(detector)
    assert detector.folder.names() == ["run.json"]
    assert detector.folder.folders() == []


def begin(folder, ids):
    """Some rows of a job that has not ended."""
    rows = [{"id": id_, "status": "empty"} for id_ in ids]
    write_shard(folder, rows_to_table(rows, SEEDS_SCHEMA))
    write_run(folder, {"config": {"cam": {}}, "counts": None})


@pytest.mark.parametrize(
    ("source", "job"), [("box_maps", "make-box-masks"), ("seeds", "refine-seeds")]
)
def test_incomplete_masks_name_the_job_that_completes_them(tmp_path, source, job):
    run = Folder(str(tmp_path))
    begin(run / "masks" / "mine", ["a"])
    write_run(run / "masks" / "mine", {"config": {source: {}}, "counts": None})
    with pytest.raises(ValueError, match=f"is not complete; run {job} once more"):
        mask_labels(run, "mine", "train")


def test_only_what_a_job_has_ended_on_is_gone_on_from(tmp_path):
    seeds = Folder(str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no seeds; make them with make-seeds$"):
        finished_config(seeds, "seeds", "make-seeds")
    begin(seeds, "ab")
    with pytest.raises(ValueError, match=r"is not complete; run make-seeds .* no seeds yet \(2 ha"):
        finished_config(seeds, "seeds", "make-seeds")
    write_run(seeds, {"counts": {"empty": 2}})
    assert finished_config(seeds, "seeds", "make-seeds") == {"cam": {}}


def test_a_training_follows_from_which_images_of_its_split_have_labels(tmp_path):
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = [Sample(id_, "a.png", 8, 8, (), *none, "train") for id_ in "abc"]
    samples.append(Sample("v", "a.png", 8, 8, (), *none, "val"))
    write_manifest(Folder(str(tmp_path)), samples, ["cow"])
    images = read_manifest(Folder(str(tmp_path))).select("train")
    pilot, other, whole = (images_identity(images, set(ids)) for ids in ("ab", "ac", "abc"))
    assert pilot["trained_on"]["images"] == other["trained_on"]["images"] == 2
    assert pilot != other
    assert whole["trained_on"]["images"] == 3
    assert images_identity(images, set("vba")) == pilot
