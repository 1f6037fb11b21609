"""The picture of a sweep."""

import io

import pytest
from PIL import Image

from rayseg.report.sensitivity import draw_sensitivity

ENTRIES = [
    {"lambda": a, "views": v, "rate": r, "miou": 0.4 + 0.01 * a + r}
    for a in (0.0, 7.0)
    for v in ([1.0], [1.0, 0.5])
    for r in (1e-6, 1e-4)
]


def size(png):
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size


def test_a_panel_for_each_setting_that_differs():
    three = size(draw_sensitivity(ENTRIES, ENTRIES[-1], ["lambda", "views", "rate"], "miou"))
    few = [one for one in ENTRIES if one["rate"] == 1e-6]
    two = size(draw_sensitivity(few, few[0], ["lambda", "views", "rate"], "miou"))
    assert three[1] == two[1]
    assert three[0] == pytest.approx(1.5 * two[0], rel=0.01)


def test_one_entry_is_a_picture_too():
    assert size(draw_sensitivity(ENTRIES[:1], ENTRIES[0], ["lambda"], "miou"))[0] > 300
    assert size(draw_sensitivity([{"miou": 0.5}], {"miou": 0.5}, [], "miou"))[0] > 300


def test_five_panels_stand_in_two_rows():
    entries = [dict.fromkeys("abcde", n) | {"miou": 0.1 * n} for n in range(3)]
    five = size(draw_sensitivity(entries, entries[2], list("abcde"), "miou"))
    three = size(draw_sensitivity(entries, entries[2], list("abc"), "miou"))
    assert five == (three[0], 2 * three[1])
