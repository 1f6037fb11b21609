"""Entries of scores.json about objects, against numbers counted by hand; no Ray."""

import numpy as np
import pytest

from rayseg.config import ScoreConfig
from rayseg.datasets.base import write_mask
from rayseg.labels import true_instances
from rayseg.plain import PlainEngine
from rayseg.records import IGNORE, Sample
from rayseg.records.rle import decode_mask, encode_mask
from rayseg.steps.object_scoring import score_objects
from rayseg.store import (
    INSTANCES_SCHEMA,
    Folder,
    read_manifest,
    rows_to_table,
    write_manifest,
    write_run,
    write_shard,
)

SIZE_HW = (40, 40)
BOXES = {"a": [[0, 0, 10, 10]], "b": [[0, 0, 20, 20], [20, 20, 40, 40]], "c": [[5, 5, 25, 25]]}


def square(x1, y1, x2, y2):
    mask = np.zeros(SIZE_HW, bool)
    mask[y1:y2, x1:x2] = True
    return encode_mask(mask)


def sample(id_, split, masks=True, **changed):
    boxes = BOXES[id_[-1]]
    known = tuple(square(*box) for box in boxes) if masks else ()
    return Sample(
        id_, f"{id_}.png", *SIZE_HW, (0,), np.array(boxes, np.float32),
        np.zeros(len(boxes), np.int64), split, true_masks=known, **changed,
    )  # fmt: skip


def row(id_, masks, status="ok"):
    boxes = BOXES[id_[-1]]
    return {
        "id": id_, "status": status, "height": SIZE_HW[0], "width": SIZE_HW[1],
        "boxes_xyxy": boxes, "classes": [0] * len(boxes), "object_status": ["ok"] * len(boxes),
        "scores": [0.9] * len(boxes), "foreground": masks, "possible": masks,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Three train and three val images; one of each has no true masks."""
    samples = [sample(id_, "train", id_ != "c") for id_ in "abc"]
    samples += [sample(f"val-{id_}", "val", id_ != "c") for id_ in "abc"]
    folder = Folder(str(tmp_path))
    write_manifest(folder / "manifest", samples, ["cow"])
    return folder


def store(folder, rows, config=None):
    write_run(folder, {"config": config or {"box_maps": {}}})
    write_shard(folder, rows_to_table(rows, INSTANCES_SCHEMA))


def entries_of(run, config):
    return score_objects(run, config, PlainEngine())[0]


def halves(id_):
    """The upper half of each object of an image."""
    return [square(x1, y1, x2, (y1 + y2) // 2) for x1, y1, x2, y2 in BOXES[id_[-1]]]


def wholes(id_):
    return [square(*box) for box in BOXES[id_[-1]]]


def test_masks_from_boxes_have_the_mean_of_their_objects_overlaps(run):
    made = [row("a", wholes("a")), row("b", [halves("b")[0], b""]), row("c", wholes("c"))]
    store(run / "masks" / "bbam", [*made, row("val-a", wholes("a"))])
    entry = entries_of(run, ScoreConfig(size_bounds_px=(200, 300)))["objects/bbam"]
    assert (entry["split"], entry["objects"]) == ("train", 3)  # the truth of c is not known
    assert entry["mean_iou"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert entry["iou_over_50"] == pytest.approx(1 / 3)
    assert (entry["small"], entry["medium"]) == (1.0, None)
    assert entry["large"] == pytest.approx(0.25)


def test_an_image_that_failed_counts_no_object(run):
    store(run / "masks" / "bbam", [row("a", halves("a")), row("b", [b"", b""], "error")])
    entry = entries_of(run, ScoreConfig())["objects/bbam"]
    assert (entry["objects"], entry["mean_iou"]) == (1, 0.5)


def test_an_image_whose_truth_cannot_be_used_is_named_with_the_reason(run):
    bad = sample("a", "train", masks=False, mask_path="nowhere.png")
    write_manifest(run / "manifest", [bad, sample("b", "train")], ["cow"])
    store(run / "masks" / "bbam", [row("a", wholes("a")), row("b", wholes("b"))])
    entries, skipped = score_objects(run, ScoreConfig(), PlainEngine())
    entry = entries["objects/bbam"]
    assert (entry["objects"], entry["skipped_count"]) == (2, 1)
    assert skipped.keys() == {"a"}
    assert "nowhere.png" in skipped["a"]
    assert entry["skipped"] == [{"id": "a", "reason": skipped["a"]}]


def test_only_the_images_of_a_list_count(run, tmp_path):
    store(run / "masks" / "bbam", [row("a", halves("a")), row("b", wholes("b"))])
    (tmp_path / "few.txt").write_text("a\n")
    entry = entries_of(run, ScoreConfig(ids=str(tmp_path / "few.txt")))["objects/bbam"]
    assert (entry["objects"], entry["mean_iou"]) == (1, 0.5)


def test_without_a_known_object_there_are_no_figures(run):
    store(run / "masks" / "bbam", [row("c", wholes("c"))])
    entry = entries_of(run, ScoreConfig())["objects/bbam"]
    assert (entry["objects"], entry["mean_iou"], entry["large"]) == (0, None, None)


def test_masks_of_tags_have_no_objects(run):
    write_run(run / "masks" / "cam+threshold", {"config": {"seeds": {}}})
    assert score_objects(run, ScoreConfig(), PlainEngine()) == ({}, {})


def test_objects_from_tags_have_their_precision_on_the_images_of_the_masks(run, tmp_path):
    made = [row("a", wholes("a")), row("b", halves("b")), row("c", wholes("c"))]
    for name in ("cam+irnet_instances", "other"):
        write_run(run / "masks" / name, {"kind": "tag_instances", "config": {"seeds": {}}})
        write_shard(run / "masks" / name, rows_to_table(made, INSTANCES_SCHEMA))
        made = [row("a", wholes("a")), row("b", [b"", b""], "error"), row("val-a", wholes("a"))]
    entries = entries_of(run, ScoreConfig())
    entry, other = entries["objects/cam+irnet_instances"], entries["objects/other"]
    assert (entry["split"], entry["objects"], entry["images"]) == ("train", 4, 3)
    assert (entry["images_left_out"], other["images_left_out"]) == (0, 2)
    assert entry["found"]["images_with_masks"] == 2  # the truth of c is not known
    assert (entry["found"]["ap25"], entry["found"]["abo"]) == (1, pytest.approx(2 / 3))
    assert entry["found"]["ap70"] < 0.5
    assert (other["objects"], other["found"]["ap"]) == (1, pytest.approx(1))
    (tmp_path / "few.txt").write_text("a\n")
    few = entries_of(run, ScoreConfig(ids=str(tmp_path / "few.txt")))["objects/other"]
    assert (few["images"], few["images_left_out"]) == (1, 0)


def test_objects_from_tags_are_not_scored_without_true_objects(run):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    write_manifest(run / "manifest", [Sample("a", "a.png", *SIZE_HW, (0,), *nothing)], ["cow"])
    store(run / "masks" / "found", [row("a", wholes("a"))])
    write_run(run / "masks" / "found", {"kind": "tag_instances"})
    assert entries_of(run, ScoreConfig(split="")) == {}


def instances(run, name, make, trained=None, ids="abc", images=None):
    """Predictions of a Mask R-CNN, and what it was trained with and on."""
    rows = [row(f"val-{id_}", make(id_)) for id_ in ids]
    store(run / "instances" / name, rows, {"weights": name})
    config = {"mask_rcnn": trained or {"lr": 0.1}}
    config |= {"trained_on": images} if images else {}
    write_run(run / "mask_rcnn" / name, {"config": config})


def test_instances_have_the_precision_of_masks_where_these_are_known_and_of_boxes_anywhere(run):
    instances(run, "bbam", halves)
    entry = entries_of(run, ScoreConfig())["instances/bbam"]
    assert (entry["images"], entry["images_with_masks"]) == (3, 2)
    assert entry["boxes"]["ap50"] == pytest.approx(1)
    assert entry["ap25"] == pytest.approx(1)
    assert (entry["ap70"], entry["abo"]) == (0, 0.5)


def test_what_is_small_is_as_asked_of_instances_too(run):
    instances(run, "bbam", lambda id_: wholes(id_) if id_ == "a" else halves(id_))
    everything, small = (
        entries_of(run, ScoreConfig(size_bounds_px=bounds))["instances/bbam"]
        for bounds in ((1000, 2000), (200, 300))
    )
    assert everything["small"] == pytest.approx(everything["ap"])
    assert everything["ap"] < 0.9
    assert small["small"] == pytest.approx(1)
    assert everything["boxes"]["large"] is None
    assert small["boxes"]["large"] == pytest.approx(1)


def test_what_a_labelled_truth_ignores_is_left_out_of_instances_too(run, tmp_path):
    labels = np.ones(SIZE_HW, np.uint8)
    labels[5:] = IGNORE  # all of the object of a but its upper half
    write_mask(tmp_path / "a.png", labels)
    samples = [
        sample("val-a", "val", mask_path=str(tmp_path / "a.png")),
        sample("val-b", "val", mask_path=str(tmp_path / "missing.png")),
    ]
    write_manifest(run / "manifest", samples, ["cow"])
    instances(run, "bbam", halves, ids="ab")
    entry = entries_of(run, ScoreConfig())["instances/bbam"]
    assert (entry["images"], entry["images_with_masks"]) == (2, 1)  # of b nobody knows what counts
    assert (entry["ap75"], entry["abo"]) == (pytest.approx(1), 1)
    truths = true_instances(read_manifest(run / "manifest", true_masks=True))
    np.testing.assert_array_equal(decode_mask(truths["val-a"].counted, SIZE_HW), labels == 1)
    assert truths["val-b"].masks == ()


def test_images_without_a_result_are_counted_beside_the_figures(run):
    rows = [row("val-a", wholes("a")), row("val-b", [], "error")]
    store(run / "instances" / "bbam", [rows[0], rows[1] | {"boxes_xyxy": [], "classes": []}])
    entry = entries_of(run, ScoreConfig())["instances/bbam"]
    assert (entry["images"], entry["images_left_out"]) == (1, 2)


def test_the_share_of_full_supervision_is_each_figure_over_that_on_true_masks(run):
    instances(run, "truth", wholes)
    instances(run, "bbam", halves)
    entries = entries_of(run, ScoreConfig())
    assert entries["instances/truth"]["abo"] == 1
    ratios = entries["instances/bbam"]["of_full_supervision"]
    assert ratios.keys() == {"ap", "ap25", "ap50", "ap70", "ap75", "abo"}
    assert (ratios["ap25"], ratios["ap75"], ratios["abo"]) == (pytest.approx(1), 0, 0.5)
    assert "of_full_supervision" not in entries["instances/truth"]
    assert "trained_on" not in entries["instances/bbam"]


@pytest.mark.parametrize("number", [2, 3, None])
def test_a_share_of_a_training_on_other_images_says_so(run, number):
    instances(run, "truth", wholes, images={"images": 3, "list": "abc"})
    own = {"images": number, "list": "xyz"} if number else None
    instances(run, "bbam", halves, images=own)
    entry = entries_of(run, ScoreConfig())["instances/bbam"]
    assert entry["of_full_supervision"]["abo"] == 0.5
    assert entry["trained_on"] == {"images": number, "full": 3}


@pytest.mark.parametrize(("trained", "ids"), [({"lr": 0.2}, "ab"), (None, "bc"), (None, "abc")])
def test_unlike_trainings_or_images_are_not_held_against_each_other(run, trained, ids):
    instances(run, "truth", wholes, ids="ab")
    instances(run, "bbam", halves, trained, ids)
    assert "of_full_supervision" not in entries_of(run, ScoreConfig())["instances/bbam"]


def test_difficult_objects_and_crowds_are_neither_hit_nor_miss(tmp_path):
    given = sample("b", "val", difficult=(0,), crowds=(1,))
    write_manifest(Folder(str(tmp_path)), [given], ["cow"])
    (truth,) = true_instances(read_manifest(Folder(str(tmp_path)), true_masks=True)).values()
    assert truth.ignored.tolist() == [True, True]
    assert truth.crowd.tolist() == [False, True]
    assert truth.masks == given.true_masks
    assert truth.size_hw == SIZE_HW
