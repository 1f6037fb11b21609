import pytest

from rayseg.steps.sources import read_ids


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        ("a\nb\n", ["a", "b"]),
        ("my photo 1\nmy  photo\n", ["my photo 1", "my  photo"]),
        ("\ufeff a\t\r\n\r\nb\r", ["a", "b"]),
        ("one\u2028id\n\u00a0edge\u00a0\n", ["one\u2028id", "\u00a0edge\u00a0"]),
        ("", []),
    ],
)
def test_a_line_is_an_id_with_its_blanks(tmp_path, content, ids):
    (tmp_path / "ids.txt").write_bytes(content.encode())
    assert read_ids(str(tmp_path / "ids.txt")) == ids


def test_a_list_that_is_no_text_or_not_there_is_named(tmp_path):
    (tmp_path / "ids.txt").write_bytes("ä\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"image ids .*ids\.txt is not UTF-8"):
        read_ids(str(tmp_path / "ids.txt"))
    with pytest.raises(FileNotFoundError, match=r"no\.txt does not exist"):
        read_ids(str(tmp_path / "no.txt"))
    assert read_ids("") is None
