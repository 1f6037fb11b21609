"""VOC's layout as strangers fill it: what can be read is, the rest is counted with its reason."""

import os
import re
import unicodedata

import numpy as np
import pytest
from PIL import Image

from rayseg.datasets import VOC, DatasetError
from rayseg.datasets.tally import Tally
from rayseg.datasets.voc_names import CLASSES
from rayseg.datasets.voc_xml import XmlError, read_xml
from rayseg.export.voc import write_voc
from rayseg.records.palette import encode_labels
from rayseg.records.rle import decode_mask

DOG, CAT = CLASSES.index("dog"), CLASSES.index("cat")
BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"


def xml(*names, size_wh=(60, 40), box=BOX):
    width, height = size_wh
    objects = "".join(f"<object><name>{name}</name>{box}</object>" for name in names)
    size = f"<size><width>{width}</width><height>{height}</height></size>"
    return f"<annotation>{size}{objects}</annotation>"


class Layout:
    """A folder in VOC's layout that a test fills."""

    def __init__(self, root):
        self.root = root
        (root / "JPEGImages").mkdir(parents=True)

    def image(self, name="a.jpg", size_wh=(60, 40), **save):
        path = self.root / "JPEGImages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size_wh).save(path, **save)
        return path

    def write(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def lists(self, *ids, kind="Segmentation", split="train"):
        self.write(f"ImageSets/{kind}/{split}.txt", "".join(f"{one}\n" for one in ids))

    def one(self, text, **image):
        """One image with that XML."""
        self.image(**image)
        self.lists("a")
        self.write("Annotations/a.xml", text)

    def mask(self, name, labels=((0, 1),)):
        grown = np.array(labels, np.uint8).repeat(40 // len(labels), 0).repeat(30, 1)
        self.write(name, encode_labels(grown))

    def read(self, **flags):
        tally = Tally()
        reader = VOC(self.root, **flags)
        samples = {one.id: one for one in reader.samples(self.root.parent / "work", tally)}
        return samples, tally, reader.classes


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "VOC")


def reasons(tally):
    return {(reason.what, reason.text): n for reason, n in tally.left_out.items()}


def only_reason(tally):
    ((reason, count),) = tally.left_out.items()
    return reason.what, reason.text, count, tally.examples[reason]


# ----------------------------------------------------------------------------------------- classes


def test_classes_of_its_own_are_those_that_the_xml_hold_sorted(layout):
    layout.one(xml("zebra", "gnu"))
    samples, tally, classes = layout.read()
    assert (classes, samples["a"].tags) == (("gnu", "zebra"), (0, 1))
    assert not tally.left_out
    assert any("of the XML" in reason.text for reason in tally.changed)


def test_names_that_are_all_vocs_number_vocs_twenty(layout):
    layout.one(xml("dog", "Cat"))
    samples, _, classes = layout.read()
    assert (classes, samples["a"].tags) == (CLASSES, (CAT, DOG))


def test_class_names_keep_their_order_and_leave_out_the_others_counted(layout):
    layout.one(xml("zebra", "gnu", "zebar"))
    samples, tally, classes = layout.read(class_names=("zebra", "gnu"))
    assert (classes, samples["a"].tags) == (("zebra", "gnu"), (0, 1))
    what, text, count, example = only_reason(tally)
    assert (what, count) == ("boxes", 1)
    assert "--voc.class-names" in text
    assert example.endswith("a.xml: object 3: 'zebar', did you mean 'zebra'?")


def test_lists_of_classes_of_its_own_name_them(layout):
    layout.one(xml("gnu"))
    layout.lists("a  1", kind="Main", split="gnu_train")
    layout.lists("a -1", kind="Main", split="big_cat_train")
    layout.lists("a", kind="Main", split="my_train")
    samples, _, classes = layout.read()
    assert (classes, samples["a"].tags) == (("big_cat", "gnu"), (1,))


def test_the_order_of_a_labelmap_is_that_of_the_masks(layout):
    layout.one(xml("gnu", "zebra"))
    layout.write("labelmap.txt", "# label:color\nbackground:0,0,0::\nzebra:1,1,1::\ngnu:2,2,2::\n")
    assert layout.read()[2] == ("zebra", "gnu")
    layout.write("labelmap.txt", "zebra:1,1,1::\ngnu:2,2,2::\n")
    with pytest.raises(DatasetError, match=r"labelmap.txt: expected background .* --voc"):
        layout.read()


def test_a_class_in_no_class_of_the_lists_is_left_out_and_the_twenty_stay(layout):
    layout.one(xml("dog", "hores"))
    for name in CLASSES:
        layout.lists(f"a {1 if name == 'dog' else -1}", kind="Main", split=f"{name}_train")
    samples, tally, classes = layout.read()
    assert (classes, samples["a"].tags, len(samples["a"].box_classes)) == (CLASSES, (DOG,), 1)
    assert "did you mean 'horse'" in only_reason(tally)[3]


# --------------------------------------------------------------------------------------------- XML


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("GBK", "猫"),
        ("ISO-8859-1", "Kätzchen"),
        ("windows-1251", "кошка"),
        ("Shift_JIS", "ネコ"),
        ("utf-16", "猫"),
        ("utf-8", "猫"),
        ("utf-8-sig", "猫"),
    ],
)
def test_an_xml_in_any_encoding_that_it_declares_is_read(layout, encoding, name):
    declared = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>\n'
    layout.one((declared + xml(name)).encode(encoding))
    samples, tally, classes = layout.read()
    assert (classes, samples["a"].tags) == ((name,), (0,))
    assert not tally.left_out


def test_an_xml_that_declares_utf16_and_is_none_is_read(layout):
    layout.one('<?xml version="1.0" encoding="utf-16"?>' + xml("猫"))
    assert layout.read()[2] == ("猫",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation>\n<object>", r"not XML \(no element found\)"),
        ("", r"not XML \(no element found\)"),
        ("<annotation>&nope;</annotation>", r"not XML \(undefined entity\)"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "declared as klingon"),
        ('<?xml version="1.0" encoding="rot13"?><annotation/>', "declared as rot13"),
        ("<annotation>ä</annotation>".encode("latin-1"), "of no declared encoding"),
        ("<html><body/></html>", "no <annotation> of VOC but <html>"),
        (b"\0\1\2", "not XML"),
    ],
)
def test_a_broken_xml_costs_itself(layout, content, reason):
    layout.one(content)
    layout.image("b.jpg")
    layout.lists("a", "b")
    layout.write("Annotations/b.xml", xml("dog"))
    samples, tally, _ = layout.read()
    assert (samples["a"].tags, samples["b"].tags) == ((), (DOG,))
    what, text, count, example = only_reason(tally)
    assert (what, count) == ("annotations", 1)
    assert re.search(reason, text)
    assert "a.xml" in example


def test_a_bomb_of_entities_costs_itself(layout):
    lines = [f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 12)]
    head = f'<!DOCTYPE a [<!ENTITY e0 "{"x" * 100}">{"".join(lines)}]>'
    path = layout.write("a.xml", f"{head}<annotation>&e11;</annotation>")
    with pytest.raises(XmlError, match="not XML"):
        read_xml(path)


def test_elements_in_any_case_or_namespace_are_read(layout):
    upper = xml("dog").upper().replace(">DOG<", ">dog<")
    layout.one(upper)
    samples, tally, _ = layout.read()
    assert (samples["a"].tags, samples["a"].boxes_xyxy.tolist()) == ((DOG,), [[1, 2, 20, 30]])
    layout.one(xml("Dog").replace("<annotation>", '<annotation xmlns="http://x.example/voc">'))
    samples, tally, _ = layout.read()
    assert samples["a"].tags == (DOG,)
    assert any("another case" in reason.text for reason in tally.changed)


def test_a_pipe_as_xml_costs_itself_and_never_hangs(layout):
    layout.one(xml("dog"))
    layout.image("b.jpg")
    layout.lists("a", "b")
    os.mkfifo(layout.root / "Annotations" / "b.xml")
    samples, tally, _ = layout.read()
    assert samples["b"].tags == ()
    assert only_reason(tally)[0] == "annotations"


# --------------------------------------------------------------------------------- sizes and boxes


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return {"exif": data}


@pytest.mark.parametrize(
    ("size_wh", "save", "reason"),
    [
        ((40, 60), exif(6), "swapped, as EXIF orientation 6 of the file turns it"),
        ((40, 60), {}, "swapped"),
        ((120, 80), {}, "made for another size than the file's"),
        ((10**30, 40), {}, "made for another size than the file's"),
    ],
)
def test_boxes_of_another_frame_are_left_out_and_the_files_size_counts(
    layout, size_wh, save, reason
):
    layout.one(xml("dog", "dog", size_wh=size_wh), **save)
    samples, tally, _ = layout.read()
    one = samples["a"]
    assert (one.height, one.width, one.tags, len(one.boxes_xyxy)) == (40, 60, (DOG,), 0)
    what, text, count, _ = only_reason(tally)
    assert (what, count) == ("boxes", 2)
    assert text.endswith(reason)


@pytest.mark.parametrize("size_wh", [("0", "0"), ("", ""), ("-3", "x"), ("9" * 5000, "1e999")])
def test_an_xml_that_says_no_size_is_of_the_files(layout, size_wh):
    layout.one(xml("dog", size_wh=size_wh))
    samples, tally, _ = layout.read()
    assert samples["a"].boxes_xyxy.tolist() == [[1, 2, 20, 30]]
    assert not tally.left_out


@pytest.mark.parametrize(
    "polygon",
    [
        "<polygon><x1>5</x1><y1>6</y1><x2>20</x2><y2>8</y2><x3>9</x3><y3>30</y3></polygon>",
        "<polygon><point><x>5</x><y>30</y></point><point><x>20</x><y>6</y></point>"
        "<point><x>9</x><y>9</y></point></polygon>",
        "<polygon><username>me</username><pt><x>5</x><y>6</y></pt><pt><x>20</x><y>30</y></pt>"
        "<pt><x>9</x><y>9</y></pt></polygon>",
    ],
)
def test_a_polygon_without_a_box_has_the_box_around_it(layout, polygon):
    layout.one(xml("dog", box=polygon))
    samples, tally, _ = layout.read()
    assert samples["a"].boxes_xyxy.tolist() == [[4, 5, 20, 30]]
    assert not tally.left_out


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("", "neither bndbox nor polygon"),
        ("<polygon/>", "neither bndbox nor polygon"),
        ("<polygon><x1>a</x1><y1>2</y1></polygon>", "not of finite numbers"),
        ("<polygon><x1>5</x1><y1>5</y1></polygon>", "fewer than three points"),
        ("<polygon><x1>5</x1><y1>5</y1><x2>9</x2></polygon>", "fewer than three points"),
        ("<robndbox><cx>9</cx></robndbox>", "neither bndbox nor polygon"),
    ],
)
def test_an_object_without_a_place_stays_a_tag(layout, box, reason):
    layout.one(xml("dog", box=box))
    samples, tally, _ = layout.read()
    assert (samples["a"].tags, len(samples["a"].boxes_xyxy)) == ((DOG,), 0)
    assert reason in only_reason(tally)[1]


def test_a_mask_of_object_k_stays_that_of_the_kth_though_one_before_it_is_left_out(layout):
    nested = BOX.replace("2</xmin>", "3</xmin>")
    layout.one(xml("unknown", "dog", box=BOX).replace(BOX, nested, 1), size_wh=(60, 40))
    objects = np.zeros((40, 60), np.uint8)
    objects[2:30, 1:20] = 1  # fits the second box better than its own value does
    objects[10:30, 1:20] = 2
    layout.write("SegmentationObject/a.png", encode_labels(objects))
    samples, _, _ = layout.read(class_names=("dog",))
    assert decode_mask(samples["a"].true_masks[0], (40, 60)).sum() == (objects == 2).sum()


# ------------------------------------------------------------------------------------------- lists


def test_a_line_of_a_list_is_an_id_with_its_blanks(layout):
    for name in ("my photo 1", "my photo", "two  blanks"):
        layout.image(f"{name}.jpg")
        layout.write(f"Annotations/{name}.xml", xml("dog"))
    layout.lists("my photo 1", "my photo", " two  blanks\r")
    samples, tally, _ = layout.read()
    assert list(samples) == ["my photo 1", "my photo", "two  blanks"]
    assert not tally.left_out


def test_a_list_of_a_class_is_read_as_a_list_of_images(layout):
    layout.image()
    layout.image("b.jpg")
    layout.lists("a  1", "b -1", "gone  0", kind="Main", split="dog_train")
    layout.lists("a -1", "b -1", "gone -1", kind="Main", split="cat_train")
    samples, _, _ = layout.read(splits=("dog_train",))
    assert list(samples) == ["a", "b", "gone"]
    assert samples["a"].tags == (DOG,)


def test_ids_with_blanks_have_their_tags_from_lists_of_classes(layout):
    layout.image("my photo 1.jpg")
    layout.lists("my photo 1")
    layout.lists("my photo 1  1", kind="Main", split="dog_train")
    assert layout.read()[0]["my photo 1"].tags == (DOG,)


def test_a_list_of_pairs_names_images_and_masks(layout):
    layout.image("a b.jpg")
    layout.image("c.jpg")
    layout.mask("SegmentationClassAug/a b.png", ((0, 12),))
    layout.mask("elsewhere/c.png", ((0, 12),))
    for name in ("a b", "c"):
        layout.write(f"Annotations/{name}.xml", xml("dog"))
    layout.lists(
        "/JPEGImages/a b.jpg /SegmentationClassAug/a b.png", "JPEGImages/c.jpg\telsewhere/c.png"
    )
    samples, tally, _ = layout.read()
    assert list(samples) == ["a b", "c"]
    assert samples["a b"].mask_path == str(layout.root / "SegmentationClassAug" / "a b.png")
    assert samples["c"].mask_path == str(layout.root / "elsewhere" / "c.png")
    assert not tally.left_out


@pytest.mark.parametrize(
    "line",
    [
        "JPEGImages/a.jpg,SegmentationClassAug/a.png",
        "VOC2012/JPEGImages/a.jpg VOC2012/SegmentationClassAug/a.png",
        "/data/VOC2012/JPEGImages/a.jpg /data/VOC2012/SegmentationClassAug/a.png",
    ],
)
def test_pairs_of_another_root_are_those_of_this_one(layout, line):
    layout.one(xml("dog"))
    layout.mask("SegmentationClassAug/a.png", ((0, 12),))
    layout.lists(line)
    samples, tally, _ = layout.read()
    assert samples["a"].mask_path == str(layout.root / "SegmentationClassAug" / "a.png")
    assert not tally.left_out


def test_an_object_without_a_name_costs_itself(layout):
    layout.one(xml("", "dog"))
    samples, tally, _ = layout.read()
    assert samples["a"].box_classes.tolist() == [DOG]
    assert [one.text for one in tally.left_out] == ["object without a name"]


def test_a_mask_that_a_list_names_and_nobody_has_is_said_and_no_failure(layout):
    layout.one(xml("dog"))
    layout.lists("/JPEGImages/a.jpg /SegmentationClassAug/a.png")
    samples, tally, _ = layout.read()
    assert (samples["a"].tags, samples["a"].mask_path) == ((DOG,), "")
    assert not tally.left_out
    assert any(reason.what == "masks" for reason in tally.changed)


def test_augmented_masks_serve_where_there_are_no_others(layout):
    layout.one(xml("dog"))
    layout.mask("SegmentationClassAug/a.png", ((0, 12),))
    assert layout.read()[0]["a"].mask_path.endswith("SegmentationClassAug/a.png")
    layout.mask("SegmentationClass/a.png", ((0, 12),))
    assert layout.read()[0]["a"].mask_path.endswith("SegmentationClass/a.png")


def test_the_file_name_of_an_image_is_that_in_its_folder(layout):
    layout.image("sub/a.PNG")
    layout.lists("sub/a")
    layout.write("Annotations/sub/a.xml", xml("dog"))
    assert layout.read()[0]["sub/a"].file_name == "sub/a.PNG"


@pytest.mark.parametrize("name", ["a.JPG", "a.png", "a.JPEG", "a.BMP"])
def test_images_of_other_suffixes_are_found(layout, name):
    layout.one(xml("dog"), name=name)
    samples, _, _ = layout.read()
    assert samples["a"].path.endswith(name)
    assert samples["a"].height == 40


@pytest.mark.parametrize(("on_disk", "in_list"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_letters_may_be_composed_otherwise_on_disk(layout, on_disk, in_list):
    name = "été"
    there = unicodedata.normalize(on_disk, name)
    layout.image(f"{there}.jpg")
    layout.write(f"Annotations/{there}.xml", xml("dog"))
    layout.mask(f"SegmentationClass/{there}.png", ((0, 12),))
    listed = unicodedata.normalize(in_list, name)
    layout.lists(listed)
    layout.lists(f"{listed} 1", kind="Main", split="dog_train")
    samples, _, _ = layout.read()
    one = samples[unicodedata.normalize("NFC", name)]
    assert (one.height, one.tags, len(one.boxes_xyxy)) == (40, (DOG,), 1)
    assert one.mask_path
    files = set(VOC(layout.root).files())
    assert {path for path in layout.root.rglob("*") if path.is_file()} <= files


@pytest.mark.parametrize("line", ["../secret", "/etc/passwd", "a/../../b", "..\\secret"])
def test_a_line_that_leads_out_of_the_folder_is_left_out(layout, line, tmp_path):
    layout.one(xml("dog"))
    layout.lists("a", line)
    Image.new("RGB", (60, 40)).save(layout.root / "secret.jpg")
    samples, tally, _ = layout.read()
    assert list(samples) == ["a"]
    assert only_reason(tally)[:3] == ("lines", "of a name that leads out of the data set", 1)


def test_a_line_twice_is_taken_once_and_said(layout):
    layout.one(xml("dog"))
    layout.lists("a", "a")
    samples, tally, _ = layout.read()
    assert list(samples) == ["a"]
    assert [reason.what for reason in tally.changed if "listed before" in reason.text] == ["lines"]


def test_a_bad_line_in_a_list_of_a_class_costs_itself(layout):
    layout.one(xml("dog"))
    layout.lists("a 1", "a yes", kind="Main", split="dog_train")
    samples, tally, _ = layout.read()
    assert samples["a"].tags == (DOG,)
    what, _, count, example = only_reason(tally)
    assert (what, count) == ("lines", 1)
    assert example.endswith("dog_train.txt:2: 'a yes'")


def test_images_that_no_list_of_a_class_has_are_counted(layout):
    layout.one(xml("dog"))
    layout.image("b.jpg")
    layout.lists("a", "b")
    layout.lists("a 1", kind="Main", split="dog_train")
    assert only_reason(layout.read()[1])[::2] == ("tags", 1)


# ------------------------------------------------------------------------------------------ images


def test_images_that_are_not_there_are_counted_by_their_reason(layout):
    layout.one(xml("dog"))
    images = layout.root / "JPEGImages"
    (images / "folder.jpg").mkdir()
    os.mkfifo(images / "pipe.jpg")
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    (images / "text.jpg").write_text("no image")
    layout.lists("a", "folder", "pipe", "loop", "text", "gone")
    for name in ("folder", "pipe", "loop", "text", "gone"):
        layout.write(f"Annotations/{name}.xml", xml("dog"))
    samples, tally, _ = layout.read()
    assert [name for name, one in samples.items() if one.height] == ["a"]
    found = {text.partition(",")[0] for what, text in reasons(tally) if what == "images"}
    assert {"a folder and no file", "a pipe or device and no file", "not an image"} <= found
    assert sum(reasons(tally).values()) == 5
    assert all(text.endswith(", of 6 that are listed") for _, text in reasons(tally))


@pytest.mark.parametrize("line", ["x" * 400, f"{'x' * 400}.jpg {'y' * 400}.png"])
def test_names_that_are_longer_than_any_file_s_are_not_found(layout, line):
    layout.one(xml("dog"))
    layout.lists("a", line)
    samples, tally, _ = layout.read()
    assert samples["x" * 400].height == 0
    assert ("images", "not found, of 2 that are listed") in reasons(tally)


def test_no_image_at_all_is_an_error(layout):
    layout.lists("a", "b")
    for name in ("a", "b"):
        layout.write(f"Annotations/{name}.xml", xml("dog"))
    with pytest.raises(DatasetError, match=r"2 of 2 images not found, such as .*a.jpg"):
        layout.read()


# ------------------------------------------------------------------------------------------- masks


def test_masks_that_cannot_be_used_are_counted(layout):
    layout.one(xml("dog"))
    for name in ("big", "colour", "deep", "jpeg"):
        layout.image(f"{name}.jpg")
        layout.write(f"Annotations/{name}.xml", xml("dog"))
    layout.lists("a", "big", "colour", "deep", "jpeg")
    layout.mask("SegmentationClass/a.png", ((0, 12),))
    masks = layout.root / "SegmentationClass"
    Image.new("L", (30, 40)).save(masks / "big.png")
    Image.new("RGB", (60, 40)).save(masks / "colour.png")
    layout.mask("SegmentationClass/deep.png", ((0, 99),))
    Image.new("L", (60, 40)).save(masks / "jpeg.jpg")
    samples, tally, _ = layout.read()
    assert [name for name, one in samples.items() if one.mask_path] == ["a"]
    assert {what: n for (what, _), n in reasons(tally).items()} == {"masks": 1}
    assert len(tally.left_out) == 4


# -------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize(
    "id_", ["plain", "my photo 1", "sub/folder/a b", "été", "a.jpg", "x.jpg y.png", "50% #1", "-1"]
)
def test_what_the_exporter_writes_is_read(layout, id_):
    labels = np.zeros((40, 60), np.uint8)
    labels[:, 30:] = 2
    others = {"a": labels, id_: labels}
    write_voc(
        ((one, encode_labels(mask)) for one, mask in others.items()), layout.root / "masks",
        ["zebra", "gnu"],
    )  # fmt: skip
    (layout.root / "JPEGImages").rename(layout.root / "masks" / "JPEGImages")
    layout.root = layout.root / "masks"
    for one in others:
        layout.image(f"{one}.png")
        layout.write(f"Annotations/{one}.xml", xml("gnu"))
    samples, tally, classes = layout.read()
    assert (list(samples), classes) == (list(others), ("zebra", "gnu"))
    assert all(one.mask_path and one.tags == (1,) for one in samples.values())
    assert not tally.left_out


def test_settings_that_older_runs_lack_are_none_by_default():
    assert VOC().class_names is None
