import numpy as np
import pytest
from PIL import Image

from rayseg.datasets import VOC, DatasetError, DatasetNotFoundError
from rayseg.datasets.tally import Tally
from rayseg.datasets.voc_names import CLASSES
from rayseg.datasets.voc_objects import match_objects
from rayseg.records.rle import decode_mask

XML = """<annotation>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  {objects}
</annotation>
"""
OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
  <bndbox><xmax>{3}</xmax><xmin>{1}</xmin><ymax>{4}</ymax><ymin>{2}</ymin></bndbox>
  <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>
  </part></object>"""


def write_xml(root, name, *objects):
    texts = [OBJECT.format("", *box, name=cls, difficult=hard) for cls, hard, box in objects]
    text = XML.format(width=60, height=40, objects="\n".join(texts))
    (root / "Annotations" / f"{name}.xml").write_text(text)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (root / folder).mkdir(parents=True)
    for kind in ("Main", "Segmentation"):
        (root / "ImageSets" / kind).mkdir(parents=True)
    for name in ("2007_000001", "2007_000002", "2007_000003"):
        Image.new("RGB", (60, 40)).save(root / "JPEGImages" / f"{name}.jpg")
    Image.new("P", (60, 40)).save(root / "SegmentationClass" / "2007_000001.png")
    lists = root / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_000001\n2007_000002\n")
    (lists / "val.txt").write_text("2007_000003\n")
    present = {"dog": {"2007_000001": " 1", "2007_000002": " 0"}, "train": {"2007_000001": " 1"}}
    for cls in CLASSES:
        values = present.get(cls, {})
        rows = [f"{name} {values.get(name, '-1')}\n" for name in ("2007_000001", "2007_000002")]
        (root / "ImageSets" / "Main" / f"{cls}_train.txt").write_text("".join(rows))
        (root / "ImageSets" / "Main" / f"{cls}_val.txt").write_text("2007_000003 -1\n")
    write_xml(root, "2007_000001", ("dog", 1, (1, 2, 10, 20)), ("train", 0, (45.7, 3, 60, 40)))
    return root


def test_boxes_become_zero_based_and_end_exclusive(root, tmp_path):
    sample = next(VOC(root).samples(tmp_path, Tally()))
    expected = np.array([[0, 1, 10, 20], [44.7, 2, 60, 40]], np.float32)
    np.testing.assert_array_equal(sample.boxes_xyxy, expected)
    assert sample.box_classes.tolist() == [CLASSES.index("dog"), CLASSES.index("train")]


def test_a_box_of_one_pixel_covers_one_pixel(root, tmp_path):
    write_xml(root, "2007_000001", ("cat", 0, (5, 6, 5, 6)))
    x0, y0, x1, y1 = next(VOC(root).samples(tmp_path, Tally())).boxes_xyxy[0]
    assert (x1 - x0) * (y1 - y0) == 1


def test_difficult_objects_are_tags_and_absent_ones_are_not(root, tmp_path):
    first, second = VOC(root).samples(tmp_path, Tally())
    assert first.tags == (CLASSES.index("dog"), CLASSES.index("train"))
    assert second.tags == (CLASSES.index("dog"),)


def test_an_image_without_tags_is_kept(root, tmp_path):
    (sample,) = VOC(root, splits=("val",)).samples(tmp_path, Tally())
    assert (sample.id, sample.tags, sample.split) == ("2007_000003", (), "val")


def test_tags_from_annotations_are_the_classes_of_the_boxes(root, tmp_path):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000001\n")
    (sample,) = VOC(root, tags_from="annotations").samples(tmp_path, Tally())
    assert sample.tags == tuple(sorted(sample.box_classes.tolist()))


def test_sizes_and_masks(root, tmp_path):
    first, second = VOC(root).samples(tmp_path, Tally())
    assert (first.height, first.width) == (second.height, second.width) == (40, 60)
    assert first.mask_path.endswith("SegmentationClass/2007_000001.png")
    assert second.mask_path == ""


@pytest.mark.parametrize("name", ["2007_000001", "2007_000002"])
def test_a_missing_image_costs_only_its_size(root, tmp_path, name):
    (root / "JPEGImages" / f"{name}.jpg").unlink()
    sizes = {s.id: (s.height, s.width) for s in VOC(root).samples(tmp_path, Tally())}
    assert sizes.pop(name) == (0, 0)
    assert list(sizes.values()) == [(40, 60)]


def test_parents_of_the_root_will_do(root, tmp_path):
    direct = [sample.path for sample in VOC(root).samples(tmp_path, Tally())]
    for parent in (root.parent, root.parent.parent):
        assert [sample.path for sample in VOC(parent).samples(tmp_path, Tally())] == direct


@pytest.mark.parametrize("name", ["../../outside", "/etc/passwd", ""])
def test_a_list_lies_in_the_data_set(root, tmp_path, name):
    (root.parent / "outside.txt").write_text("2007_000003\n")
    with pytest.raises(ValueError, match="split must be a plain name"):
        list(VOC(root, splits=(name,)).samples(tmp_path, Tally()))


def test_a_list_file_replaces_the_lists_and_keeps_their_splits(root, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("2007_000003\n2007_000001\n")
    reader = VOC(root, splits=("train", "val"), list_file=ids)
    found = [(sample.id, sample.split) for sample in reader.samples(tmp_path, Tally())]
    assert found == [("2007_000003", "val"), ("2007_000001", "train")]


def test_lists_fall_back_to_main(root, tmp_path):
    (root / "ImageSets" / "Main" / "all.txt").write_text("2007_000003\n")
    assert [sample.id for sample in VOC(root, ("all",)).samples(tmp_path, Tally())] == [
        "2007_000003"
    ]


def test_an_id_in_two_lists_is_an_error_that_names_both_lines(root, tmp_path):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("x\n2007_000003\n")
    with pytest.raises(DatasetError, match=r"train.txt:2 and .*val.txt:1"):
        list(VOC(root, splits=("train", "val")).samples(tmp_path, Tally()))


def test_what_is_missing_is_an_error_with_a_way_out(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="expected JPEGImages"):
        list(VOC(tmp_path / "nowhere").samples(tmp_path, Tally()))
    with pytest.raises(DatasetNotFoundError, match="did you mean 'train'"):
        list(VOC(root, splits=("trian",)).samples(tmp_path, Tally()))
    reader = VOC(root, splits=("val",), tags_from="annotations", class_names=("cat",))
    with pytest.raises(DatasetNotFoundError, match=r"--voc\.tags-from image_sets"):
        list(reader.samples(tmp_path, Tally()))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000009\n")
    with pytest.raises(DatasetError, match=r"1 ids such as '2007_000009'"):
        list(VOC(root).samples(tmp_path, Tally()))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("\n")
    with pytest.raises(DatasetError, match="lists no image"):
        list(VOC(root).samples(tmp_path, Tally()))


def test_difficult_objects_are_listed(root, tmp_path):
    first, second = VOC(root).samples(tmp_path, Tally())
    assert (first.difficult, first.crowds, second.difficult) == ((0,), (), ())


def test_an_object_that_says_nothing_of_difficulty_is_not_difficult(root, tmp_path):
    path = root / "Annotations" / "2007_000001.xml"
    text = path.read_text()
    path.write_text(text.replace("<difficult>0</difficult>", ""))
    assert next(VOC(root).samples(tmp_path, Tally())).difficult == (0,)
    path.write_text(text.replace("<difficult>1</difficult>", ""))
    assert next(VOC(root).samples(tmp_path, Tally())).difficult == ()


def test_bad_boxes_are_left_out_and_stay_tags_of_the_xml(root, tmp_path):
    boxes = [(-5, -5, 10, 10), (9, 9, 2, 3), (4, 1, 3, 9), (100, 100, 120, 120)]
    write_xml(root, "2007_000001", *(("cat", 0, box) for box in boxes))
    tally = Tally()
    sample = next(VOC(root, tags_from="annotations").samples(tmp_path, tally))
    np.testing.assert_array_equal(sample.boxes_xyxy, np.array([[-6, -6, 10, 10]], np.float32))
    assert sample.tags == (CLASSES.index("cat"),)
    counts = {reason.text.split(",")[0]: count for reason, count in tally.left_out.items()}
    # by VOC's counting, in which the last pixel is included, the third is one of no width
    assert counts == {"box has no area": 2, "box lies outside its image": 1}


@pytest.mark.parametrize("side", ["", "ten", "nan", "9" * 400])
def test_a_box_that_is_no_four_numbers_costs_itself(root, tmp_path, side):
    write_xml(root, "2007_000001", ("cat", 0, (1, 1, 2, 2)), ("cat", 0, (1, 1, side, 2)))
    tally = Tally()
    sample = next(VOC(root).samples(tmp_path, tally))
    assert len(sample.boxes_xyxy) == 1
    (reason,) = tally.left_out
    assert "finite numbers" in reason.text
    assert "2007_000001.xml: object 2" in tally.examples[reason]


def draw_objects(root, *places, labels=True):
    """Writes both masks of the first image: (value, class index, x1, y1, x2, y2) each."""
    kinds = {"SegmentationObject": 0, "SegmentationClass": 1}
    for kind, which in kinds.items():
        mask = np.zeros((40, 60), np.uint8)
        for value, cls, x1, y1, x2, y2 in places:
            mask[y1:y2, x1:x2] = (value, cls + 1)[which]
        mask[39] = 255
        (root / kind).mkdir(exist_ok=True)
        if labels or which == 0:
            Image.fromarray(mask).save(root / kind / "2007_000001.png")
        else:
            (root / kind / "2007_000001.png").unlink(missing_ok=True)


def true_masks(root, tmp_path):
    sample = next(VOC(root).samples(tmp_path, Tally()))
    return [decode_mask(counts, (40, 60)) for counts in sample.true_masks]


DOG, CAT = CLASSES.index("dog"), CLASSES.index("cat")


def box_of(x1, y1, x2, y2):
    """A box of pixels x1..x2 as VOC writes it."""
    return x1 + 1, y1 + 1, x2, y2


def test_the_mask_of_object_k_is_value_k(root, tmp_path):
    # The second hides part of the first, and each fits both boxes: by place they would be swapped.
    draw_objects(root, (1, DOG, 2, 2, 20, 20), (2, DOG, 4, 4, 20, 20))
    boxes = [box_of(4, 4, 20, 20), box_of(2, 2, 20, 20)]
    write_xml(root, "2007_000001", *(("dog", 0, box) for box in boxes))
    first, second = true_masks(root, tmp_path)
    assert (first.sum(), second.sum()) == (18 * 18 - 16 * 16, 16 * 16)


def test_an_xml_in_another_order_is_matched_by_class_and_place(root, tmp_path):
    draw_objects(root, (1, DOG, 2, 2, 20, 20), (2, CAT, 2, 21, 22, 39), (3, DOG, 40, 2, 50, 30))
    objects = [
        ("dog", 0, box_of(40, 2, 50, 30)),
        ("person", 0, box_of(2, 2, 20, 20)),
        ("cat", 0, box_of(2, 21, 23, 39)),
    ]
    write_xml(root, "2007_000001", *objects)
    sample = next(VOC(root).samples(tmp_path, Tally()))
    assert [bool(counts) for counts in sample.true_masks] == [True, False, True]
    third, _, second = (decode_mask(counts, (40, 60)) for counts in sample.true_masks)
    assert (third.sum(), second.sum()) == (10 * 28, 20 * 18)
    assert third[2:30, 40:50].all()


@pytest.mark.parametrize("damage", ["missing", "broken", "size", "elsewhere"])
def test_objects_without_a_usable_mask_have_none(root, tmp_path, damage):
    draw_objects(root, (1, DOG, 40, 30, 50, 39))
    write_xml(root, "2007_000001", ("dog", 0, (1, 2, 10, 20)))
    path = root / "SegmentationObject" / "2007_000001.png"
    if damage == "missing":
        path.unlink()
    elif damage == "broken":
        path.write_bytes(b"no image")
    elif damage == "size":
        Image.new("P", (40, 60)).save(path)
    assert next(VOC(root).samples(tmp_path, Tally())).true_masks == ()


def test_without_a_semantic_mask_the_place_decides(root, tmp_path):
    draw_objects(root, (5, 0, 0, 0, 10, 20), labels=False)
    write_xml(root, "2007_000001", ("dog", 0, (1, 1, 10, 20)))
    (mask,) = true_masks(root, tmp_path)
    assert mask.sum() == 200


def test_no_value_is_given_twice():
    rng = np.random.default_rng(0)
    for _ in range(50):
        objects = rng.integers(0, 4, (4, 4)).astype(np.uint8).repeat(5, 0).repeat(5, 1)
        boxes = np.array([[0, 0, 20, 20], [0, 0, 19, 20], [1, 0, 20, 20]], np.float32)
        matched = match_objects(boxes, [0, 0, 0], objects, None)
        assert len(set(matched.values())) == len(matched)
        assert set(matched.values()) <= set(np.unique(objects).tolist()) - {0}


@pytest.mark.data
def test_real_voc_masks_hold_the_tagged_classes(real_data, tmp_path):
    reader = VOC(
        real_data / "voc_animals" / "VOCdevkit",
        splits=("train", "val"),
        list_file=real_data / "voc_animals" / "lists" / "train60.txt",
    )
    samples = list(reader.samples(tmp_path, Tally()))
    assert len(samples) == 60
    assert {sample.split for sample in samples} == {"train"}
    for sample in samples:
        labels = np.array(Image.open(sample.mask_path))
        assert labels.shape == (sample.height, sample.width)
        assert {label - 1 for label in np.unique(labels).tolist()} - {-1, 254} == set(sample.tags)


@pytest.mark.data
def test_real_voc_has_the_stated_numbers(real_data, tmp_path):
    reader = VOC(real_data / "voc_animals/VOCdevkit/VOC2012", splits=("train", "val"))
    samples = list(reader.samples(tmp_path, Tally()))
    assert [sum(s.split == split for s in samples) for split in ("train", "val")] == [437, 240]
    assert sum(CLASSES.index("person") in s.tags for s in samples if s.split == "train") == 79
