"""Maps of objects: one row an image, what is wrong with one object said in its own place."""

import numpy as np
import pytest
import torch

from rayseg.attribution import BBAM, Objects
from rayseg.stages import box_maps
from rayseg.stages.box_maps import MakeBoxMaps, class_numbers
from rayseg.store import BOX_MAPS_SCHEMA, rows_to_table, unpack_grid
from tests.attribution.tiny_detector import TinyDetector

CLASSES = ("aeroplane", "emu", "cat")
METHOD = BBAM(num_jitters=60, iou_levels=(0.1,), steps=2, fixed_stride=8, precision="fp32")
GOOD = [4.0, 5.0, 30.0, 28.0]


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    made = TinyDetector(num_classes=3)
    monkeypatch.setattr(box_maps, "load_detector", lambda path, classes: made)
    return made


def decoded(id_="a", boxes=(GOOD,), classes=(0,), seed=1, height=36, **changed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, 40, 3), np.uint8)
    row = {
        "id": id_, "status": "", "error": "", "note": "", "height": height, "width": 40,
        "classes": [], "boxes_xyxy": [list(box) for box in boxes], "box_classes": list(classes),
        "places": list(range(len(boxes))), "pixels": pixels.tobytes(),
    }  # fmt: skip
    return row | changed


def stage(**changed):
    return MakeBoxMaps(METHOD, "detector.safetensors", CLASSES, **changed)


def test_the_maps_of_a_row_are_the_methods(detector):
    row = decoded(boxes=[GOOD, [10, 2, 38, 34]], classes=[0, 2])
    (made,) = stage()([row])
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(1, 36, 40, 3).copy()
    objects = Objects(torch.tensor(row["boxes_xyxy"]), torch.tensor([0, 2]))
    (expected,) = METHOD.run(detector, torch.from_numpy(pixels), [objects], ["a"])
    assert made["status"] == "ok"
    assert made["object_status"] == [one.status for one in expected]
    for data, one in zip(made["maps"], expected, strict=True):
        np.testing.assert_allclose(unpack_grid(data), one.grid, atol=1 / 500)
    assert made["positives"] == [one.positives for one in expected]
    assert rows_to_table([made], BOX_MAPS_SCHEMA).num_rows == 1


def test_rows_do_not_depend_on_their_batch(monkeypatch):
    batches = []

    def run(self, detector, images, objects, ids):
        batches.append(ids)
        return original(self, detector, images, objects, ids)

    original = BBAM.run
    monkeypatch.setattr(BBAM, "run", run)
    rows = [decoded("a"), decoded("c", seed=3, height=44), decoded("b", seed=2)]
    together = stage()(rows)
    assert sorted(batches) == [["a", "b"], ["c"]]
    alone = [stage()([row])[0] for row in rows]
    for one, other, row in zip(together, alone, rows, strict=True):
        assert one["status"] == "ok"
        assert (one["id"], one["maps"]) == (row["id"], other["maps"])


def test_a_bad_box_costs_its_own_map():
    boxes = [[30, 28, 4, 5], GOOD, [50, 50, 60, 60], [5, 5, 5, 9]]
    (made,) = stage()([decoded(boxes=boxes, classes=[0] * 4)])
    (clean,) = stage()([decoded()])
    assert made["object_status"][1] == clean["object_status"][0]
    assert made["maps"][1] == clean["maps"][0]
    for place in (0, 2, 3):
        assert made["object_status"][place].startswith("box must")
        assert unpack_grid(made["maps"][place]).max() == 0


def test_objects_keep_their_places_beside_crowds_which_have_no_map():
    boxes = [GOOD, [0, 0, 20, 20], [5, 0, 20, 20], GOOD]
    (made,) = stage()([decoded(boxes=boxes, classes=[0, 2, 1, 1], places=[1, 3])])
    assert made["boxes_xyxy"] == [[0, 0, 20, 20], GOOD]
    assert made["classes"] == [2, 1]
    assert made["places"] == [1, 3]


def test_an_image_without_boxes_is_empty_and_one_that_failed_keeps_its_reason():
    failed = decoded("b", status="error", error="cut short")
    made = stage()([decoded(boxes=(), classes=()), failed])
    assert [row["status"] for row in made] == ["empty", "error"]
    assert made[0]["note"] == "no boxes"
    assert made[1]["error"] == "cut short"


def test_a_detector_that_counts_other_classes_is_asked_by_name():
    names = ("cat", "airplane", "zebra")  # COCO's name for VOC's aeroplane
    row = decoded(boxes=[GOOD, GOOD, GOOD], classes=[0, 1, 2])
    (made,) = stage(detector_classes=names)([row])
    assert made["classes"] == [0, 1, 2]
    assert made["object_status"][1] == "the detector knows no class 'emu'"
    (plain,) = stage()([decoded(classes=[1])])
    assert made["positives"][0] == plain["positives"][0]  # its number 1 is the airplane


def test_one_class_is_found_by_vocs_and_by_cocos_name_on_either_side():
    assert class_numbers(["aeroplane", "emu"], ["cat", "airplane"]) == [1, None]
    assert class_numbers(["airplane", "emu"], ["cat", "aeroplane"]) == [1, None]
    assert class_numbers(["sofa", "couch"], ["couch", "sofa"]) == [1, 0]


@pytest.mark.parametrize(
    ("voc", "coco"),
    [
        ("aeroplane", "airplane"),
        ("diningtable", "dining table"),
        ("motorbike", "motorcycle"),
        ("pottedplant", "potted plant"),
        ("sofa", "couch"),
        ("tvmonitor", "tv"),
    ],
)
def test_all_six_classes_that_coco_renames_are_found(voc, coco):
    assert class_numbers([voc], ["cat", coco]) == [1]
    assert class_numbers([coco], ["cat", voc]) == [1]


def test_predicted_boxes_are_those_that_the_detector_finds(detector):
    row = decoded(boxes=(), classes=())
    (made,) = stage(boxes="predicted", min_score=0.3)([row])
    pixels = np.frombuffer(row["pixels"], np.uint8).reshape(1, 36, 40, 3).copy()
    (found,) = detector.detect(torch.from_numpy(pixels), 0.3)
    assert len(made["classes"]) == len(found.classes) > 0
    np.testing.assert_allclose(made["boxes_xyxy"], found.boxes_xyxy, rtol=1e-5)
    assert made["positives"] == [1] * len(found.classes)
    assert made["places"] == [-1] * len(found.classes)


def test_a_batch_that_fails_leaves_the_good_images_their_maps(monkeypatch):
    def run(self, detector, images, objects, ids):
        if "bad" in ids:
            raise RuntimeError("out of luck")
        return original(self, detector, images, objects, ids)

    original = BBAM.run
    monkeypatch.setattr(BBAM, "run", run)
    made = stage()([decoded("good"), decoded("bad", seed=2)])
    assert [row["status"] for row in made] == ["ok", "error"]
    assert made[1]["error"] == "RuntimeError: out of luck"
