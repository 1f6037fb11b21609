"""Shards: plain Arrow, named after their ids; rows found by id."""

import io
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayseg.store import (
    MANIFEST_SCHEMA,
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    RowsById,
    rows_to_table,
    write_shard,
)
from tests.store.tables import rows


def test_a_shard_is_named_after_its_ids(folder):
    first = write_shard(folder, rows("a", "b"))
    assert write_shard(folder, rows("b", "a")) == first
    assert write_shard(folder, rows("a", "c")) != first
    assert len(folder.names()) == 2


def test_a_column_that_a_row_lacks_is_zero(folder):
    (row,) = rows_to_table([{"id": "a"}], MASKS_SCHEMA).to_pylist()
    assert row == {
        "id": "a", "status": "", "error": "", "note": "", "height": 0, "width": 0, "seconds": 0.0,
        "follows": "", "digest": "", "labels": b"", "ignored": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("schema", [MANIFEST_SCHEMA, SEEDS_SCHEMA, MASKS_SCHEMA])
def test_shards_are_of_plain_arrow_types(schema, folder):
    name = write_shard(folder, rows_to_table([{"id": "a"}], schema))
    back = pq.read_schema(io.BytesIO(folder.read(name)))
    assert back.equals(schema)
    assert not any(isinstance(field.type, pa.BaseExtensionType) for field in back)


class Parts:
    """Parts of a table of two rows each, and which of them were read."""

    def __init__(self):
        self.read = []

    def __call__(self, part):
        self.read.append(part)
        return rows(f"{part}a", f"{part}b")


@pytest.fixture
def by_id():
    parts = Parts()
    return RowsById({f"{part}{x}": part for part in range(6) for x in "ab"}, parts), parts


def test_a_row_by_id_reads_its_part_once(by_id):
    found, parts = by_id
    assert [found[id_]["id"] for id_ in ("3b", "3a", "4a")] == ["3b", "3a", "4a"]
    assert parts.read == [3, 4]


def test_which_rows_there_are_is_known_without_reading(by_id):
    found, parts = by_id
    assert (len(found), "5a" in found, "9a" in found) == (12, True, False)
    assert found.keys() & ["5a", "9a"] == {"5a"}
    assert parts.read == []


def test_only_the_last_four_parts_are_held(by_id):
    found, parts = by_id
    for part in (*range(6), 2, 1):
        found[f"{part}a"]
    assert parts.read == [0, 1, 2, 3, 4, 5, 1]


def test_rows_that_were_read_do_not_travel(by_id):
    found, _ = by_id
    assert found["0a"]["error"] == ""
    sent = pickle.dumps(found)
    assert b"error" not in sent
    assert pickle.loads(sent)["0a"] == found["0a"]


def test_a_row_that_is_gone_from_its_part_is_a_key_error():
    with pytest.raises(KeyError):
        RowsById({"c": 0}, Parts())["c"]
