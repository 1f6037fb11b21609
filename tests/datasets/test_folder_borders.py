"""Tables and folders as strangers make them: what can be read is, the rest is counted."""

import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from rayseg.datasets import DatasetError, FolderDataset
from rayseg.datasets.tally import Tally


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (30, 20)).save(folder / name)
    return folder


@pytest.fixture
def read(images, tmp_path):
    def make(tags, boxes=None, **flags):
        (tmp_path / "tags.csv").write_bytes(tags if isinstance(tags, bytes) else tags.encode())
        if boxes is not None:
            (tmp_path / "boxes.csv").write_text(boxes)
            flags["boxes"] = tmp_path / "boxes.csv"
        reader = FolderDataset(images=images, tags=tmp_path / "tags.csv", **flags)
        tally, names = Tally(), reader.classes
        samples = {one.id: one for one in reader.samples(tmp_path / "work", tally)}
        found = {id_: tuple(names[tag] for tag in one.tags) for id_, one in samples.items()}
        return found, tally, samples

    return make


def left_out(tally):
    return [(one["what"], one["count"], one["example"]) for one in tally.facts()["left_out"]]


def noted(tally):
    return {one["what"]: one["example"] for one in tally.facts()["changed"]}


@pytest.mark.parametrize("cell", ["nan", "NaN", "<NA>", "#N/A", "set()"])
def test_a_cell_of_no_value_is_no_class_and_said(read, cell):
    found, tally, _ = read(f"image,tags\na.jpg,{cell}\nb.jpg,cat\n")
    assert found == {"a": (), "b": ("cat",)}
    assert cell in noted(tally)["cells"]


def test_a_class_may_be_called_as_a_program_calls_no_value(read):
    assert read("image,tags\na.jpg,nan\n", class_names=("nan",))[0] == {"a": ("nan",)}


@pytest.mark.parametrize("start", ["images/", "./images/", "/home/else/images/", "..\\images\\"])
def test_what_leads_to_the_folder_of_images_is_no_part_of_a_name(read, start):
    found, tally, _ = read(f"image,tags\n{start}a.jpg,cat\n")
    assert found == {"a": ("cat",)}
    assert not tally.left_out


EXPECTED = {"a": ("cat", "dog"), "b": ("traffic light",), "c": ()}


@pytest.mark.parametrize(
    "csv",
    [
        "image;tags\na.jpg;cat,dog\nb.jpg;traffic light\nc.jpg;\n",
        "image\ttags\na.jpg\tcat,dog\nb.jpg\ttraffic light\nc.jpg\t\n",
        "image|tags\na.jpg|cat,dog\nb.jpg|traffic light\nc.jpg|\n",
        "sep=;\nimage;tags\na.jpg;cat,dog\nb.jpg;traffic light\nc.jpg;\n",
        "image,tags\na.jpg,\"['cat', 'dog']\"\nb.jpg,['traffic light']\nc.jpg,[]\n",
        "image,tags\na.jpg,['cat' 'dog']\nb.jpg,['traffic light']\nc.jpg,[]\n",
        'image,tags\na.jpg,"[""cat"", ""dog""]"\nb.jpg,"[""traffic light""]"\nc.jpg,[]\n',
        "image,tags\na.jpg,\"{'dog', 'cat'}\"\nb.jpg,\"('traffic light',)\"\nc.jpg,\n",
        'image,tags\na.jpg,"[cat, dog]"\nb.jpg,[traffic light]\nc.jpg,[]\n',
        "\ufeffimage,tags\na.jpg,cat;dog\nb.jpg,traffic\u00a0light\nc.jpg,\u200b\n",
        "image\u200b,\u00a0tags\na.jpg,c\u00adat\u200b;dog\ufeff\nb.jpg,traffic light\nc.jpg,\n",
        "image,tags,,\na.jpg,cat;dog,,\nb.jpg,traffic light,,\nc.jpg,,,,,,\n",
        'image,tags\r"a.jpg",cat;dog\r"b.jpg","traffic light"\rc.jpg,\r',
        "image\ttags\na.jpg\tcat;dog\nb.jpg\ttraffic light\nc.jpg\t\n".encode("utf-16"),
    ],
)
def test_every_tool_s_way_to_write_a_table_reads_the_same(read, csv):
    found, tally, _ = read(csv)
    assert found == EXPECTED
    assert not tally.left_out


def test_invisible_characters_are_said(read):
    _, tally, _ = read("image,tags\na.jpg,cat\u200b\nb.jpg,cat\n")
    assert noted(tally)["cells"].endswith(r"tags.csv:2: 'cat\u200b'")


def test_characters_that_letters_need_stay(read):
    names = ("می‌خواهم", "👩‍🚀")
    found, tally, _ = read(f"image,tags\na.jpg,{names[0]}\nb.jpg,{names[1]}\n")
    assert (found["a"], found["b"]) == ((names[0],), (names[1],))
    assert "cells" not in noted(tally)


def test_names_that_differ_in_case_are_said_and_stay_two(read):
    found, tally, _ = read("image,tags\na.jpg,Cat\nb.jpg,cat\n")
    assert (found["a"], found["b"]) == (("Cat",), ("cat",))
    assert noted(tally)["classes"].endswith("'Cat' and 'cat'")


def test_a_given_name_is_meant_in_any_case(read):
    found, tally, _ = read("image,tags\na.jpg,Cat\nb.jpg,cat\n", class_names=("cat", "dog"))
    assert (found["a"], found["b"]) == (("cat",), ("cat",))
    assert "'Cat' is 'cat'" in noted(tally)["tags"]


def test_an_unknown_tag_costs_itself(read):
    found, tally, _ = read("image,tags\na.jpg,cat;catt\n", class_names=("cat", "dog"))
    assert found["a"] == ("cat",)
    ((what, count, example),) = left_out(tally)
    assert (what, count) == ("tags", 1)
    assert example.endswith("tags.csv:2: 'catt', did you mean 'cat'?")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.jpg,cat,dog", "of 3 cells where the header has 2: put tags"),
        ('c.jpg,"cat', "not CSV"),
        ('c.jpg,"cat"dog', "not CSV"),
        ("c.jpg,['cat'", "not closed"),
        ("c.jpg,['cat' dog]", "do not fit together"),
        (",cat", "without the name of an image"),
        ("../c.jpg,cat", "leads out of the folder"),
        ("/c.jpg,cat", "leads out of the folder"),
        ("..\\c.jpg,cat", "leads out of the folder"),
        ("b.png,dog", "another file with the same id"),
        ('"c.jpg",cat\n"d', "not CSV"),
    ],
)
def test_a_bad_row_costs_itself(read, images, row, reason):
    Image.new("RGB", (30, 20)).save(images / "b.png")
    found, tally, _ = read(f"image,tags\nb.jpg,cat\n{row}\na.jpg,dog\n")
    assert found["a"] == ("dog",)
    assert found["b"] == ("cat",)
    (one,) = tally.facts()["left_out"]
    assert one["what"] == "rows"
    assert reason in one["reason"]
    assert "tags.csv:" in one["example"]


def test_rows_that_a_quote_swallows_are_all_counted(read):
    found, tally, _ = read('image,tags\na.jpg,cat\nb.jpg,"cat\nc.jpg,dog\nd.jpg,dog"\n')
    assert found == {"a": ("cat",)}
    ((what, count, example),) = left_out(tally)
    assert (what, count) == ("rows", 3)
    assert example.endswith("tags.csv:3")
    with pytest.raises(DatasetError, match="line break inside a cell"):
        read('image,tags\na.jpg,"cat\nb.jpg"\n')


def test_rows_of_one_tag_each_are_taken_together(read):
    found, tally, _ = read("image,tags\nb.jpg,cat\na.jpg,dog\nb.jpg,dog\n")
    assert set(found["b"]) == {"cat", "dog"}
    assert not tally.left_out
    (reason,) = [one for one in tally.changed if one.what == "rows"]
    assert "more of one image, their tags taken together" in reason.text


def test_a_row_twice_is_taken_once_and_said(read):
    found, tally, _ = read("image,tags\na.jpg,cat\na.jpg,cat\n")
    assert (found, left_out(tally)) == ({"a": ("cat",)}, [])
    assert "tags.csv:3" in noted(tally)["rows"]


def test_images_without_a_row_are_said_and_no_failure(read):
    _, tally, _ = read("image,tags\na.jpg,cat\n")
    assert noted(tally)["images"].endswith("b.jpg")
    assert not tally.left_out


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PK\x03\x04", "an Excel or zip file"),
        (b"\xd0\xcf\x11\xe0", "an Excel file of the old kind"),
        (b"PAR1", "a Parquet file"),
        (b"\x01\x02\0\x03", "a binary file"),
    ],
)
def test_a_wrong_file_is_one_line(read, start, kind):
    with pytest.raises(
        DatasetError, match=rf"tags.csv is {kind} and no text: save it as"
    ) as caught:
        read(start + b"\0" * 30)
    assert "\n" not in str(caught.value)


def test_a_pipe_or_folder_as_table_is_one_line(images, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    for name in ("pipe.csv", "images"):
        with pytest.raises(DatasetError, match="folder, pipe or device: expected a file"):
            _ = FolderDataset(images=images, tags=tmp_path / name).classes


def test_a_cell_that_is_too_long_costs_its_row(read):
    found, tally, _ = read(f"image,tags\na.jpg,cat\nb.jpg,{'x' * 200_000}\n")
    assert found == {"a": ("cat",)}
    assert left_out(tally)[0][:2] == ("rows", 1)


# ------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("name", ["IMG.JPG", "IMG.jpg", "IMG", "IMG.png"])
def test_suffixes_of_either_case_are_found(read, images, name):
    Image.new("RGB", (30, 20)).save(images / "IMG.JPG")
    _, _, samples = read(f"image,tags\n{name},cat\n")
    assert samples["IMG"].path == str(images / "IMG.JPG")
    assert samples["IMG"].file_name == (name if "." in name else "IMG.JPG")


@pytest.mark.parametrize(("on_disk", "in_csv"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_letters_may_be_composed_otherwise(read, images, tmp_path, on_disk, in_csv):
    there = unicodedata.normalize(on_disk, "été")
    Image.new("RGB", (30, 20)).save(images / f"{there}.jpg")
    (tmp_path / "masks").mkdir()
    Image.new("P", (30, 20)).save(tmp_path / "masks" / f"{there}.png")
    row = f"{unicodedata.normalize(in_csv, 'été')}.jpg"
    _, _, samples = read(f"image,tags\n{row},cat\n", masks=tmp_path / "masks")
    (one,) = samples.values()
    assert (one.id, one.height, one.file_name) == ("été", 20, row)
    assert one.mask_path


def test_names_that_need_cleaning_are_found(read):
    found, _, _ = read("image,tags\na.jpg\u200b,cat\n\u00a0b.jpg,cat\n")
    assert list(found) == ["a", "b"]


def test_images_that_are_not_there_are_counted_of_all(read, images):
    (images / "folder.jpg").mkdir()
    os.mkfifo(images / "pipe.jpg")
    (images / "loop.jpg").symlink_to("loop.jpg")
    names = ["a", "gone", "lost", "folder", "pipe", "loop"]
    found, tally, samples = read("image,tags\n" + "".join(f"{one}.jpg,cat\n" for one in names))
    assert list(found) == names
    assert [name for name in names if samples[name].height] == ["a"]
    facts = {one["reason"]: one["count"] for one in tally.facts()["left_out"]}
    assert facts["not found, of 6 that are listed"] == 2
    assert sum(facts.values()) == 5


def test_a_name_that_is_longer_than_any_file_s_is_not_found(read):
    name = "x" * 400
    _, tally, samples = read(f"image,tags\na.jpg,cat\n{name},cat\n")
    assert samples[name].height == 0
    assert left_out(tally)[0][:2] == ("images", 1)
    assert tally.facts()["left_out"][0]["reason"] == "not found, of 2 that are listed"


def test_no_image_at_all_is_an_error_that_says_what_to_check(read):
    with pytest.raises(
        DatasetError,
        match=r"2 of 2 images not found, such as .*gone.jpg, .*: check --folder.images",
    ):
        read("image,tags\ngone.jpg,cat\nlost.jpg,cat\n")


# ------------------------------------------------------------------------------------------- boxes


def test_boxes_of_a_european_excel_are_read(read, tmp_path):
    boxes = "image;class;x1;y1;x2;y2\na.jpg;cat;1,5;2;10,25;12\n"
    _, tally, samples = read("image,tags\na.jpg,cat\n", boxes)
    assert samples["a"].boxes_xyxy.tolist() == [[1.5, 2, 10.25, 12]]
    assert not tally.left_out


def test_a_box_twice_is_taken_once_and_said(read):
    boxes = "image,class,x1,y1,x2,y2\na.jpg,cat,1,1,9,9\na.jpg,cat,1,1,9,9\na.jpg,cat,1,1,9,8\n"
    _, tally, samples = read("image,tags\na.jpg,cat\n", boxes)
    assert len(samples["a"].boxes_xyxy) == 2
    assert "boxes.csv:3" in noted(tally)["rows"]


# ------------------------------------------------------------------------------------------- masks


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()

    def write(name, *values, mode="L"):
        pixels = np.zeros((20, 30), np.uint8)
        for place, value in enumerate(values):
            pixels[:, place] = value
        Image.fromarray(pixels).convert(mode).save(folder / name)
        return folder

    return write


TAGS = "image,tags\na.jpg,cat\nb.jpg,dog\n"


def test_masks_of_0_and_255_are_refused_with_the_flag_that_reads_them(read, masks):
    masks("a.png", 0, 255)
    folder = masks("b.png", 0, 255)
    with pytest.raises(
        DatasetError, match=r"a.png hold only 0.*255.*--folder.mask-values 255=CLASS"
    ):
        read(TAGS, masks=folder)


KINDS = [
    (suffix, mode)
    for suffix in ("png", "bmp", "tif")
    for mode in ("L", "1", "RGB", "RGBA", "LA")
    if (suffix, mode) != ("bmp", "LA")  # there is no such BMP
]


@pytest.mark.parametrize(("suffix", "mode"), KINDS)
def test_given_values_read_them(read, masks, tmp_path, suffix, mode):
    folder = masks(f"a.{suffix}", 0, 255, mode=mode)
    _, tally, samples = read(TAGS, masks=folder, mask_values=("255=cat",))
    path = tmp_path / "work" / "masks" / "a.png"
    assert samples["a"].mask_path == str(path)
    assert np.unique(np.array(Image.open(path))).tolist() == [0, 1]
    assert not tally.left_out


def test_values_may_mean_background_and_what_is_ignored(read, masks, tmp_path):
    folder = masks("a.png", 0, 3, 128, 7)
    values = ("7=cat", "3=background", "128=ignore", "0=dog")
    read(TAGS, masks=folder, mask_values=values)
    labels = np.array(Image.open(tmp_path / "work" / "masks" / "a.png"))
    assert labels[0, :5].tolist() == [2, 0, 255, 1, 2]


def test_a_value_that_is_not_given_costs_its_mask(read, masks):
    masks("a.png", 0, 255)
    folder = masks("b.png", 0, 9)
    _, tally, samples = read(TAGS, masks=folder, mask_values=("255=cat",))
    assert (bool(samples["a"].mask_path), samples["b"].mask_path) == (True, "")
    (one,) = tally.facts()["left_out"]
    assert (one["what"], one["count"]) == ("masks", 1)
    assert "holds the value 9" in one["reason"]


@pytest.mark.parametrize("values", [("cat",), ("256=cat",), ("-1=cat",), ("1=",), ("1=a", "1=b")])
def test_values_that_say_nothing_are_refused(values):
    with pytest.raises(DatasetError, match="such as 255=cat"):
        FolderDataset(mask_values=values)


def test_a_value_of_an_unknown_class_is_refused(read, masks):
    with pytest.raises(DatasetError, match="unknown class 'catt', did you mean 'cat'"):
        read(TAGS, masks=masks("a.png", 255), mask_values=("255=catt",))


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp"])
def test_a_mask_that_changes_values_is_left_out(read, masks, name):
    masks("b.png", 2)
    _, tally, samples = read(TAGS, masks=masks(name, 1))
    assert (samples["a"].mask_path, bool(samples["b"].mask_path)) == ("", True)
    ((what, count, example),) = left_out(tally)
    assert (what, count) == ("masks", 1)
    assert example.endswith(name)


@pytest.mark.parametrize("damage", ["size", "colours", "label", "broken", "pipe"])
def test_a_mask_that_cannot_be_used_is_left_out(read, masks, damage):
    folder = masks("b.png", 2)
    if damage == "size":
        Image.new("L", (20, 30)).save(folder / "a.png")
    elif damage == "colours":
        Image.new("RGB", (30, 20), (128, 0, 0)).save(folder / "a.png")
    elif damage == "label":
        masks("a.png", 3)
    elif damage == "broken":
        (folder / "a.png").write_bytes((folder / "b.png").read_bytes()[:40])
    else:
        os.mkfifo(folder / "a.png")
    _, tally, samples = read(TAGS, masks=folder)
    assert (samples["a"].mask_path, bool(samples["b"].mask_path)) == ("", True)
    assert left_out(tally) == [("masks", 1, str(folder / "a.png"))]


def test_no_mask_that_fits_is_said_with_an_example(read, masks):
    folder = masks("a_mask.png", 1)
    _, tally, _ = read(TAGS, masks=folder)
    assert left_out(tally) == [("masks", 2, f"{folder}/a.png; the folder holds a_mask.png")]


def test_a_tagged_class_that_no_mask_holds_is_said(read, masks):
    masks("a.png", 1)
    _, tally, _ = read(TAGS, masks=masks("b.png", 1))
    notes = noted(tally)
    assert notes["classes"] == "'dog'"
    assert notes["masks"].endswith("b.png: 'cat'")


def test_settings_that_older_runs_lack_are_none_by_default():
    assert FolderDataset().mask_values is None
