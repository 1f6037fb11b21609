import string

import pytest

from rayseg.records.file_names import apart, file_stem

USUAL = ("2007_000032", "000000000139", "day 1/a", "Größe 2", "a.b", "-1", "50% off", "A", "a:b")
STRANGE = (
    "", ".", "..", "/", "//", "../a", "a/../../b", "/etc/a", "a//b", "a/.", "..\\a", "a\nb", "a\0b",
    " a", "a ", " ", "a\u2028b", "\ud800", "%2E", "%2E%2E", "%", "%-", "%2", "%%0A", "%\n",
    "n" * 300, "n" * 301, "é" * 300, "x/" * 600 + "y", "." * 400, "\n" * 200,
)  # fmt: skip


@pytest.mark.parametrize("id_", USUAL)
def test_a_usual_id_is_its_own_name(id_):
    assert file_stem(id_) == id_


@pytest.mark.parametrize("id_", STRANGE)
def test_a_name_stays_in_its_folder_on_one_line(tmp_path, id_):
    stem = file_stem(id_)
    path = tmp_path / "in" / f"{stem}.png"
    assert path.resolve().is_relative_to((tmp_path / "in").resolve())
    assert path.suffix == ".png"
    path.parent.mkdir(parents=True)
    path.with_name(f".{path.name}.part").write_bytes(b"")  # as drafts are called
    assert stem.isprintable()
    assert [part for part in stem.split("/") if part != part.strip() or not part] == []


def test_different_ids_have_different_names():
    ids = {*USUAL, *STRANGE, *string.printable, "%25", "%252E", "n" * 120 + "%-"}
    assert len({file_stem(id_) for id_ in ids}) == len(ids)


def test_ids_that_differ_in_case_alone_can_be_told_apart():
    taken = {"img_1"}
    assert apart("img_2", taken) == "img_2"
    assert apart("IMG_1", taken) == "%49%4D%47_1"
