"""Names that follow from ids: of ordinary ids as ever, of no two lists the same."""

import hashlib

import pytest

from rayseg.store import hash_ids, stored_ids, write_shard
from tests.store.tables import rows


def test_ordinary_ids_have_the_hash_that_runs_of_before_have():
    ids = ["2007_000032", '"quoted"', "straße 1/ß.jpg", "tab is none"]
    assert hash_ids(ids) == hashlib.sha256("\n".join(ids).encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a\nb"], ["a", "b"]),
        (["a\n", "b"], ["a", "\nb"]),
        (["a\\nb"], ["a\nb"]),
        (['"a\\nb"'], ["a\nb"]),
        (["a", "b"], ["b", "a"]),
    ],
)
def test_lists_that_differ_have_hashes_that_differ(one, other):
    assert hash_ids(one) != hash_ids(other)


def test_rows_of_an_id_with_a_line_break_do_not_take_the_place_of_others(folder):
    write_shard(folder, rows("a\nb"))
    write_shard(folder, rows("a", "b"))
    assert stored_ids(folder) == {"a\nb", "a", "b"}
