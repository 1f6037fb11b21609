import re

import numpy as np
import pytest
from PIL import Image

from rayseg.datasets import DatasetError, DatasetNotFoundError, FolderDataset
from rayseg.datasets.tally import Tally
from rayseg.records import MAX_CLASSES


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "sub/c.JPG"):
        Image.new("RGB", (30, 20)).save(folder / name)
    return folder


@pytest.fixture
def folder(images, tmp_path):
    def make(csv: str | bytes, **flags) -> FolderDataset:
        path = tmp_path / "tags.csv"
        path.write_bytes(csv if isinstance(csv, bytes) else csv.encode())
        return FolderDataset(images=images, tags=path, **flags)

    return make


def tags_of(reader, tmp_path):
    names = reader.classes
    return {s.id: tuple(names[tag] for tag in s.tags) for s in reader.samples(tmp_path, Tally())}


@pytest.mark.parametrize(
    "csv",
    [
        "image,tags\na.jpg,dog;cat\nb.png,\n",
        "image,tags\na.jpg,cat|dog|cat\nb.png,\n",
        'image,tags\na.jpg,"dog,cat"\nb.png,\n',
        'image,tags\na.jpg,"dog cat"\nb.png\n',
        'image,tags\r\n"a.jpg","dog; cat"\r\n"b.png",""\r\n',
        b"\xef\xbb\xbfimage,tags\r\na.jpg,dog;cat\r\n\r\nb.png,\r\n",
        "id,class\na,dog;cat\nb,\n",
        "x, Labels ,FileName\n1,dog;cat,a.jpg\n2,,b.png\n",
    ],
)
def test_every_usual_way_to_write_it_reads_the_same(folder, tmp_path, csv):
    assert tags_of(folder(csv), tmp_path) == {"a": ("cat", "dog"), "b": ()}


def test_class_numbers_do_not_depend_on_the_order_of_rows(folder):
    assert folder("image,tags\na.jpg,zebra;Ärmel\nb.png,ant\n").classes == ("ant", "zebra", "Ärmel")
    assert folder("image,tags\nb.png,ant\na.jpg,Ärmel;zebra\n").classes == ("ant", "zebra", "Ärmel")


def test_given_class_names_keep_their_order(folder, tmp_path):
    reader = folder("image,tags\na.jpg,cat\n", class_names=("dog", "cat"))
    assert reader.classes == ("dog", "cat")
    assert next(reader.samples(tmp_path, Tally())).tags == (1,)


def test_names_with_blanks_need_a_separator_or_given_names(folder, tmp_path):
    reader = folder("image,tags\na.jpg,traffic light;car\nb.png,traffic light\n")
    assert tags_of(reader, tmp_path)["b"] == ("traffic light",)
    reader = folder("image,tags\nb.png,traffic light\n", class_names=("car", "traffic light"))
    assert tags_of(reader, tmp_path) == {"b": ("traffic light",)}


def test_ids_keep_folders_and_paths_are_absolute(folder, tmp_path, images):
    (sample,) = folder("image,tags\nsub/c.JPG,cat\n").samples(tmp_path, Tally())
    assert (sample.id, sample.path) == ("sub/c", str(images / "sub" / "c.JPG"))
    assert (sample.height, sample.width, sample.split) == (20, 30, "train")


def test_a_dot_in_a_name_is_not_a_suffix(folder, tmp_path, images):
    Image.new("RGB", (30, 20)).save(images / "v1.2.png")
    (sample,) = folder("image,tags\nv1.2,cat\n").samples(tmp_path, Tally())
    assert (sample.id, sample.height) == ("v1.2", 20)


def test_images_that_are_missing_or_broken_stay_as_rows(folder, tmp_path, images):
    (images / "broken.jpg").write_text("no image")
    reader = folder("image,tags\ngone.jpg,cat\nbroken.jpg,cat\na.jpg,cat\n")
    assert [(s.id, s.height) for s in reader.samples(tmp_path, Tally())] == [
        ("gone", 0),
        ("broken", 0),
        ("a", 20),
    ]


def test_masks_are_found_by_id(folder, tmp_path, images):
    (tmp_path / "masks").mkdir()
    Image.new("P", (30, 20)).save(tmp_path / "masks" / "a.png")
    reader = folder("image,tags\na.jpg,cat\nb.png,cat\n", masks=tmp_path / "masks")
    assert [s.mask_path for s in reader.samples(tmp_path, Tally())] == [
        str(tmp_path / "masks/a.png"),
        "",
    ]


@pytest.mark.parametrize(
    ("csv", "flags", "message"),
    [
        ("image,tags\n", {}, "no row below its header"),
        ("", {}, r"csv:1: expected a header .* got \[\]"),
        ("a.jpg,cat\n", {}, r"csv:1: expected a header with a column image or file"),
        ("image,tags\na.jpg,cat,dog\n", {}, r"csv:2: .* of 3 cells where the header has 2"),
        ("image,tags\na.jpg,\n", {}, "names no class"),
        ("image,tags\n../a.jpg,cat\n", {}, r"csv:2: .*expected a name inside"),
        ("image,tags\n/a.jpg,cat\n", {}, r"csv:2: .*expected a name inside"),
        ("image,tags\n,cat\n", {}, r"csv:2: .* without the name of an image"),
        (b"image,tags\na.jpg,\xe4\n", {}, "csv:2: not UTF-8 .*byte 0xe4"),
        ('image,tags\na.jpg,"cat\n', {}, r"csv:2: .* not CSV"),
        ("image,tags\na.jpg,cat\n", {"class_names": ("cat", "cat")}, "'cat' empty or twice"),
    ],
)
def test_bad_input_is_an_error_with_file_and_line(folder, tmp_path, csv, flags, message):
    with pytest.raises(DatasetError, match=message) as caught:
        list(folder(csv, **flags).samples(tmp_path, Tally()))
    assert "\n" not in str(caught.value)


def test_the_limit_of_classes_is_that_of_an_eight_bit_mask(folder):
    names = [f"c{i:03d}" for i in range(MAX_CLASSES + 1)]
    assert len(folder(f"image,tags\na.jpg,{';'.join(names[1:])}\n").classes) == MAX_CLASSES
    with pytest.raises(DatasetError, match="255 classes, an 8-bit mask holds 254"):
        _ = folder(f"image,tags\na.jpg,{';'.join(names)}\n").classes


def test_what_is_missing_is_an_error(folder, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="tags not found"):
        _ = FolderDataset(images=tmp_path, tags=tmp_path / "no.csv").classes
    with pytest.raises(DatasetNotFoundError, match="masks not found"):
        list(folder("image,tags\na.jpg,c\n", masks=tmp_path / "no").samples(tmp_path, Tally()))


@pytest.fixture
def boxed(images, tmp_path):
    def make(csv: str, tags: str = "", **flags) -> FolderDataset:
        (tmp_path / "boxes.csv").write_text(csv)
        if tags:
            (tmp_path / "tags.csv").write_text(tags)
            flags["tags"] = tmp_path / "tags.csv"
        return FolderDataset(images=images, boxes=tmp_path / "boxes.csv", **flags)

    return make


BOXES = """image,class,x1,y1,x2,y2
b.png,dog,1,2.5,10,12
a.jpg,cat,0,0,30,20
b.png,cat,3,4,5,6
"""


TAGS = "image,tags\na.jpg,cat;dog\nb.png,\n"


@pytest.mark.parametrize(
    "csv",
    [
        BOXES,
        BOXES.replace("image,class,x1,y1,x2,y2", "FileName,Label,xmin,ymin,xmax,ymax"),
        "score,y2,x2,y1,x1,category,id\n9,12,10,2.5,1,dog,b\n9,20,30,0,0,cat,a\n9,6,5,4,3,cat,b\n",
    ],
)
def test_boxes_of_every_usual_header_read_the_same(boxed, tmp_path, csv):
    reader = boxed(csv)
    assert reader.classes == ("cat", "dog")
    first, second = reader.samples(tmp_path, Tally())
    assert (first.id, second.id) == ("b", "a")
    expected = np.array([[1, 2.5, 10, 12], [3, 4, 5, 6]], np.float32)
    np.testing.assert_array_equal(first.boxes_xyxy, expected)
    assert first.box_classes.tolist() == [1, 0]
    assert (first.tags, second.tags) == ((0, 1), (0,))


def test_an_image_alone_in_its_row_has_no_object(boxed, tmp_path):
    *_, last = boxed(BOXES + "sub/c.JPG,,,,,\n").samples(tmp_path, Tally())
    assert (last.id, last.tags, last.height) == ("sub/c", (), 20)
    assert last.boxes_xyxy.shape == (0, 4)


def test_tags_name_images_and_classes_where_both_are_given(boxed, tmp_path):
    reader = boxed(BOXES, "image,tags\na.jpg,cow;cat\nb.png,dog\nsub/c,\n")
    assert reader.classes == ("cat", "cow", "dog")
    a, b, c = reader.samples(tmp_path, Tally())
    assert (a.tags, b.tags, c.tags) == ((0, 1), (2,), ())
    assert (a.box_classes.tolist(), b.box_classes.tolist()) == ([0], [2, 0])
    assert c.boxes_xyxy.shape == (0, 4)


def test_a_box_without_pixels_of_its_image_is_left_out_and_stays_a_tag(boxed, tmp_path):
    boxes = [[-5, -4, 3, 2], [7, 7, 7, 9], [9, 9, 2, 3], [100, 100, 120, 120]]
    rows = "".join(f"a.jpg,cat,{','.join(map(str, box))}\n" for box in boxes)
    tally = Tally()
    (sample,) = boxed("image,class,x1,y1,x2,y2\n" + rows).samples(tmp_path, tally)
    np.testing.assert_array_equal(sample.boxes_xyxy, np.array(boxes[:1], np.float32))
    assert sample.tags == (0,)
    counts = {one["reason"].split(",")[0]: one["count"] for one in tally.facts()["left_out"]}
    assert counts == {"box has no area": 2, "box lies outside its image": 1}


@pytest.mark.parametrize(
    ("row", "tags", "flags", "what", "message"),
    [
        ("a.jpg,cat,1,2,3,x", "", {}, "boxes", "without four finite numbers"),
        ("a.jpg,cat,1,2,3", "", {}, "boxes", "without four finite numbers"),
        ("a.jpg,cat,1,2,3,nan", "", {}, "boxes", "without four finite numbers"),
        ("a.jpg,cat,1,2,3,1e300", "", {}, "boxes", "not four finite numbers"),
        ("a.jpg,cat,1,2,3,4,5", "", {}, "rows", "7 cells where the header has 6: write one box"),
        ("a.jpg,,1,2,3,4", "", {}, "boxes", "class that the data set does not have"),
        ("a.png,cat,1,2,3,4", "", {}, "rows", "another file with the same id.*rename one"),
        ("../a.jpg,cat,1,2,3,4", "", {}, "rows", "expected a name inside"),
        ("a.jpg,catt,1,2,3,4", "", {"class_names": ("dog", "cat")}, "boxes", "data set does not"),
        ("a.jpg,catt,1,2,3,4", TAGS, {}, "boxes", "data set does not"),
        ("bb.png,cat,1,2,3,4", TAGS, {}, "boxes", "of an image that tags.csv does not name"),
    ],
)
def test_a_bad_box_costs_itself_with_its_line(
    boxed, tmp_path, images, row, tags, flags, what, message
):
    Image.new("RGB", (30, 20)).save(images / "a.png")
    tally = Tally()
    samples = list(boxed(BOXES + row + "\n", tags, **flags).samples(tmp_path, tally))
    assert sum(len(one.boxes_xyxy) for one in samples) == 3
    (one,) = tally.facts()["left_out"]
    assert (one["what"], one["count"]) == (what, 1)
    assert re.search(message, one["reason"])
    assert "boxes.csv:5" in one["example"]


def test_neither_tags_nor_boxes_is_an_error(images, tmp_path):
    for reader in (
        FolderDataset(images=images),
        FolderDataset(images=images, class_names=("cat",)),
    ):
        with pytest.raises(DatasetError, match="a CSV of tags or one of boxes"):
            list(reader.samples(tmp_path, Tally()))
    with pytest.raises(DatasetNotFoundError, match="boxes not found"):
        list(FolderDataset(images=images, boxes=tmp_path / "no.csv").samples(tmp_path, Tally()))
    (tmp_path / "b.csv").write_text("image,class,x1,y1,w,h\na,b,1,2,3,4\n")
    with pytest.raises(DatasetError, match=r"csv:1: expected a header with a column x2 or xmax"):
        list(FolderDataset(images=images, boxes=tmp_path / "b.csv").samples(tmp_path, Tally()))
