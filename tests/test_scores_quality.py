"""Signs of poor masks: counts against a literal second count, and the words of each warning."""

import dataclasses

import numpy as np
import pytest

from rayseg.scores import ClassQuality, TagCounts, qualities, warning_lines
from rayseg.scores.quality import LACKING, LEAST_IMAGES, MAX_LINES, SIGNS, UNRECOGNISED, WIDE
from tests.reference.quality_literal import counted

CLASSES = ("cat", "dog", "emu")
FINE = ClassQuality("horse", 100, 0, 1000, 300, 100, 10)
OF_SIGNS = {
    "wide": {"covered": 950},
    "unrecognised": {"unrecognised": 84},
    "lacking": {"lacking": 60},
}
WORDS = {
    "wide": (
        "masks cover 95 % of the images with its tag; the classifier has most likely learned the "
        "background; add pictures that do not show it (`--folder.negatives`), or give boxes"
    ),
    "unrecognised": (
        "the classifier does not recognise it in 84 of 100 images with its tag; it has most likely "
        "seen too few; add pictures of it, train longer (`--classifier.epochs`), or give boxes"
    ),
    "lacking": (
        "60 of its 100 masks do not have it; the background threshold is most likely too high for "
        "its maps; lower it (`--thresholds.METHOD`), or add pictures of it"
    ),
}


def images(undecided, number=12):
    rng = np.random.default_rng(3)
    values = [0, 0, 1, 2, *([255] if undecided else [])]
    for n in range(number):
        shape = (5 + n % 3, 7)
        labels = rng.choice(values, shape).astype(np.uint8)
        yield labels * np.uint8(n % 4 != 0), [(0,), (0, 1), (1, 1), (), (2,)][n % 5]


def total(several):
    return sum(
        (TagCounts.of(labels, tags, 3) for labels, tags in several), start=TagCounts.zeros(3)
    )


@pytest.mark.parametrize("undecided", [False, True])
def test_counts_are_those_of_a_literal_loop(undecided):
    given = list(images(undecided))
    found = zip(*(own.tolist() for own in vars(total(given)).values()), strict=True)
    assert [list(own) for own in found] == [counted(given, index) for index in range(3)]


def test_counts_do_not_depend_on_how_images_are_shared_out():
    given = list(images(True))
    whole = total(given)
    parts = [total(given[:1]), total(given[1:8]), total(given[8:])]
    assert np.array_equal((parts[2] + (parts[0] + parts[1])).flat, whole.flat)
    assert np.array_equal(TagCounts.from_flat(whole.flat.tolist()).flat, whole.flat)


def test_an_undecided_pixel_is_of_the_image_and_of_no_class():
    counts = TagCounts.of(np.full((2, 3), 255, np.uint8), (1,), 3)
    assert (counts.pixels[1], counts.covered[1], counts.lacking[1]) == (6, 0, 1)


def test_only_counts_of_equally_many_classes_add():
    with pytest.raises(ValueError, match="equally many classes add, got 2 and 3"):
        TagCounts.zeros(2) + TagCounts.zeros(3)


def test_classes_without_an_image_are_left_out_and_shares_are_of_the_sums():
    counts = TagCounts.of(np.array([[1, 1, 0, 255]], np.uint8), (0,), 3)
    (cat,) = qualities(CLASSES, counts + counts, [2, 9, 9], [1, 9, 9])
    assert (cat.name, cat.images, cat.pixels, cat.covered) == ("cat", 2, 8, 4)
    assert (cat.covered_share, cat.lacking_share, cat.unrecognised_share) == (0.5, 0.0, 0.5)
    (cat,) = qualities(CLASSES, counts)
    assert cat.unrecognised_share is None


def test_there_are_words_for_every_sign():
    assert list(SIGNS) == list(OF_SIGNS)


@pytest.mark.parametrize("sign", SIGNS)
def test_a_warning_says_figure_likely_reason_and_way_out(sign):
    poor = dataclasses.replace(FINE, **OF_SIGNS[sign])
    assert (poor.sign, poor.warning) == (sign, WORDS[sign])
    assert poor.as_dict()["warning"] == WORDS[sign]
    assert (FINE.sign, FINE.warning) == ("", "")


def test_a_sign_holds_from_its_bound_on():
    for name, share, whole in (
        ("covered", WIDE, 1000),
        ("unrecognised", UNRECOGNISED, 100),
        ("lacking", LACKING, 100),
    ):
        bound = round(share * whole)
        assert dataclasses.replace(FINE, **{name: bound}).sign
        assert not dataclasses.replace(FINE, **{name: bound - 1}).sign


def test_too_few_images_are_no_reason_to_warn():
    few = {"images": LEAST_IMAGES - 1, "lacking": LEAST_IMAGES - 1, "covered": 950}
    assert not dataclasses.replace(FINE, **few).warning
    assert not dataclasses.replace(FINE, asked=2, unrecognised=2).warning


def test_of_several_signs_the_first_is_shown():
    poor = dataclasses.replace(FINE, covered=950, unrecognised=100, lacking=60)
    assert poor.sign == "wide"


def test_lines_are_one_a_class_and_at_most_five():
    poor = [
        dataclasses.replace(FINE, name=f"c{n}", images=10 + n, lacking=10) for n in range(MAX_LINES)
    ]
    lines = warning_lines({"cam+crf": [FINE, *poor]})
    assert [line.partition(":")[0] for line in lines] == ["c4", "c3", "c2", "c1", "c0"]
    more = [*poor, dataclasses.replace(FINE, name="wide", covered=950)]
    lines = warning_lines({"cam+crf": more})
    assert lines[0] == f"wide: {WORDS['wide']}"
    assert lines[MAX_LINES:] == ["and 1 more in report.html"]
    assert warning_lines({"cam+crf": [FINE]}) == warning_lines({}) == []


def test_among_several_masks_a_line_names_its_own():
    lacking = dataclasses.replace(FINE, lacking=60)
    wide = dataclasses.replace(FINE, covered=950)
    one = warning_lines({"cam+crf": [wide], "cam+irnet": [lacking]})
    assert one == [f"horse (cam+crf): {WORDS['wide']}"]
    both = warning_lines({"cam+crf": [lacking], "cam+irnet": [lacking]})
    assert both == [f"horse (cam+crf): {WORDS['lacking']}"]
    denied = dataclasses.replace(FINE, unrecognised=84)
    assert warning_lines({"cam+crf": [denied], "cam+irnet": [denied]}) == [
        f"horse: {WORDS['unrecognised']}"
    ]
