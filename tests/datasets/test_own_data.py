"""Own data: splits by column or folder, and images that show none of the classes."""

import pytest
from PIL import Image

from rayseg.datasets import DatasetError, DatasetNotFoundError, FolderDataset
from rayseg.datasets.tally import Tally


@pytest.fixture
def read(tmp_path):
    """Samples by id of a CSV of tags (and one of boxes), and what was said."""
    for name in ("a.jpg", "b.jpg", "train/c.jpg", "valid/d.jpg", "train/e.jpg", "valid/e.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 20)).save(path)

    def make(csv, boxes="", **flags):
        tally = Tally()
        for name, content in (("tags", csv), ("boxes", boxes)):
            (tmp_path / f"{name}.csv").write_text(content)
            if content:
                flags[name] = tmp_path / f"{name}.csv"
        reader = FolderDataset(tmp_path / "photos", **flags)
        return {one.id: one for one in reader.samples(tmp_path / "run", tally)}, tally

    return make


def texts(counts):
    return {reason.text: number for reason, number in counts.items()}


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["split", "Subset"])
def test_a_column_says_the_split_whatever_separates_it(read, separator, name):
    lines = [("image", "tags", name), ("a.jpg", "cat", "val"), ("b.jpg", "cat", "")]
    samples, _ = read("\n".join(separator.join(line) for line in lines) + "\n", split="rest")
    assert {id_: one.split for id_, one in samples.items()} == {"a": "val", "b": "rest"}


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Validation", "val"),
        ("valid", "val"),
        ("TRAIN", "train"),
        ("testing", "test"),
        ("x1", "x1"),
    ],
)
def test_usual_words_mean_the_splits_that_jobs_ask_for(read, word, split):
    samples, tally = read(f"image,tags,split\na.jpg,cat,{word}\n")
    assert samples["a"].split == split
    said = f"of the split {word.lower()!r}, here called {split}"
    assert (said in texts(tally.changed)) == (word.lower() != split)


def test_a_split_that_is_no_name_costs_its_row(read):
    samples, tally = read("image,tags,split\na.jpg,cat,../x\nb.jpg,cat,val\n")
    assert list(samples) == ["b"]
    (reason,) = tally.left_out
    assert reason.text.startswith("split must be a plain name")
    assert "tags.csv:2" in tally.examples[reason]


def test_an_image_in_two_splits_stays_in_the_first_and_that_is_said(read):
    samples, tally = read("image,tags,split\na.jpg,cat,train\na.jpg,dog,val\n")
    assert (samples["a"].split, len(samples["a"].tags)) == ("train", 2)
    assert texts(tally.changed)["of one image in two splits, the first one is taken"] == 1


def test_boxes_have_splits_too(read):
    boxes = "image,class,x1,y1,x2,y2,split\na.jpg,cat,1,1,9,9,val\nb.jpg,cat,1,1,9,9,train\n"
    samples, _ = read("", boxes)
    assert [one.split for one in samples.values()] == ["val", "train"]


def test_folders_are_splits_and_names_may_leave_them_out(read):
    csv = "image,tags\ntrain/c.jpg,cat\nd.jpg,cat\na.jpg,cat\n"
    samples, tally = read(csv, splits=("train", "valid"), split="rest")
    assert {id_: one.split for id_, one in samples.items()} == {
        "train/c": "train",
        "valid/d": "val",
        "a": "rest",
    }
    assert all(one.height == 20 for one in samples.values())
    assert not tally.left_out


def test_a_name_that_two_folders_have_costs_its_row_and_says_what_to_do(read):
    csv = "image,tags\ne.jpg,cat\ntrain/e.jpg,cat\nvalid/e.jpg,cat\n"
    samples, tally = read(csv, splits=("train", "valid"))
    assert {id_: one.split for id_, one in samples.items()} == {
        "train/e": "train",
        "valid/e": "val",
    }
    assert texts(tally.left_out) == {
        "of a name that several folders of splits have: write the folder before it": 1
    }


def test_a_split_without_a_folder_is_an_error(read):
    with pytest.raises(DatasetNotFoundError, match=r"split vall not found .* inside the images"):
        read("image,tags\na.jpg,cat\n", splits=("train", "vall"))


@pytest.mark.parametrize("cell", ["", "none", "None", "NONE", "nan", "[]", "['none']"])
def test_an_image_without_a_tag_is_a_negative(read, cell):
    samples, tally = read(f"image,tags\na.jpg,cat\nb.jpg,{cell}\n")
    assert (samples["b"].tags, samples["b"].negative) == ((), True)
    assert (samples["a"].tags, samples["a"].negative) == ((0,), False)
    assert tally.taken["negatives"] == 1


def test_none_beside_other_tags_is_dropped_and_said(read):
    samples, tally = read("image,tags\na.jpg,cat;none\n")
    assert (samples["a"].tags, samples["a"].negative) == ((0,), False)
    assert texts(tally.changed)["with the tag 'none' beside others, which is dropped"] == 1


def test_none_may_be_the_name_of_a_class(read):
    samples, _ = read("image,tags\na.jpg,none\n", class_names=("none", "cat"))
    assert (samples["a"].tags, samples["a"].negative) == ((0,), False)


def test_an_image_whose_tag_is_not_known_is_no_negative(read):
    """Nobody knows whether a mistyped class is there."""
    samples, _ = read("image,tags\na.jpg,catt\nb.jpg,cat\n", class_names=("cat",))
    assert (samples["a"].tags, samples["a"].negative) == ((), False)


def test_an_image_with_boxes_is_no_negative_though_its_tag_is_empty(read):
    boxes = "image,class,x1,y1,x2,y2\nb.jpg,cat,1,1,9,9\n"
    samples, _ = read("image,tags\na.jpg,cat\nb.jpg,\n", boxes)
    assert not samples["b"].negative


def test_a_row_of_boxes_with_an_image_alone_is_a_negative(read):
    samples, _ = read("", "image,class,x1,y1,x2,y2\na.jpg,cat,1,1,9,9\nb.jpg,,,,,\n")
    assert (samples["a"].negative, samples["b"].negative) == (False, True)


def test_a_folder_of_negatives_adds_its_pictures(read, tmp_path):
    for name in ("x.jpg", "sub/y.png", "notes.txt", "x.png"):
        path = tmp_path / "meadows" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(path, "PNG")
    samples, tally = read("image,tags\na.jpg,cat\n", negatives=tmp_path / "meadows")
    added = {id_: one for id_, one in samples.items() if id_ != "a"}
    assert sorted(added) == ["negatives/sub/y", "negatives/x"]
    assert all(
        (one.negative, one.split, one.height) == (True, "train", 30) for one in added.values()
    )
    assert tally.taken["negatives"] == 2
    (reason,) = tally.left_out
    assert "same id" in reason.text
    assert tally.examples[reason].endswith("x.png")


def test_what_the_csv_names_too_is_taken_as_it_says(read, tmp_path):
    samples, tally = read("image,tags\na.jpg,cat\n", negatives=tmp_path / "photos")
    assert samples["a"].tags == (0,)
    assert [one.negative for one in samples.values()].count(True) == 5
    assert "of the folder of negatives that the CSV names too" in str(tally.changed)


def test_negatives_that_are_not_there_are_an_error(read, tmp_path):
    with pytest.raises(DatasetError, match=r"negatives not found at .*nowhere"):
        read("image,tags\na.jpg,cat\n", negatives=tmp_path / "nowhere")
