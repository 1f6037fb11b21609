import numpy as np

from rayseg.datasets.tally import Tally
from rayseg.records import Sample


def sample(**more):
    boxes = np.zeros((3, 4), np.float32), np.array([0, 1, 1])
    return Sample("a", "/a.png", more.pop("height", 8), 8, (0, 1), *boxes, **more)


def test_a_sample_is_counted_by_what_it_holds():
    tally = Tally()
    one = sample(crowds=(2,), true_masks=(b"x", b"", b"y"), mask_path="/m.png")
    assert tally.take_sample(one) is one
    assert tally.facts()["taken"] == {
        "images": 1, "tags": 2, "boxes": 2, "outlines": 2, "crowds": 1, "masks": 1,
    }  # fmt: skip


def test_an_image_without_a_size_is_none_that_was_taken():
    tally = Tally()
    tally.take_sample(sample(height=0))
    assert tally.facts()["taken"] == {"tags": 2, "boxes": 3}


def test_an_example_of_a_name_that_is_no_text_can_be_stored():
    tally = Tally()
    tally.note("images", "strange", "/images/\udcff.jpg")
    assert tally.facts()["changed"][0]["example"].encode() == b"/images/?.jpg"
