import numpy as np
import pytest
from PIL import Image

from rayseg.datasets import VOC, DatasetError, DatasetNotFoundError
from rayseg.datasets.voc import CLASSES

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
    present = {
        "dog": {"2007_000001": " 1", "2007_000002": " 0"},
        "train": {"2007_000001": " 1"},
    }
    for cls in CLASSES:
        values = present.get(cls, {})
        rows = [f"{name} {values.get(name, '-1')}\n" for name in ("2007_000001", "2007_000002")]
        (root / "ImageSets" / "Main" / f"{cls}_train.txt").write_text("".join(rows))
        (root / "ImageSets" / "Main" / f"{cls}_val.txt").write_text("2007_000003 -1\n")
    write_xml(root, "2007_000001", ("dog", 1, (1, 2, 10, 20)), ("train", 0, (45.7, 3, 60, 40)))
    return root


def test_boxes_become_zero_based_and_end_exclusive(root, tmp_path):
    sample = next(VOC(root).samples(tmp_path))
    expected = np.array([[0, 1, 10, 20], [44.7, 2, 60, 40]], np.float32)
    np.testing.assert_array_equal(sample.boxes_xyxy, expected)
    assert sample.box_classes.tolist() == [CLASSES.index("dog"), CLASSES.index("train")]


def test_a_box_of_one_pixel_covers_one_pixel(root, tmp_path):
    write_xml(root, "2007_000001", ("cat", 0, (5, 6, 5, 6)))
    x0, y0, x1, y1 = next(VOC(root).samples(tmp_path)).boxes_xyxy[0]
    assert (x1 - x0) * (y1 - y0) == 1


def test_difficult_objects_are_tags_and_absent_ones_are_not(root, tmp_path):
    first, second = VOC(root).samples(tmp_path)
    assert first.tags == (CLASSES.index("dog"), CLASSES.index("train"))
    assert second.tags == (CLASSES.index("dog"),)


def test_an_image_without_tags_is_kept(root, tmp_path):
    (sample,) = VOC(root, splits=("val",)).samples(tmp_path)
    assert (sample.id, sample.tags, sample.split) == ("2007_000003", (), "val")


def test_tags_from_annotations_are_the_classes_of_the_boxes(root, tmp_path):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000001\n")
    (sample,) = VOC(root, tags_from="annotations").samples(tmp_path)
    assert sample.tags == tuple(sorted(sample.box_classes.tolist()))


def test_sizes_and_masks(root, tmp_path):
    first, second = VOC(root).samples(tmp_path)
    assert (first.height, first.width) == (second.height, second.width) == (40, 60)
    assert first.mask_path.endswith("SegmentationClass/2007_000001.png")
    assert second.mask_path == ""


@pytest.mark.parametrize("name", ["2007_000001", "2007_000002"])
def test_a_missing_image_costs_only_its_size(root, tmp_path, name):
    (root / "JPEGImages" / f"{name}.jpg").unlink()
    sizes = {s.id: (s.height, s.width) for s in VOC(root).samples(tmp_path)}
    assert sizes.pop(name) == (0, 0)
    assert list(sizes.values()) == [(40, 60)]


def test_parents_of_the_root_will_do(root, tmp_path):
    direct = [sample.path for sample in VOC(root).samples(tmp_path)]
    for parent in (root.parent, root.parent.parent):
        assert [sample.path for sample in VOC(parent).samples(tmp_path)] == direct


def test_a_list_file_replaces_the_lists_and_keeps_their_splits(root, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("2007_000003\n2007_000001\n")
    reader = VOC(root, splits=("train", "val"), list_file=ids)
    found = [(sample.id, sample.split) for sample in reader.samples(tmp_path)]
    assert found == [("2007_000003", "val"), ("2007_000001", "train")]


def test_lists_fall_back_to_main(root, tmp_path):
    (root / "ImageSets" / "Main" / "all.txt").write_text("2007_000003\n")
    assert [sample.id for sample in VOC(root, ("all",)).samples(tmp_path)] == ["2007_000003"]


def test_an_id_twice_names_both_lines(root, tmp_path):
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n\n2007_000001\na\n")
    with pytest.raises(DatasetError, match=r"duplicate id 'a' .*lines 1 and 4"):
        list(VOC(root).samples(tmp_path))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("x\n2007_000003\n")
    with pytest.raises(DatasetError, match=r"train.txt:2 and .*val.txt:1"):
        list(VOC(root, splits=("train", "val")).samples(tmp_path))


def test_an_unknown_class_names_file_line_and_the_nearest(root, tmp_path):
    write_xml(root, "2007_000001", ("cat", 0, (1, 1, 2, 2)), ("hores", 0, (1, 1, 2, 2)))
    with pytest.raises(
        DatasetError, match=r"000001.xml:7: unknown class 'hores', did you mean 'horse'"
    ):
        list(VOC(root).samples(tmp_path))


def test_broken_files_are_named(root, tmp_path):
    (root / "Annotations" / "2007_000001.xml").write_text("<annotation>\n<object>")
    with pytest.raises(DatasetError, match=r"000001.xml:2: not XML"):
        list(VOC(root).samples(tmp_path))
    (root / "ImageSets" / "Main" / "cat_train.txt").write_text("2007_000001 yes\n")
    with pytest.raises(DatasetError, match=r"cat_train.txt:1: expected an id and 1, 0 or -1"):
        list(VOC(root).samples(tmp_path))


def test_what_is_missing_is_an_error_with_a_way_out(root, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="expected JPEGImages"):
        list(VOC(tmp_path / "nowhere").samples(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="did you mean 'train'"):
        list(VOC(root, splits=("trian",)).samples(tmp_path))
    with pytest.raises(DatasetNotFoundError, match="--tags-from image_sets"):
        list(VOC(root, tags_from="annotations").samples(tmp_path))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("2007_000009\n")
    with pytest.raises(DatasetError, match=r"1 ids such as '2007_000009'"):
        list(VOC(root).samples(tmp_path))
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("\n")
    with pytest.raises(DatasetError, match="lists no image"):
        list(VOC(root).samples(tmp_path))


@pytest.mark.data
def test_real_voc_masks_hold_the_tagged_classes(real_data, tmp_path):
    reader = VOC(
        real_data / "voc_animals" / "VOCdevkit",
        splits=("train", "val"),
        list_file=real_data / "voc_animals" / "lists" / "train60.txt",
    )
    samples = list(reader.samples(tmp_path))
    assert len(samples) == 60
    assert {sample.split for sample in samples} == {"train"}
    for sample in samples:
        labels = np.array(Image.open(sample.mask_path))
        assert labels.shape == (sample.height, sample.width)
        assert {label - 1 for label in np.unique(labels).tolist()} - {-1, 254} == set(sample.tags)


@pytest.mark.data
def test_real_voc_has_the_stated_numbers(real_data, tmp_path):
    reader = VOC(real_data / "voc_animals/VOCdevkit/VOC2012", splits=("train", "val"))
    samples = list(reader.samples(tmp_path))
    assert [sum(s.split == split for s in samples) for split in ("train", "val")] == [437, 240]
    assert sum(CLASSES.index("person") in s.tags for s in samples if s.split == "train") == 79
