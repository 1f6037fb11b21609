"""Images and tags from Python: what is taken, what is refused, what is written."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rayseg.api.given import take
from rayseg.datasets import FolderDataset
from rayseg.datasets.tally import Tally
from tests.api.tiny import drawn

ARRAY = drawn(1)[0]


def read(folder, given, **settings):
    """The samples and classes that the reader of folders finds."""
    paths = {name: Path(path) for name, path in given.write(folder).items()}
    data = FolderDataset(**paths, class_names=given.classes, **settings)
    tally = Tally()
    samples = list(data.read(folder, tally))
    assert tally.facts().get("left_out", []) in ([], {})
    return samples, data.classes


def test_names_with_any_separator_and_quote_arrive_as_they_are(tmp_path):
    tags = [["traffic light", "a,b"], ["semi;colon"], ["bar|", "farmer's"], []]
    given = take([ARRAY] * 4, tags)
    samples, classes = read(tmp_path, given)
    assert [sorted(classes[t] for t in s.tags) for s in samples] == [sorted(t) for t in tags]
    assert [sample.id for sample in samples] == ["0", "1", "2", "3"]
    assert [sample.negative for sample in samples] == [False, False, False, True]


def test_the_tag_none_says_that_there_is_none(tmp_path):
    samples, classes = read(tmp_path, take([ARRAY, ARRAY], [["None"], ["cow"]]))
    assert classes == ("cow",)
    assert samples[0].negative


def test_files_are_linked_under_their_names_and_arrays_keep_their_pixels(tmp_path):
    (tmp_path / "a b").mkdir()
    photo = tmp_path / "a b" / "Kühe auf Wiese.JPG"
    Image.fromarray(ARRAY).save(photo)
    given = take([str(photo), ARRAY], [["cow"], ["cow"]])
    samples, _ = read(tmp_path / "run", given)
    assert [sample.id for sample in samples] == ["Kühe auf Wiese", "1"]
    assert os.path.realpath(samples[0].path) == str(photo)
    assert (np.array(Image.open(samples[1].path)) == ARRAY).all()


def test_the_same_call_touches_nothing_and_another_one_takes_away_what_is_gone(tmp_path):
    take([ARRAY, ARRAY], [["cow"], []]).write(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    take([ARRAY, ARRAY], [["cow"], []]).write(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    take([ARRAY], [["cow"]]).write(tmp_path)
    assert [path.name for path in (tmp_path / "given" / "images").iterdir()] == ["0.png"]


def test_tags_of_a_dict_are_found_by_id_path_or_file_name():
    tags = {"a": ["cow"], "x/b.jpg": ["dog"], "c.jpg": []}
    given = take(["x/a.jpg", "x/b.jpg", Path("x/c.jpg")], tags)
    assert given.tags == (("cow",), ("dog",), ())


@pytest.mark.parametrize(
    ("images", "tags", "message"),
    [
        ("photos", [[]], "images must be a list or a dict of paths or arrays, got one str"),
        ([], [], "images must have at least one image, got none"),
        (["a/x.jpg", "b/x.png"], [[], []], "images must have names of their own, got 'x' twice"),
        (
            [ARRAY[..., :2]],
            [["a"]],
            r"image '0' must be uint8 \(h, w, 3\), got uint8 \(40, 56, 2\)",
        ),
        ([ARRAY / 255], [["a"]], r"image '0' must be uint8 \(h, w, 3\), got float64"),
        ([None], [["a"]], "image '0' must be a path or a uint8 array"),
        (["s3://bucket/a.jpg"], [["a"]], "image 'a' must be a local file or an array, got s3"),
        ({"../a": ARRAY}, [["a"]], "names of images must be such as a file can have, got '../a'"),
        ([ARRAY], [["a"], ["b"]], r"tags must be a list for each of the 1 images.*, got 2"),
        ([ARRAY], "cow", "tags must be a list for each of the 1 images.*, got 'cow'"),
        ([ARRAY], ["cow"], r"tags of '0' must be a list of class names such as \['cow'\].*'cow'"),
        ([ARRAY], [[1]], "tags of '0' must be a list of class names"),
        ([ARRAY], [[" cow"]], "a tag of '0' must be a word or several, without blanks"),
        ([ARRAY], [[]], "tags must name a class of at least one image, got none"),
        ({"a": ARRAY}, {}, r"tags must name every image, lack 'a'; \[\] says that it has none"),
        ({"meadow": ARRAY}, {"meadow": ["x"], "meadw": []}, "of the images, got 'meadw'; did you"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(images, tags, message):
    with pytest.raises(ValueError, match=message) as caught:
        take(images, tags)
    assert "\n" not in str(caught.value)
