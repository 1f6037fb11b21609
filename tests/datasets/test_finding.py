import os
import unicodedata

import pytest
from PIL import Image

from rayseg.datasets.finding import find_image, leaves


@pytest.fixture
def folder(tmp_path):
    """Images a.jpg, B.PNG, sub/c.jpg and one with an accent in one piece; x.jpg lies outside."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    composed = unicodedata.normalize("NFC", "é.png")
    for name in ("a.jpg", "B.PNG", "sub/c.jpg", "v1.2.jpg", composed, "../x.jpg"):
        Image.new("RGB", (30, 20)).save(folder / name)
    return folder


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("a.jpg", "a.jpg"),
        ("sub/c.jpg", "sub/c.jpg"),
        ("sub\\c.jpg", "sub/c.jpg"),
        ("photos/a.jpg", "a.jpg"),
        ("photos\\sub\\c.jpg", "sub/c.jpg"),
        ("./a.jpg", "a.jpg"),
        ("sub/../a.jpg", "a.jpg"),
        ("a.JPG", "a.jpg"),
        ("B.png", "B.PNG"),
        (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "é.png")),
        (unicodedata.normalize("NFD", "é.jpg"), unicodedata.normalize("NFC", "é.png")),
        ("a.png", "a.jpg"),
        ("a", "a.jpg"),
        ("v1.2", "v1.2.jpg"),
        ("photos\\sub\\c.PNG", "sub/c.jpg"),
        ("data/photos/sub/c.jpg", "sub/c.jpg"),
        ("./photos/a.jpg", "a.jpg"),
        (" a.jpg ", "a.jpg"),
        ("sub%2Fc.jpg", "sub/c.jpg"),
        ("%61.jpg", "a.jpg"),
    ],
)
def test_what_is_plainly_meant_is_found(folder, name, file):
    found = find_image(folder, name)
    assert found is not None
    assert found.resolve() == folder / file


@pytest.mark.parametrize(
    "name", ["b.jpg", "c.jpg", "", "a.jpg/b", "a\0.jpg", "n" * 300, "a.jpgx", "other/a.jpg"]
)
def test_what_is_not_there_is_not_found(folder, name):
    assert find_image(folder, name) is None


@pytest.mark.parametrize("name", ["../x.jpg", "sub/../../x.jpg", "..\\x.jpg", "photos/../../x.jpg"])
def test_a_name_that_leaves_the_folder_finds_nothing(folder, name):
    assert leaves(name)
    assert find_image(folder, name) is None


def test_the_folder_said_twice_is_no_way_out(folder):
    assert not leaves("photos/../x.jpg")
    assert find_image(folder, "photos/../x.jpg") is None


@pytest.mark.parametrize(
    "start", ["{folder}/", "/home/else/photos/", "C:\\\\photos\\\\", "../photos/"]
)
def test_a_name_that_leads_to_the_folder_is_one_inside(folder, start):
    assert find_image(folder, start.format(folder=folder) + "a.jpg") == folder / "a.jpg"


@pytest.mark.parametrize("name", ["/etc/passwd", "/photos/../../x.jpg", "..%2Fx.jpg", "%2Fx.jpg"])
def test_no_writing_of_a_name_leads_out(folder, name):
    assert find_image(folder, name) is None


def test_a_name_with_dots_may_stay_inside():
    assert not any(map(leaves, ("a/../b", "...", "..a/b", "a..b")))


def test_the_very_name_is_found_even_where_it_is_no_file(folder):
    os.mkfifo(folder / "pipe.jpg")
    assert find_image(folder, "pipe.jpg") == folder / "pipe.jpg"
    (folder / "a").mkdir()
    assert find_image(folder, "a") == folder / "a.jpg"
    assert find_image(folder, "sub") == folder / "sub"


def test_a_file_of_the_very_name_comes_before_what_it_may_mean(folder):
    Image.new("RGB", (1, 1)).save(folder / "sub\\c.jpg")
    assert find_image(folder, "sub\\c.jpg") == folder / "sub\\c.jpg"


def test_a_link_out_of_the_folder_is_followed_and_a_dead_one_is_not_there(folder):
    (folder / "out.jpg").symlink_to(folder / "../x.jpg")
    (folder / "dead.jpg").symlink_to(folder / "nothing")
    assert find_image(folder, "out.jpg") == folder / "out.jpg"
    assert find_image(folder, "dead.jpg") is None
