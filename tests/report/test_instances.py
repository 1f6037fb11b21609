"""The page of a run from boxes: maps, masks and instances where they lie, and their figures."""

import json

import numpy as np
import pytest
from PIL import Image

from rayseg import store
from rayseg.records import Sample
from rayseg.records.palette import VOC_PALETTE, encode_labels
from rayseg.records.rle import encode_mask
from rayseg.report import overlays
from rayseg.report.contents import Score, final_instances, reading_order
from rayseg.report.segmenters import ObjectNetwork
from rayseg.report.wording import summarize
from tests.report.pages import CLASSES, DASH, SIZE_HW, examples, read_page

BOXES = np.array([[4, 6, 28, 42], [36, 12, 60, 44]], np.float32)
LABELS = ("truth", "bbam+box_crf")


def filled(box):
    mask = np.zeros(SIZE_HW, bool)
    x1, y1, x2, y2 = box.astype(int)
    mask[y1:y2, x1:x2] = True
    return mask


def semantic():
    labels = np.zeros(SIZE_HW, np.uint8)
    for i, box in enumerate(BOXES):
        labels[filled(box)] = i + 1
    return encode_labels(labels)


def outcome(name):
    return {"id": name, "status": "ok", "height": 48, "width": 64, "seconds": 0.5}


def box_maps_row(name):
    grid = np.zeros((1, 7, 9), np.float32)
    grid[0, :4, :5] = 1  # the upper left part up to the middle, corners on corners
    status = ["ok", "missed"] if name == "img0" else ["ok", "box must have x1 < x2, got <none>"]
    return outcome(name) | {
        "boxes_xyxy": BOXES.tolist(),
        "classes": [0, 1],
        "object_status": status,
        "maps": store.pack_maps(np.concatenate([grid, np.zeros_like(grid)])),
    }


def instances_row(name, scores=(1.0, 1.0)):
    inner = BOXES + np.array([3, 3, -3, -3], np.float32)
    return outcome(name) | {
        "labels": semantic(),
        "boxes_xyxy": BOXES.tolist(),
        "classes": [0, 1],
        "object_status": ["ok", "ok"],
        "scores": list(scores),
        "foreground": [encode_mask(filled(box)) for box in inner],
        "possible": [encode_mask(filled(box)) for box in BOXES],
    }


def make_scores():
    masks = {"ap": 0.2, "ap25": 0.6, "ap50": 0.45, "ap70": 0.3, "ap75": 0.25, "abo": 0.4}
    sizes = {"small": None, "medium": 0.15, "large": 0.35, "images": 2}
    base = masks | sizes | {"boxes": {"ap": 0.3, "ap50": 0.55}}
    return {
        "objects/bbam+box_crf": {
            "split": "train",
            "objects": 4,
            "mean_iou": 0.71,
            "iou_over_50": 0.9,
            "small": None,
            "medium": 0.6,
            "large": 0.8,
        },
        "instances/truth": base | {"ap50": 0.6},
        "instances/bbam+box_crf": base
        | {"of_full_supervision": {"ap": 1.0, "ap50": 0.75, "abo": 1.0}, "images_left_out": 3},
    }


def training(ap50):
    return {
        "config": {"trunk": "tiny"},
        "curve": [{"iteration": n, "loss": 2 / n} for n in (10, 20)],
        "judged": [
            {"iteration": n, "ap": 0.1, "ap50": ap50 * n / 20, "ap75": 0.05, "images": 2}
            for n in (10, 20)
        ],
        "images": 4,
        "seconds": 80.0,
        "done": True,
        "left_out": {"count": 1, "examples": [{"id": "img9", "reason": "no object"}]},
    }


def make_run(folder):
    image = folder / "image.png"
    Image.fromarray(np.full((*SIZE_HW, 3), 90, np.uint8)).save(image)
    counts = tuple(encode_mask(filled(box)) for box in BOXES)
    samples = [
        Sample(
            *(name, str(image), *SIZE_HW, (0, 1), BOXES, np.array([0, 1])),
            split="val" if name.startswith("val") else "train",
            true_masks=counts,
        )
        for name in ("img0", "img1", "val0")
    ]
    run = store.Folder(str(folder / "run"))
    store.write_manifest(run / "manifest", samples, CLASSES)
    kinds = {
        "box_maps/bbam": (store.BOX_MAPS_SCHEMA, [box_maps_row(n) for n in ("img0", "img1")]),
        "masks/bbam+box_crf": (
            store.INSTANCES_SCHEMA,
            [instances_row(n) for n in ("img0", "img1")],
        ),
        "instances/truth": (store.INSTANCES_SCHEMA, [instances_row("val0", (0.9, 0.1))]),
        "instances/bbam+box_crf": (store.INSTANCES_SCHEMA, [instances_row("val0", (0.2, 0.1))]),
    }
    for name, (schema, rows) in kinds.items():
        store.write_shard(run / name, store.rows_to_table(rows, schema))
        made_of = {"box_maps": "boxes", "masks": "box_maps", "instances": "instances"}
        config = {made_of[name.partition("/")[0]]: {}}
        store.write_run(run / name, {"config": config, "seconds": 3.0})
    store.write_run(run / "detector", training(0.5))
    for name in LABELS:
        store.write_run(run / "mask_rcnn" / name, training(0.4))
    run.write("scores.json", json.dumps(make_scores()).encode())
    return run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return read_page(make_run(tmp_path_factory.mktemp("boxes")))


def table(page, title):
    return next(rows for rows in page.tables if rows and rows[0][0] == title)


def test_instances_have_their_table_truth_first(page):
    rows = [row for rows in page.tables for row in rows if rows[0][0] == "trained on"]
    assert rows == [
        [
            *("trained on", "AP", "AP25", "AP50", "AP70", "AP75", "APm", "APl", "ABO"),
            *("AP50 of full supervision", "ABO of full supervision", "box AP50", "images"),
        ],
        [
            *("truthfull supervision", "20.0", "60.0", "60.0", "30.0", "25.0", "15.0", "35.0"),
            *("40.0", DASH, DASH, "55.0", "2"),
        ],
        [
            *("bbam+box_crf", "20.0", "60.0", "45.0", "30.0", "25.0", "15.0", "35.0", "40.0"),
            *("75.0", "100.0", "55.0", "2"),
        ],
    ]


def test_masks_from_boxes_have_a_table_of_objects(page):
    assert table(page, "masks") == [
        ["masks", "mask IoU", "IoU over 0.5", "medium", "large", "objects"],
        ["bbam+box_crf", "71.0", "90.0", "60.0", "80.0", "4"],
    ]


def test_objects_are_counted_by_status_and_reasons_are_listed(page):
    statuses = next(t for t in page.tables if "missed by the detector" in t[0])
    assert statuses[1:] == [
        ["box_maps/bbam", "4", "2", "1", "1"],
        ["masks/bbam+box_crf", "4", "4", "0", "0"],
    ]
    failures = [row for rows in page.tables for row in rows if row and row[0] == "img1"]
    assert failures == [["img1", "no map · box must have x1 < x2, got <none>", "box_maps/bbam"]]
    assert "No image failed." in page.text
    assert 'id="scores"' not in page.html


def test_the_sentence_says_objects_and_instances(page):
    assert (
        "The masks of bbam+box_crf overlap those of the true objects by 71.0 % IoU. A Mask R-CNN "
        "trained on the masks of bbam+box_crf reaches 45.0 % AP50 and 40.0 % ABO, 75.0 % of full "
        "supervision in AP50."
    ) in page.text


def test_only_truth_is_said_without_a_share():
    facts = {name: one for name, one in make_scores().items() if name == "instances/truth"}
    scores = [Score(name, one) for name, one in facts.items()]
    said = "A Mask R-CNN trained on true masks reaches 60.0 % AP50 and 40.0 % ABO."
    assert summarize(scores) == said


def test_final_instances_are_the_best_without_true_masks():
    scores = [Score(name, one) for name, one in make_scores().items()]
    assert final_instances(scores).name == "instances/bbam+box_crf"


def test_maps_lie_with_their_corners_on_those_of_the_image(page):
    layer = page.images("bbam: maps of 1 cat, 1 <b>dog</b>; 1 without a map")[0]
    assert layer.shape == (240, 320, 4)
    # the grid falls from 1 to 0 between its fourth and fifth row: 3/6 and 4/6 of the height
    edge = np.flatnonzero(layer[:, 2, 3] < 195 / 2)[0]
    assert abs(edge - 239 * 3.5 / 6) < 4
    assert layer[0, 0].tolist() == [*VOC_PALETTE[1], 195]
    assert layer[239, 0, 3] == 0


def test_boxes_are_drawn_where_they_are_in_their_classes_colours(page):
    layer = page.images("bbam: maps of")[0]
    for box, label in zip(5 * BOXES.astype(int), (1, 2), strict=True):
        x1, y1, x2, y2 = box
        for y, x in ((y1, x1), (y1 + 1, x2 - 1), (y2 - 1, x1 + 1), (y2 - 1, x2 - 1)):
            assert layer[y, x].tolist() == [*VOC_PALETTE[label], 255]
        assert layer[y1 - 1, x1].tolist() != [*VOC_PALETTE[label], 255]
        assert layer[y1 + 4, x1 + 4].tolist() != [*VOC_PALETTE[label], 255]


def test_masks_are_filled_and_doubt_is_hatched(page):
    layer = page.images("bbam+box_crf: 1 cat, 1 <b>dog</b>")[0]
    assert layer[120, 80].tolist() == [*VOC_PALETTE[1], 150]
    assert layer[140, 240].tolist() == [*VOC_PALETTE[2], 150]
    assert layer[120, 28].tolist() in ([205, 205, 205, 150], [150, 150, 150, 150])
    assert layer[10, 10, 3] == 0


def test_true_objects_stand_beside(page):
    layer = page.images("true objects: 1 cat, 1 <b>dog</b>")[0]
    assert layer[120, 80].tolist() == [*VOC_PALETTE[1], 150]
    assert layer[10, 10, 3] == 0


def test_unlikely_objects_are_not_shown(page):
    assert examples(page, "val") == ["val0"]
    layer = page.images("trained on truth: 1 cat")[0]
    assert layer[120, 80].tolist() == [*VOC_PALETTE[1], 150]
    assert layer[140, 240, 3] == 0
    assert "no object with a score of 0.3 or more" in page.text


def test_curves_of_detector_and_mask_rcnns_are_drawn(page):
    drawn = {attrs["aria-label"] for tag, attrs in page.elements if tag == "svg"}
    assert drawn == {
        "Loss and AP50 of the detector by iteration",
        "Loss and AP50 of the Mask R-CNNs by iteration",
    }
    assert "AP 10.0, AP50 50.0, AP75 5.0, of boxes on 2 images" in page.text


def test_boxes_left_out_of_a_training_are_called_boxes(page):
    assert "1 box was left out when the Mask R-CNN was trained on bbam+box_crf." in page.text


def test_instances_that_some_images_lack_are_said(page):
    assert "bbam+box_crf is judged on 2 of 5 images; the others have no result." in page.text
    assert "truth is judged on" not in page.text


def test_cost_has_all_that_was_made_in_order(page):
    names = [row[0] for row in page.tables[-1][1:]]
    assert names == [
        *("detector", "box_maps/bbam", "masks/bbam+box_crf"),
        *("mask_rcnn/truth", "mask_rcnn/bbam+box_crf"),
        *("instances/truth", "instances/bbam+box_crf"),
    ]


def test_a_run_from_tags_has_no_section_of_objects(tmp_path):
    page = read_page(store.Folder(str(tmp_path / "run")))
    assert not any(attrs.get("id") == "objects" for _, attrs in page.elements)


@pytest.mark.parametrize(
    "part", ["detector", "box_maps", "masks", "mask_rcnn", "instances", "manifest"]
)
def test_any_part_may_be_missing(run, part):
    (run / part).remove()
    assert any(attrs.get("id") == "objects" for _, attrs in read_page(run, max_images=1).elements)


def test_a_mask_rcnn_without_true_masks_is_judged_by_its_boxes():
    judged = [{"iteration": 10, "box_ap50": 0.3}, {"iteration": 20, "box_ap50": 0.4}]
    network = ObjectNetwork("mask_rcnn/a", {"judged": judged})
    assert network.precisions == ([10, 20], [0.3, 0.4])


def test_a_training_that_has_only_begun_still_has_a_page(run):
    for name in ("detector", "mask_rcnn/truth"):
        (run / name).write("run.json", json.dumps({"config": {}, "judged": []}).encode())
    assert "not finished" in read_page(run, max_images=1).text


def test_grids_are_enlarged_corners_on_corners():
    grid = np.random.default_rng(0).random((4, 3))
    found = overlays.enlarge_grid(grid, (13, 9))
    for y in range(13):
        for x in range(9):
            v, u = y * 3 / 12, x * 2 / 8
            expected = sum(
                max(1 - abs(v - i), 0) * max(1 - abs(u - j), 0) * grid[i, j]
                for i in range(4)
                for j in range(3)
            )
            assert found[y, x] == pytest.approx(expected)
    assert np.array_equal(overlays.enlarge_grid(np.ones((1, 1)), (2, 3)), np.ones((2, 3)))


def test_touching_objects_of_one_class_are_told_apart():
    masks = np.zeros((2, 6, 8), bool)
    masks[0, :, :4] = masks[1, :, 4:] = True
    none = np.zeros((6, 8), bool)
    layer = overlays.object_layer(masks, none, np.zeros((2, 4)), [2, 2])
    assert (layer[:, 3:5] == overlays.OUTLINE).all()
    assert (layer[:, :3] == [*VOC_PALETTE[3], 150]).all()


def test_boxes_over_the_edge_are_clipped_and_senseless_ones_left_out():
    layer = np.zeros((10, 12, 4), np.uint8)
    boxes = np.array([[-4.0, 2, 30, 8], [np.nan, 0, 3, 3], [9, 9, 2, 2]])
    drawn = overlays.draw_boxes(layer, boxes, [0, 1, 2])
    rows, columns = np.nonzero(drawn[..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 7, 0, 11)
    assert not layer.any()


def test_folders_are_read_in_the_order_of_making():
    names = ["box_maps/bbam", "masks/bbam+box_crf", "predictions/a", "instances/truth"]
    by_letter = sorted(names)
    assert sorted(by_letter, key=reading_order) == names
