"""Annotations of strangers: each broken one costs itself, with its reason, and nothing else."""

import copy
import json
import os

import numpy as np
import pytest
from PIL import Image
from pycocotools.mask import frPyObjects, merge

from rayseg.datasets import COCO, DatasetError, DatasetNotFoundError
from rayseg.datasets.tally import Tally
from rayseg.records.palette import decode_labels
from rayseg.records.rle import decode_mask, encode_mask
from tests.datasets.coco_json import entry, read, reasons, small_json, square, write

NAN, INF = float("nan"), float("inf")
WHOLE = [0, 600]  # counts of all pixels of 20 x 30


@pytest.fixture
def content():
    return small_json()


def rle(counts, size=(20, 30)):
    return {"size": list(size), "counts": counts}


def labels_of(sample):
    with open(sample.mask_path, "rb") as file:
        return decode_labels(file.read())


BROKEN_OUTLINES = {
    "a coordinate of the outline is no number": [
        [[1, 1, 5, 1, None, 5]],
        [[1, 1, 5, 1, "5", 5]],
        [[1, 1, 5, 1, True, 5]],
        [1, 1, 5, None, 5, 5],
        [[[1, 1], [5, 1], [5, "5"]]],
        [{"x": 1, "y": 1}, {"x": 5, "y": None}, {"x": 5, "y": 5}],
    ],
    "a coordinate of the outline lies far off the image": [
        [[1, 1, 5, 1, NAN, 5]],
        [[1, 1, 5, 1, INF, 5]],
        [[1, 1, 5, 1, -INF, 5]],
        [[1, 1, 5, 1, 1e9, 5]],
        [[1, 1, 5, 1, 10**400, 5]],
        [[1, 1, 5, 1, -4_000_000_000, 5]],
    ],
    "an outline has an x without its y": [[[1, 1, 5, 1, 5, 5, 1]], [1, 1, 5, 1, 5, 5, 1]],
    "a polygon must be a list of coordinates": [["a"], [None], [square(1, 1, 3)[0], "b"], [{}]],
    "segmentation is neither polygons nor a run-length code": ["x", 5, True],
    "a run-length code must have size and counts": [
        {"counts": WHOLE},
        {"size": [20, 30]},
        {"size": None, "counts": WHOLE},
        {"points": []},
    ],
    "size of the run-length code is not that of its image": [
        rle(WHOLE, (30, 20)),
        rle(WHOLE, (0, 0)),
        rle([0, 10**12], (10**6, 10**6)),
        {"size": "20x30", "counts": WHOLE},
        [rle(WHOLE), rle(WHOLE, (30, 20))],
    ],
    "counts of the run-length code do not add up to its image's pixels": [
        rle([0, 599]),
        rle([300, 301]),
        rle([]),
        rle([2**40]),
        rle(encode_mask(np.ones((20, 31), bool)).decode()),
        rle("0"),
    ],
    "a count of the run-length code is no whole number": [
        rle([0, -600, 1200]),
        rle([0.5, 599.5]),
        rle([None]),
        rle(["600"]),
        rle([True, 599]),
    ],
    "counts of the run-length code are not the characters of compressed counts": [
        rle(""),
        rle("o"),
        rle("~~~"),
        rle("0ö"),
        rle("\ud800"),
    ],
    "counts of the run-length code are neither numbers nor text": [rle(5), rle({}), rle(True)],
    "counts of the run-length code are cut short": [rle("b'\\"), rle("b'00")],
    "counts of the run-length code are a number of compressed counts is too large": [
        rle("o" * 20 + "0")
    ],
    "counts of the run-length code are a run of compressed counts is shorter than nothing": [
        rle("O")
    ],
}


@pytest.mark.parametrize(
    ("reason", "outline"),
    [(reason, one) for reason, several in BROKEN_OUTLINES.items() for one in several],
)
def test_an_annotation_with_a_broken_outline_costs_itself(content, tmp_path, reason, outline):
    clean = read(tmp_path, content)[0][0]
    content["annotations"].insert(1, entry(99, 90, outline, [1, 1, 4, 4]))
    samples, tally = read(tmp_path, content)
    assert reasons(tally)["annotations", reason] == 1
    (example,) = [text for one, text in tally.examples.items() if one.text == reason]
    for word in ("a.json", "image 7.jpg", "annotation 99"):
        assert word in example
    assert len(example.removeprefix(str(tmp_path))) < 200
    assert samples[0].true_masks == clean.true_masks
    np.testing.assert_array_equal(samples[0].boxes_xyxy, clean.boxes_xyxy)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [1, 2, 3]}, "bbox must be the four numbers"),
        ({"bbox": ["1", 2, 3, 4]}, "bbox must be the four numbers"),
        ({"bbox": [1, 2, NAN, 4]}, "bbox must be the four numbers"),
        ({"bbox": [1, 2, INF, 4]}, "bbox must be the four numbers"),
        ({"bbox": [1e30, 2, 3, 4]}, "bbox must be the four numbers"),
        ({"bbox": [10**400, 2, 3, 4]}, "bbox must be the four numbers"),
        ({"bbox": {"x": 1}}, "bbox must be the four numbers"),
        ({"bbox": [None] * 4}, "bbox must be the four numbers"),
        ({"category_id": 91}, "category is not in the file's list"),
        ({"category_id": [5]}, "category is not in the file's list"),
        ({"category_id": "x"}, "category is not in the file's list"),
        ({"category_id": True}, "category is not in the file's list"),
        ({"category_id": None}, "category_id is lacking"),
        ({"image_id": 8}, "image is not in the file's list"),
        ({"image_id": "seven"}, "image is not in the file's list"),
        ({"image_id": None}, "image_id is lacking or no id"),
        ({"image_id": [7]}, "image_id is lacking or no id"),
        ({"image_id": NAN}, "image_id is lacking or no id"),
        ({"iscrowd": 2}, "iscrowd must be 0 or 1"),
        ({"iscrowd": "maybe"}, "iscrowd must be 0 or 1"),
        ({"iscrowd": [0, 1]}, "iscrowd must be 0 or 1"),
        ({"iscrowd": {}}, "iscrowd must be 0 or 1"),
    ],
)
def test_an_annotation_with_a_broken_field_costs_itself(content, tmp_path, change, reason):
    content["annotations"][0].update(change)
    samples, tally = read(tmp_path, content)
    (what, why) = next(iter(one for one in reasons(tally) if one[0] == "annotations"))
    assert (what, why[: len(reason)]) == ("annotations", reason)
    assert samples[0].box_classes.tolist() == [1, 1, 0]


@pytest.mark.parametrize("annotation", [None, 5, "x", [], [4]])
def test_an_annotation_that_is_no_object_costs_itself(content, tmp_path, annotation):
    content["annotations"].append(annotation)
    samples, tally = read(tmp_path, content)
    assert reasons(tally)["annotations", "annotation is no object"] == 1
    assert len(samples[0].box_classes) == 4
    assert any("annotation 5 of the list" in text for text in tally.examples.values())


@pytest.mark.parametrize(
    ("outline", "note"),
    [
        ([2, 2, 6, 2, 6, 6, 2, 6], "points of a polygon in no list of their own"),
        ([[2, 2], [6, 2], [6, 6], [2, 6]], "points as pairs"),
        ([[[2, 2], [6, 2], [6, 6], [2, 6]]], "points as pairs"),
        ([{"x": x, "y": y} for x, y in ((2, 2), (6, 2), (6, 6), (2, 6))], "points as pairs"),
        ([[{"x": x, "y": y} for x, y in ((2, 2), (6, 2), (6, 6), (2, 6))]], "points as pairs"),
        ([*square(2, 2, 4), [9, 9, 9, 9]], "a piece of fewer than 3 points is left out"),
    ],
)
def test_other_ways_to_write_a_polygon_are_taken_with_a_note(content, tmp_path, outline, note):
    expected = read(tmp_path, content)[0][0].true_masks
    content["annotations"][0]["segmentation"] = outline
    samples, tally = read(tmp_path, content)
    assert samples[0].true_masks == expected
    assert [(one.text, n) for one, n in tally.changed.items()] == [(note, 1)]


def test_other_ways_to_write_a_run_length_code_are_taken_with_a_note(content, tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:7] = mask[12, 20] = True
    halves = [mask & (np.arange(30) < 10), mask & (np.arange(30) >= 10)]
    text = encode_mask(mask).decode()
    for outline, note in (
        (rle(text), None),
        (rle(f"{text.encode()!r}"), "counts as Python writes bytes"),
        ([rle(text)], "several run-length codes are taken as one outline"),
        (
            [rle(encode_mask(half).decode()) for half in halves],
            "several run-length codes are taken as one outline",
        ),
    ):
        content["annotations"][0]["segmentation"] = outline
        samples, tally = read(tmp_path, content)
        np.testing.assert_array_equal(decode_mask(samples[0].true_masks[0], (20, 30)), mask)
        assert [one.text for one in tally.changed] == ([note] if note else [])


@pytest.mark.parametrize(
    ("crowd", "expected"),
    [
        *(("0", False), ([0], False), ("false", False), (None, False), (" False", False)),
        *((True, True), ("1", True), ([1], True), ("true", True), (1.0, True), ("TRUE", True)),
    ],
)  # fmt: skip
def test_what_iscrowd_plainly_means_is_taken(content, tmp_path, crowd, expected):
    content["annotations"][0]["iscrowd"] = crowd
    samples, tally = read(tmp_path, content)
    assert (0 in samples[0].crowds) is expected
    assert not [one for one in tally.left_out if one.what == "annotations"]


@pytest.mark.parametrize("outline", [[[1, 1, 2, 2]], [[]], [[1, 1]]])
def test_an_object_whose_outline_is_none_keeps_its_box(content, tmp_path, outline):
    content["annotations"][0]["segmentation"] = outline
    samples, tally = read(tmp_path, content)
    assert samples[0].true_masks[0] == b""
    assert len(samples[0].box_classes) == 4
    assert [count for (what, _), count in reasons(tally).items() if what == "outlines"] == [1]


@pytest.mark.parametrize("outline", [[[50, 50, 60, 50, 60, 60]], [[1, 1, 1, 1, 1, 1]], rle([600])])
def test_an_outline_without_a_pixel_is_an_empty_mask_and_said(content, tmp_path, outline):
    content["annotations"][0]["segmentation"] = outline
    samples, tally = read(tmp_path, content)
    assert samples[0].true_masks[0]
    assert not decode_mask(samples[0].true_masks[0], (20, 30)).any()
    assert [one.text for one in tally.changed] == ["outline has no pixel in the image"]


@pytest.mark.parametrize("box", ["lacking", None, []])
def test_an_annotation_without_a_box_has_that_of_its_outline(content, tmp_path, box):
    outlines = [square(2, 2, 4), [[1.5, 2, 7, 2.25, 7, 9.5]], rle([45, 5, 550])]
    content["annotations"] = [entry(i, 5, one, box) for i, one in enumerate(outlines)]
    if box == "lacking":
        for one in content["annotations"]:
            del one["bbox"]
    samples, tally = read(tmp_path, content)
    expected = [[2, 2, 6, 6], [1.5, 2, 7, 9.5], [2, 5, 3, 10]]
    np.testing.assert_array_equal(samples[0].boxes_xyxy, np.array(expected, np.float32))
    assert len(samples[0].true_masks) == 3
    assert [count for one, count in tally.changed.items() if "box" in one.text] == [3]


def test_an_empty_box_is_counted_though_the_outline_says_it(content, tmp_path):
    content["annotations"][0]["bbox"] = []
    samples, tally = read(tmp_path, content)
    assert reasons(tally)["boxes", "bbox is an empty list"] == 1
    assert samples[0].boxes_xyxy[0].tolist() == [2, 2, 6, 6]


def test_a_box_of_zeros_is_no_box(content, tmp_path):
    content["annotations"][0]["bbox"] = [0, 0, 0, 0]
    samples, tally = read(tmp_path, content)
    assert samples[0].boxes_xyxy[0].tolist() == [2, 2, 6, 6]
    assert [one.text for one in tally.changed] == ["box is that of the outline"]


@pytest.mark.parametrize("box", [[6, 6, -4, -4], [2, 2, 0, 4], [300, 2, 4, 4]])
def test_a_box_that_names_no_pixels_is_said(content, tmp_path, box):
    content["annotations"][0]["bbox"] = box
    samples, tally = read(tmp_path, content)
    assert len(samples[0].boxes_xyxy) == 4
    assert [count for one, count in tally.changed.items() if one.what == "boxes"] == [1]


def test_an_outline_of_another_frame_is_said_where_there_is_no_box(content, tmp_path):
    content["images"][0] |= {"height": 30, "width": 20}
    content["annotations"] = content["annotations"][:1]
    del content["annotations"][0]["bbox"]
    samples, tally = read(tmp_path, content)
    assert len(samples[0].boxes_xyxy) == 0
    assert [count for one, count in tally.left_out.items() if one.what == "boxes"] == [1]


@pytest.mark.parametrize("ids", [("007", "07"), (7, "07"), ("7", "7.0")])
def test_ids_of_two_files_that_differ_as_they_are_written_are_two(content, tmp_path, ids):
    for image, id_ in zip(content["images"], ids, strict=True):
        image["id"] = id_
    content["annotations"] = [
        entry(i, category, square(2, 2, 4), [2, 2, 4, 4], image=id_)
        for i, (category, id_) in enumerate(zip((5, 90), ids, strict=True))
    ]
    samples, tally = read(tmp_path, content)
    assert [one.tags for one in samples] == [(0,), (1,)]
    assert [json.loads(one.source_id) for one in samples] == list(ids)
    assert len({one.id for one in samples}) == 2
    assert {one.what for one in tally.left_out} == {"images"}  # of which one lacks its file


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_json_is_read_in_any_encoding_that_it_says(content, tmp_path, encoding):
    content["categories"][0]["name"] = "Zahnb\u00fcrste"
    write(tmp_path, content)
    text = json.dumps(content, ensure_ascii=False)
    (tmp_path / "a.json").write_bytes(text.encode(encoding))
    reader = COCO(images=tmp_path, annotations=tmp_path / "a.json")
    assert "Zahnb\u00fcrste" in reader.classes


def test_an_annotation_with_neither_box_nor_outline_is_a_tag(content, tmp_path):
    content["annotations"] = [{"id": 1, "image_id": 7, "category_id": 90}]
    samples, tally = read(tmp_path, content, masks=False)
    assert (samples[0].tags, len(samples[0].box_classes)) == ((1,), 0)
    assert not [one for one in tally.left_out if one.what == "annotations"]


def test_an_outline_says_the_box_also_where_no_masks_are_kept(content, tmp_path):
    del content["annotations"][0]["bbox"]
    samples, _ = read(tmp_path, content, masks=False)
    assert samples[0].boxes_xyxy[0].tolist() == [2, 2, 6, 6]
    assert samples[0].true_masks == ()


def test_an_outline_of_endless_length_is_left_out(content, tmp_path):
    zigzag = [side for i in range(20_000) for side in (0 if i % 2 else 290, i % 20)]
    content["annotations"][0]["segmentation"] = [zigzag]
    assert any("an outline is longer" in why for _, why in reasons(read(tmp_path, content)[1]))


# -------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": None}, "id is lacking or no id"),
        ({"id": [1]}, "id is lacking or no id"),
        ({"id": NAN}, "id is lacking or no id"),
        ({"id": "\ud800"}, "id is lacking or no id"),
        ({"file_name": None}, "file_name is lacking or no name"),
        ({"file_name": ["a.jpg"]}, "file_name is lacking or no name"),
        ({"file_name": "\ud800.jpg"}, "file_name is lacking or no name"),
        ({"file_name": ""}, "file_name names no file"),
        ({"file_name": "a\0.jpg"}, "file_name names no file"),
        ({"file_name": "../secret.jpg"}, "file_name leads out of the folder of images"),
        ({"file_name": "a/../../secret.jpg"}, "file_name leads out of the folder of images"),
        ({"file_name": "..\\secret.jpg"}, "file_name leads out of the folder of images"),
        ({"file_name": "/etc/passwd"}, "file_name leads out of the folder of images"),
        ({"id": 7}, "id is that of another file too, so its annotations may be of either"),
    ],
)
def test_an_image_that_cannot_be_taken_costs_itself(content, tmp_path, change, reason):
    content["images"].append({"id": 9, "file_name": "9.jpg", "height": 20, "width": 30} | change)
    for name in ("9.jpg", "other.jpg", "../secret.jpg"):
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    samples, tally = read(tmp_path, content)
    twice = change == {"id": 7}
    assert reasons(tally)["images", reason] == (2 if twice else 1)
    assert [sample.id[-3:] for sample in samples] == (["456"] if twice else ["007", "456"])
    assert all("secret" not in sample.path for sample in samples)


def test_the_same_image_twice_is_taken_once(content, tmp_path):
    content["images"].append(content["images"][0] | {"id": "7"})
    samples, tally = read(tmp_path, content)
    assert [sample.id[-3:] for sample in samples] == ["007", "456"]
    assert reasons(tally)["images", "the same image twice"] == 1
    assert len(samples[0].box_classes) == 4


def test_an_annotation_that_comes_twice_is_taken_twice_and_said(content, tmp_path):
    content["annotations"] += [content["annotations"][0] | {"id": 50}]
    samples, tally = read(tmp_path, content)
    assert samples[0].box_classes.tolist() == [0, 1, 1, 0, 0]
    assert [(one.text.split(",")[0], n) for one, n in tally.changed.items()] == [
        ("the same as another of its image", 1)
    ]


def test_one_file_under_two_ids_is_said(content, tmp_path):
    content["images"][1]["file_name"] = "7.jpg"
    samples, tally = read(tmp_path, content)
    assert len(samples) == 2
    assert [one.text for one in tally.changed] == ["file of another image too"]


@pytest.mark.parametrize(
    ("listed", "said"),
    [(1, "7"), ("1", 1), (1.0, 1), (1, 1.0), ("001", 1), (-3, "-3"), (0, "0"), ("a/b", "a/b")],
)
def test_ids_that_mean_the_same_match(content, tmp_path, listed, said):
    said = listed if said == "7" else said
    content["images"][0]["id"] = listed
    content["annotations"] = [one | {"image_id": said} for one in content["annotations"]]
    samples, tally = read(tmp_path, content)
    assert len(samples[0].box_classes) == 4
    assert not [one for one in tally.left_out if one.what == "annotations"]


def test_ids_of_nineteen_digits_are_exact(content, tmp_path):
    first, second = 1234567890123456789, 1234567890123456790  # one double
    for image, id_ in zip(content["images"], (first, second), strict=True):
        image["id"] = id_
    content["annotations"][0]["image_id"] = str(second)
    for one in content["annotations"][1:]:
        one["image_id"] = first
    samples, _ = read(tmp_path, content)
    assert [sample.id for sample in samples] == [str(first), str(second)]
    assert [len(sample.box_classes) for sample in samples] == [3, 1]
    assert [sample.source_id for sample in samples] == [str(first), str(second)]


@pytest.mark.parametrize("id_", [7, "7", "007", 7.0, -7, 0, "a", "", "../../x", "a\nb", "x" * 500])
def test_the_own_id_and_file_name_are_kept_and_no_file_is_written_elsewhere(tmp_path, content, id_):
    content["images"][0].update(id=id_, file_name="sub\\7.jpg")
    folder = tmp_path / "deep" / "er"
    (folder / "sub").mkdir(parents=True)
    Image.new("RGB", (30, 20)).save(folder / "sub/7.jpg")
    before = {path for path in tmp_path.rglob("*") if folder / "w" not in path.parents}
    samples, _ = read(folder, content)
    found = json.loads(samples[0].source_id)
    assert (found, type(found)) == (id_, type(id_))
    assert samples[0].file_name == "sub\\7.jpg"
    assert samples[0].path == str(folder / "sub/7.jpg")
    masks = folder / "w" / "masks"
    assert masks.resolve() in (tmp_path / samples[0].mask_path).resolve().parents
    after = {path for path in tmp_path.rglob("*") if folder / "w" not in path.parents}
    assert {path.name for path in after - before} <= {"7.jpg", "a.json", "w"}


def test_ids_that_differ_in_case_alone_have_masks_of_their_own(tmp_path, content):
    Image.new("RGB", (30, 20)).save(tmp_path / "other.jpg")
    for image, id_ in zip(content["images"], ("a", "A"), strict=True):
        image["id"] = id_
    content["annotations"] = [entry(1, 5, square(2, 2, 4), [2, 2, 4, 4], image="A")]
    samples, _ = read(tmp_path, content)
    names = {os.path.basename(sample.mask_path).lower() for sample in samples}
    assert len(names) == 2
    assert [int(labels_of(sample).max()) for sample in samples] == [0, 1]


def test_two_files_that_count_from_one_are_told_apart(tmp_path, content):
    for sub in ("train", "val"):
        (tmp_path / sub).mkdir()
    val = copy.deepcopy(content)
    val["annotations"] = val["annotations"][:1]
    write(tmp_path / "val", val)
    flags = {"val_images": tmp_path / "val", "val_annotations": tmp_path / "val" / "a.json"}
    samples, _ = read(tmp_path / "train", content, **flags)
    assert [(sample.id, sample.split, sample.source_id) for sample in samples] == [
        ("000000000007", "train", "7"),
        ("000000123456", "train", "123456"),
        ("val_000000000007", "val", "7"),
        ("val_000000123456", "val", "123456"),
    ]
    assert [len(sample.box_classes) for sample in samples] == [4, 0, 1, 0]
    assert samples[0].mask_path != samples[2].mask_path


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ({"height": 0}, 1),
        ({"height": -20}, 1),
        ({"height": None}, 1),
        ({"height": "tall"}, 1),
        ({"height": 10**9}, 1),
        ({"height": 10**30, "width": 10**30}, 1),
        ({"height": 20.5}, 1),
        ({"height": "20"}, 0),
        ({"height": 20.0}, 0),
    ],
)
def test_a_size_that_no_image_has_is_that_of_the_file(content, tmp_path, size, count):
    expected = read(tmp_path, copy.deepcopy(content))[0][0]
    content["images"][0].update(size)
    samples, tally = read(tmp_path, content)
    assert (samples[0].height, samples[0].width) == (20, 30)
    assert samples[0].true_masks == expected.true_masks
    assert sum(tally.changed.values()) == count


def test_boxes_of_another_frame_are_left_out_and_the_file_s_size_counts(content, tmp_path):
    content["images"][0].update(height=40, width=60)
    samples, tally = read(tmp_path, content)
    assert (samples[0].height, samples[0].width) == (20, 30)
    assert (samples[0].tags, len(samples[0].box_classes)) == ((0, 1), 0)
    assert (samples[0].mask_path, samples[0].true_masks) == ("", ())
    (reason,) = [(why, n) for (what, why), n in reasons(tally).items() if what == "boxes"]
    assert reason[0].startswith("height and width in the JSON are not those of the image file")
    assert reason[1] == 4


@pytest.mark.parametrize(("turn", "said"), [(6, "EXIF orientation 6"), (1, "no EXIF orientation")])
def test_sides_that_are_swapped_are_said_with_what_exif_says(content, tmp_path, turn, said):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", (30, 20)).save(tmp_path / "7.jpg", exif=exif)
    content["images"][0].update(height=30, width=20)
    samples, tally = read(tmp_path, content)
    assert len(samples[0].box_classes) == 0
    (reason,) = [why for (what, why) in reasons(tally) if what == "boxes"]
    assert "swapped" in reason
    assert said in reason


@pytest.mark.parametrize(
    "name", ["7", 7, "7.JPG", "7.png", ".\\7.jpg", "folder/7.jpg", "folder\\7.jpg"]
)
def test_an_image_that_is_plainly_meant_is_found_and_said(content, tmp_path, name):
    (tmp_path / "folder").mkdir()
    content["images"] = [content["images"][0] | {"file_name": name}]
    samples, tally = read(tmp_path / "folder", content)
    assert samples[0].path == str(tmp_path / "folder" / "7.jpg")
    assert [one.text for one in tally.changed] == ["found under another name"]
    assert not tally.left_out


def test_some_images_missing_are_rows_and_counted(content, tmp_path):
    samples, tally = read(tmp_path, content)
    assert [sample.height for sample in samples] == [20, 0]
    assert reasons(tally) == {("images", "not found, of 2 that are listed"): 1}
    assert tally.taken["images"] == 1


def test_all_images_missing_is_an_error(content, tmp_path):
    content["images"] = [one | {"file_name": f"x/{one['file_name']}"} for one in content["images"]]
    with pytest.raises(DatasetNotFoundError, match=r"2 of 2 images not found .* such as 'x/7.jpg'"):
        read(tmp_path, content)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: os.symlink("/dev/zero", p)])
def test_what_is_no_file_is_a_row_with_a_reason_and_no_hang(content, tmp_path, make):
    make(tmp_path / "other.jpg")
    samples, tally = read(tmp_path, content)
    assert samples[1].height == 0
    assert reasons(tally) == {("images", "file cannot be read"): 1}
    assert any("a folder, a pipe or a device" in text for text in tally.examples.values())


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "5", '{"images": 1', "\xff"])
def test_a_file_that_is_no_such_json_is_an_error(tmp_path, content, text):

    reader = write(tmp_path, content)
    reader.annotations.write_text(text, encoding="latin-1")
    with pytest.raises(DatasetError, match=r"a\.json"):
        list(reader.samples(tmp_path / "w", Tally()))


def test_a_pipe_as_annotations_is_an_error_and_no_hang(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(DatasetError, match="pipe or device: expected a file"):
        _ = COCO(tmp_path, tmp_path / "a.json").classes


def test_what_was_taken_is_counted(content, tmp_path):
    _, tally = read(tmp_path, content)
    assert tally.facts()["taken"] == {
        "images": 1, "tags": 2, "boxes": 3, "outlines": 4, "crowds": 1, "masks": 1,
    }  # fmt: skip


def test_semantic_masks_are_those_of_pycocotools_for_many_objects(tmp_path, content):
    rng = np.random.default_rng(3)
    content["annotations"] = []
    for i in range(60):
        x, y, side = *rng.uniform(-1, 17, 2), rng.uniform(3, 12)
        outline = square(float(x), float(y), float(side))
        content["annotations"].append(entry(i, 5 if i % 2 else 90, outline, [1, 1, 2, 2]))
    samples, _ = read(tmp_path, content)
    masks = [
        decode_mask(merge(frPyObjects(one["segmentation"], 20, 30))["counts"], (20, 30))
        for one in content["annotations"]
    ]
    expected = np.zeros((20, 30), np.uint8)
    for i in sorted(range(60), key=lambda i: -int(masks[i].sum())):
        expected[masks[i]] = 1 if i % 2 else 2
    np.testing.assert_array_equal(labels_of(samples[0]), expected)
