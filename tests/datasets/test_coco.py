import copy
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO as Official

from rayseg.datasets import COCO, DatasetError, DatasetNotFoundError, coco
from rayseg.datasets.coco import coco_classes
from rayseg.datasets.coco_annotations import rasterise, read_annotation
from rayseg.datasets.tally import Tally
from rayseg.records.palette import decode_labels
from rayseg.records.rle import decode_mask, mask_area
from tests.datasets.coco_json import entry, small_json, square, write

# The ids of 1 to 90 that COCO's object categories leave out.
UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@pytest.fixture
def content():
    return small_json()


@pytest.fixture
def reader(tmp_path, content):
    return write(tmp_path, content)


def test_the_map_of_ids_is_the_official_one():
    ids = [number for number, _ in coco_classes()]
    assert ids == sorted(set(range(1, 91)) - UNUSED)
    names = dict(coco_classes())
    assert len(set(names.values())) == 80
    some = {1: "person", 13: "stop sign", 27: "backpack", 44: "bottle", 67: "dining table"}
    assert {number: names[number] for number in some} == some
    assert (names[70], names[90]) == ("toilet", "toothbrush")


def test_classes_are_the_categories_by_id(reader):
    assert reader.classes == ("airplane", "toothbrush")


def test_ids_have_twelve_digits(reader, tmp_path):
    assert [s.id for s in reader.samples(tmp_path / "w", Tally())] == [
        "000000000007",
        "000000123456",
    ]


def test_a_crowd_is_a_tag_and_its_box_is_listed(content, tmp_path):
    content["annotations"] = content["annotations"][2:]
    sample = next(write(tmp_path, content).samples(tmp_path / "w", Tally()))
    assert sample.tags == (0, 1)
    expected = np.array([[15, 0, 30, 20], [20, 5, 23, 8]], np.float32)
    np.testing.assert_array_equal(sample.boxes_xyxy, expected)
    assert sample.box_classes.tolist() == [1, 0]
    assert (sample.crowds, sample.difficult) == ((0,), ())


def test_category_ids_are_those_of_the_file(reader):
    assert reader.category_ids == (5, 90)


def test_a_file_that_counts_categories_from_zero_keeps_them(content, tmp_path):
    content["categories"][1]["id"] = 0
    for one in content["annotations"]:
        one["category_id"] = {5: 0, 90: 90}[one["category_id"]]
    reader = write(tmp_path, content)
    assert reader.category_ids == (0, 90)
    assert next(reader.samples(tmp_path / "w", Tally())).box_classes.tolist() == [0, 1, 1, 0]


def test_true_masks_are_those_of_the_outlines(content, tmp_path, reader):
    whole = np.zeros((20, 30), np.uint8)
    whole[3:9, 4:6] = 1
    packed = rle_codec.encode(np.asfortranarray(whole))
    packed["counts"] = packed["counts"].decode()
    content["annotations"] += [
        entry(5, 5, packed, [4, 3, 2, 6]),
        entry(6, 5, None, [0, 0, 2, 2]),
        entry(7, 5, [[1, 1, 2, 2]], [0, 0, 2, 2]),
        entry(8, 5, [*square(0, 0, 2), *square(1, 10, 3)], [0, 0, 4, 13]),
    ]
    sample = next(write(tmp_path, content).samples(tmp_path / "w", Tally()))
    found = [decode_mask(counts, (20, 30)) for counts in sample.true_masks]
    expected = np.zeros((8, 20, 30), bool)
    expected[0, 2:6, 2:6] = expected[1, :10, :10] = expected[2, :, 15:] = True
    expected[3, 5:8, 20:23] = expected[7, :2, :2] = expected[7, 10:13, 1:4] = True
    expected[4] = whole
    np.testing.assert_array_equal(found, expected)
    assert [i for i, counts in enumerate(sample.true_masks) if not counts] == [5, 6]


def test_true_masks_are_left_out_where_sizes_differ_or_none_is_wanted(content, tmp_path, reader):
    assert len(next(reader.samples(tmp_path / "w", Tally())).true_masks) == 4
    assert (
        next(write(tmp_path, content, masks=False).samples(tmp_path / "w", Tally())).true_masks
        == ()
    )
    Image.new("RGB", (31, 20)).save(tmp_path / "7.jpg")
    assert next(reader.samples(tmp_path / "w", Tally())).true_masks == ()


def test_strange_boxes_stay_as_they_are(content, tmp_path):
    boxes = [[-5, -5, 10, 10], [3, 3, 0, 4], [9, 9, -4, -4], [100, 100, 5, 5]]
    content["annotations"] = [entry(i, 5, None, box) for i, box in enumerate(boxes)]
    sample = next(write(tmp_path, content).samples(tmp_path / "w", Tally()))
    expected = [[-5, -5, 5, 5], [3, 3, 3, 7], [9, 9, 5, 5], [100, 100, 105, 105]]
    np.testing.assert_array_equal(sample.boxes_xyxy, np.array(expected, np.float32))
    labels = np.zeros((20, 30), np.uint8)
    labels[:5, :5] = 255
    with open(sample.mask_path, "rb") as file:
        np.testing.assert_array_equal(decode_labels(file.read()), labels)


def with_val(content, tmp_path, change=lambda content: None):
    write(tmp_path, content)
    val = copy.deepcopy(content)
    for number, image in enumerate(val["images"]):
        image["id"] = 500 + number
    for one in val["annotations"]:
        one["image_id"] = 500
    change(val)
    (tmp_path / "val.json").write_text(json.dumps(val))
    files = {"annotations": tmp_path / "a.json", "val_annotations": tmp_path / "val.json"}
    return COCO(images=tmp_path, val_images=tmp_path, **files)


def test_a_second_file_becomes_the_split_val(content, tmp_path):
    samples = list(with_val(content, tmp_path).samples(tmp_path / "w", Tally()))
    assert [(s.id[-3:], s.split) for s in samples] == [
        ("007", "train"),
        ("456", "train"),
        ("500", "val"),
        ("501", "val"),
    ]
    np.testing.assert_array_equal(samples[0].boxes_xyxy, samples[2].boxes_xyxy)


def test_val_may_lack_categories_but_have_no_others(content, tmp_path):
    def fewer(val):
        val["categories"] = val["categories"][:1]
        val["annotations"] = [one for one in val["annotations"] if one["category_id"] == 90]

    val = list(with_val(content, tmp_path, fewer).samples(tmp_path / "w", Tally()))[2]
    assert val.box_classes.tolist() == [1, 1]
    change = with_val(content, tmp_path, lambda val: val["categories"][1].update(name="airplan"))
    with pytest.raises(DatasetError, match=r"\(5, 'airplan'\).*'airplane'"):
        list(change.samples(tmp_path / "w", Tally()))
    with pytest.raises(DatasetError, match="val_images and val_annotations go together"):
        COCO(val_images=tmp_path)


@pytest.mark.parametrize(("crowd", "label"), [("ignore", 255), ("class", 2)])
def test_small_objects_lie_on_large_ones_and_all_on_crowds(content, tmp_path, crowd, label):
    sample = next(write(tmp_path, content, crowd=crowd).samples(tmp_path / "w", Tally()))
    expected = np.zeros((20, 30), np.uint8)
    expected[:, 15:] = label
    expected[:10, :10] = 2
    expected[2:6, 2:6] = 1
    expected[5:8, 20:23] = 1
    with open(sample.mask_path, "rb") as file:
        np.testing.assert_array_equal(decode_labels(file.read()), expected)


def drawn(entries, index):
    size_hw = 20, 30
    return rasterise([read_annotation(one, index, size_hw) for one in entries], size_hw)


def test_the_order_of_annotations_does_not_matter(content):
    index = {5: 0, 90: 1}
    forth = drawn(content["annotations"], index)
    np.testing.assert_array_equal(forth, drawn(content["annotations"][::-1], index))


@pytest.mark.parametrize("outline", [None, [], [[1, 1, 3, 3]]])
def test_an_object_without_an_outline_leaves_its_box_to_ignore(outline):
    labels = drawn([entry(1, 5, outline, [1.5, 2, 3, 4])], {5: 0})
    expected = np.zeros((20, 30), np.uint8)
    expected[2:6, 1:5] = 255
    np.testing.assert_array_equal(labels, expected)


def test_three_points_are_an_outline():
    """The least that pycocotools takes: the upper left half of a square."""
    labels = drawn([entry(1, 5, [[2, 2, 12, 2, 2, 12]], [2, 2, 10, 10])], {5: 0})
    rows, columns = np.indices((20, 30))
    inside = (rows >= 2) & (columns >= 2) & (rows + columns < 13)
    outside = (rows < 2) | (columns < 2) | (rows + columns > 15)
    assert (labels[inside] == 1).all()
    assert not labels[outside].any()


def test_no_mask_is_written_without_the_flag(content, tmp_path):
    samples = list(write(tmp_path, content, masks=False).samples(tmp_path / "w", Tally()))
    assert {sample.mask_path for sample in samples} == {""}
    assert not list(tmp_path.rglob("*.png"))


def test_an_unreadable_image_costs_only_its_size(reader, tmp_path):
    first, second = reader.samples(tmp_path / "w", Tally())
    assert (first.height, first.width, second.height, second.width) == (20, 30, 0, 0)
    assert second.tags == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"].append({"id": 5, "name": "x"}), "duplicate category id 5"),
        (lambda c: c["categories"].append({"id": "05", "name": "x"}), "duplicate category id 5"),
        (lambda c: c["categories"].append({"id": [], "name": "x"}), r"category id \[\] must be"),
        (lambda c: c["categories"].append({"id": 6, "name": "airplane"}), "'airplane' .*twice"),
        (lambda c: c["categories"][1].update(name="\ud800"), "whole letters"),
        (lambda c: c["categories"][1].pop("name"), r"category 2 of the list .*lacks \['name'\]"),
        (lambda c: c["categories"].clear(), "names no class"),
        (lambda c: c["images"].clear(), "lists no image"),
        (lambda c: c.pop("annotations"), r"lacks \['annotations'\]"),
        (lambda c: c.update(annotations={}), "annotations must be a list"),
        (
            lambda c: [one.pop("id") for one in c["images"]],
            "no image of 2 can be taken, such as .*image 1 of the list.*: id is lacking",
        ),
    ],
)
def test_contradictions_are_errors(content, tmp_path, change, message):
    change(content)
    with pytest.raises(DatasetError, match=message):
        list(write(tmp_path, content).samples(tmp_path / "w", Tally()))


def test_sizes_in_the_file_are_not_needed_without_masks(content, tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "7.jpg")
    for image in content["images"]:
        del image["height"], image["width"]
    sample = next(write(tmp_path, content, masks=False).samples(tmp_path / "w", Tally()))
    assert (sample.height, sample.width) == (20, 30)


def test_classes_and_samples_come_of_one_reading_of_the_file(reader, tmp_path, monkeypatch):
    read = []
    load = coco._load
    monkeypatch.setattr(coco, "_load", lambda path: read.append(path) or load(path))
    assert reader.classes == ("airplane", "toothbrush")
    assert [len(sample.true_masks) for sample in reader.samples(tmp_path / "w", Tally())] == [4, 0]
    assert reader.category_ids == (5, 90)
    assert read == [reader.annotations]


def test_a_reader_keeps_nothing_of_the_file_but_its_classes(reader, tmp_path):
    list(reader.samples(tmp_path / "w", Tally()))
    assert b"other.jpg" not in pickle.dumps(reader)


def test_what_is_missing_is_an_error_with_a_way_out(reader, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="annotations not found"):
        list(COCO(tmp_path, tmp_path / "no.json").samples(tmp_path / "w", Tally()))
    with pytest.raises(DatasetNotFoundError, match="images not found"):
        list(COCO(tmp_path / "no", reader.annotations).samples(tmp_path / "w", Tally()))
    reader.annotations.write_text("{")
    with pytest.raises(DatasetError, match="is not JSON"):
        list(reader.samples(tmp_path / "w", Tally()))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_real_coco_equals_a_brute_force_decode(real_data, tmp_path, capsys):
    annotations = real_data / "coco_mini" / "annotations" / "instances_val2017.json"
    reader = COCO(real_data / "coco_mini" / "val2017", annotations)
    assert reader.classes == tuple(name for _, name in coco_classes())
    official = Official(str(annotations))
    capsys.readouterr()
    number = {category: i + 1 for i, category in enumerate(sorted(official.getCatIds()))}
    for sample in reader.samples(tmp_path, Tally()):
        entries = official.loadAnns(official.getAnnIds(int(sample.id)))
        assert set(sample.tags) == {number[e["category_id"]] - 1 for e in entries}
        masks = [official.annToMask(e).astype(bool) for e in entries]
        areas = [int(rle_codec.area(official.annToRLE(e))) for e in entries]
        crowds = [bool(e["iscrowd"]) for e in entries]
        expected = np.zeros((sample.height, sample.width), np.uint8)
        for i in sorted(range(len(entries)), key=lambda i: (not crowds[i], -areas[i])):
            expected[masks[i]] = 255 if crowds[i] else number[entries[i]["category_id"]]
        with open(sample.mask_path, "rb") as file:
            np.testing.assert_array_equal(decode_labels(file.read()), expected)


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_real_coco_has_its_crowds_and_the_masks_of_all_objects(real_data, tmp_path, capsys):
    annotations = real_data / "coco_mini" / "annotations" / "instances_val2017.json"
    official = Official(str(annotations))
    capsys.readouterr()
    reader = COCO(real_data / "coco_mini" / "val2017", annotations)
    assert reader.category_ids == tuple(number for number, _ in coco_classes())
    crowds = 0
    for sample in reader.samples(tmp_path, Tally()):
        entries = official.loadAnns(official.getAnnIds(int(sample.id)))
        assert [bool(e["iscrowd"]) for e in entries] == [
            i in sample.crowds for i in range(len(entries))
        ]
        crowds += len(sample.crowds)
        size_hw = sample.height, sample.width
        for one, counts in zip(entries, sample.true_masks, strict=True):
            np.testing.assert_array_equal(
                decode_mask(counts, size_hw), official.annToMask(one).astype(bool)
            )
            assert mask_area(counts, size_hw) == rle_codec.area(official.annToRLE(one))
    assert crowds
