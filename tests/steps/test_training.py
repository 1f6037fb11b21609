"""What trainings and predictions follow from and what is said of them; no Ray."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from rayseg.config import TRAIN_CONFIGS
from rayseg.learn import DetectorTraining, SegmenterTraining
from rayseg.networks import NETWORKS
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.steps.labels import mask_labels
from rayseg.steps.sources import finished_config
from rayseg.steps.training import training_steps
from rayseg.steps.weights import images_identity, start_of, weights_identity
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    claim,
    read_manifest,
    read_run,
    rows_to_table,
    write_manifest,
    write_run,
    write_shard,
)
from tests.learn.tiny import folder_of, scenes, store, tiny, trained


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
    with pytest.raises(FileNotFoundError, match=r"with `rayseg train-classifier --run .*`$"):
        start_of(Folder(str(tmp_path)), kind(weights="classifier"))


def test_a_training_starts_from_the_runs_own_classifier(tmp_path):
    (Folder(str(tmp_path)) / "classifier").write("classifier.safetensors", b"numbers")
    started = start_of(Folder(str(tmp_path)), DetectorTraining(weights="classifier"))
    assert started == DetectorTraining(weights=f"{tmp_path}/classifier/classifier.safetensors")


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
    with pytest.raises(ValueError, match=f"is not complete; run `rayseg {job} --run .*` once more"):
        mask_labels(run, "mine", "train")


def test_only_what_a_job_has_ended_on_is_gone_on_from(tmp_path):
    seeds = Folder(str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=r"holds no seeds; make them with `rayseg make-seeds --run \S+ --methods \S+`$",
    ):
        finished_config(seeds, seeds, "seeds", "make-seeds --methods cam")
    begin(seeds, "ab")
    with pytest.raises(
        ValueError, match=r"is not complete; run `rayseg make-seeds .* no seeds yet \(2 ha"
    ):
        finished_config(seeds, seeds, "seeds", "make-seeds --methods cam")
    write_run(seeds, {"counts": {"empty": 2}})
    assert finished_config(seeds, seeds, "seeds", "make-seeds --methods cam") == {"cam": {}}


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


# Trainings without Ray


def with_bad(sample):
    """With a second box that is upside down."""
    boxes = np.concatenate([sample.boxes_xyxy, sample.boxes_xyxy[:, [2, 3, 0, 1]]])
    kinds = np.repeat(sample.box_classes, 2)
    return replace(sample, boxes_xyxy=boxes, box_classes=kinds, true_masks=())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("images"))


def short(kind, **changed):
    return tiny(kind, iterations=1, judge_images=0, **changed)


def test_boxes_that_a_training_left_out_are_said_with_a_reason(tmp_path, drawn):
    store(tmp_path, [with_bad(drawn[0]), *drawn[1:]])
    outcome = trained(tmp_path, "detector", training=short("detector"))
    assert outcome.lines[0].endswith(" after 1 iterations on 10 of 10 images")
    assert outcome.lines[1].startswith("left out: 1 boxes, such as one of i00: box must have x1 <")
    assert outcome.left_out == 1
    (example,) = read_run(folder_of(tmp_path, "detector"))["left_out"]["examples"]
    assert example["id"] == "i00"


@pytest.mark.parametrize(
    ("kind", "said"), [("classifier", "has a tag to train on"), ("detector", "has a box to train")]
)
def test_a_split_without_labels_is_refused(tmp_path, drawn, kind, said):
    none = {"boxes_xyxy": np.zeros((0, 4), np.float32), "box_classes": np.zeros(0, np.int64)}
    store(tmp_path, [replace(one, tags=(), true_masks=(), **none) for one in drawn])
    with pytest.raises(ValueError, match=rf"^no image of split 'train' {said}"):
        trained(tmp_path, kind)


def test_without_a_split_val_a_classifier_is_judged_on_what_it_learnt_from(tmp_path, drawn):
    store(tmp_path, drawn[:10])
    outcome = trained(tmp_path, "classifier", training=tiny("classifier", epochs=1))
    judged = read_run(folder_of(tmp_path, "classifier"))["judged"]
    assert [(one["iteration"], one["judged_on"]) for one in judged] == [(2, "train")]
    assert outcome.lines[0].endswith(" on train after 1 epochs")


def store_masks(run, rows):
    masks = Folder(str(run)) / "masks" / "made"
    masks.remove()
    claim(masks, {"made": "by hand"})
    write_shard(masks, rows_to_table(rows, MASKS_SCHEMA))
    write_run(masks, {"counts": {"ok": len(rows)}})


def mask_row(number, labels):
    row = {"id": f"i{number:02d}", "status": "ok", "height": 64, "width": 64}
    return row | {"labels": encode_labels(labels)}


def test_bad_masks_are_left_out_and_named(tmp_path, drawn):
    store(tmp_path, drawn)
    good = np.eye(64, dtype=np.uint8)
    bad = [good[:, :40], np.full((64, 64), 9, np.uint8), np.full((64, 64), 255, np.uint8)]
    store_masks(tmp_path, [mask_row(n, one) for n, one in enumerate([*bad, *[good] * 4])])
    outcome = trained(tmp_path, "segmenter", training=short("segmenter"), labels=("made",))
    assert (outcome.failed, outcome.left_out) == (frozenset(), 3)
    told = read_run(Folder(str(tmp_path)) / "segmenters" / "made")
    assert (told["images"], told["left_out"]["count"]) == (4, 3)
    reasons = [one["reason"] for one in told["left_out"]["examples"]]
    sides = "(64, 64) as its image, got (64, 40)", "2 classes, got 9", "only those"
    assert all(side in reason for side, reason in zip(sides, reasons, strict=True))
    assert all("masks/made/part-" in reason for reason in reasons)
    assert outcome.lines[1].startswith("left out: 3 masks, such as that of i00: mask of 'i00'")


@pytest.mark.parametrize("kind", ["irnet", "affinity"])
def test_masks_without_a_label_are_counted_and_end_no_training_of_pairs_as_failed(
    tmp_path, drawn, kind
):
    """The authors' labels are such where both sides are sure of nothing; other faults still are."""
    store(tmp_path, drawn)
    good, ignored = np.eye(64, dtype=np.uint8), np.full((64, 64), 255, np.uint8)
    store_masks(tmp_path, [mask_row(n, one) for n, one in enumerate([ignored] * 2 + [good] * 6)])
    outcome = trained(tmp_path, kind, training=short(kind), labels=("made",))
    assert (outcome.failed, outcome.left_out) == (frozenset(), 0)
    assert outcome.lines[1:] == ["not trained on: 2 masks of which no pixel counts"]
    told = read_run(Folder(str(tmp_path)) / NETWORKS[kind].place / "made")
    assert (told["images"], told["unlabelled"], told["left_out"]["count"]) == (6, 2, 0)


@pytest.mark.parametrize("kind", ["segmenter", "affinity"])
def test_no_usable_mask_at_all_is_an_error(tmp_path, drawn, kind):
    store(tmp_path, drawn)
    ignored = np.full((64, 64), 255, np.uint8)
    store_masks(tmp_path, [mask_row(n, ignored) for n in range(10)])
    with pytest.raises(ValueError, match=r"10 have a mask, 10 of them a bad one; that of i00: "):
        trained(tmp_path, kind, labels=("made",))


def test_masks_that_are_missing_or_not_complete_are_refused(tmp_path, drawn):
    store(tmp_path, drawn)
    store_masks(tmp_path, [mask_row(0, np.eye(64, dtype=np.uint8))])
    for labels in (("cam",), ("made", "cam")):  # before it trains on made
        with pytest.raises(
            FileNotFoundError, match=r"masks/cam holds no masks; .*/masks has: made$"
        ):
            trained(tmp_path, "segmenter", labels=labels)
    with pytest.raises(
        FileNotFoundError, match=r"masks/made holds no masks of objects; .*/masks has: made"
    ):
        trained(tmp_path, "mask_rcnn", labels=("made",))
    masks = Folder(str(tmp_path)) / "masks" / "made"
    masks.write("run.json", b'{"config": {}}')
    with pytest.raises(
        ValueError,
        match=r"masks/made is not complete; run `rayseg refine-seeds --run .*` once more",
    ):
        trained(tmp_path, "segmenter", labels=("made",))
    with pytest.raises(ValueError, match=r"^labels must name masks or truth, got none"):
        trained(tmp_path, "segmenter", labels=())


def test_a_folder_that_says_nothing_of_its_boxes_is_taken_as_it_is(tmp_path, drawn):
    """As earlier versions left it."""
    store(tmp_path, drawn)
    one = short("detector")
    outcome = trained(tmp_path, "detector", training=one)
    folder = folder_of(tmp_path, "detector")
    facts = read_run(folder)
    del facts["learnt_from"]
    folder.write("run.json", json.dumps(facts).encode())
    store(tmp_path, drawn[1:])
    assert trained(tmp_path, "detector", training=one) == outcome


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


def test_what_a_training_went_on_from_is_cleared_when_it_has_ended(detector):
    detector.folder.write("state.safetensors", b"numbers")
    (detector.folder / "ray").write("log", b"lines")
    finish(detector)
    assert detector.folder.names() == [".run-copy.json", "run.json"]
    assert detector.folder.folders() == []
