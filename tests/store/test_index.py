"""The index: one file in place of all shards, right whatever became of them."""

from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayseg.labels import StoredMasks
from rayseg.store import (
    KINDS,
    MASKS_SCHEMA,
    Folder,
    count_status,
    failed_ids,
    find_pending,
    forget_failed,
    forget_repeats,
    read_index,
    read_rows,
    read_shard,
    rows_to_table,
    stored_ids,
    write_run,
    write_shard,
)
from tests.store.tables import rows


def test_find_pending_names_the_shards_that_still_hold_work(folder):
    names = [write_shard(folder, rows(*ids)) for ids in ("ab", "cd", "ef")]
    pending = find_pending(folder, {"a", "b", "c"})
    assert pending.shards == sorted(folder.path(name) for name in names[1:])
    assert (pending.skip, pending.rows) == ({"c"}, 3)


def test_forget_failed_takes_out_errors_and_poison_only(folder):
    for status in ("ok", "empty", "error", "poison"):
        write_shard(folder, rows(f"{status}1", status=status))
    mixed = pa.concat_tables([rows("ok2"), rows("error2", status="error")])
    write_shard(folder, mixed)
    assert failed_ids(folder) == {"error1", "error2", "poison1"}
    forget_failed(folder)
    assert stored_ids(folder) == {"ok1", "ok2", "empty1"}
    assert count_status(folder) == {"empty": 1, "ok": 2}


def test_an_image_that_was_stored_twice_is_kept_once(folder):
    write_shard(folder, rows("a", "b"))
    write_shard(folder, rows("b", "c"))
    write_shard(folder, rows("d"))
    forget_repeats(folder)
    assert sorted(row["id"] for row in read_rows(folder, ["id"])) == ["a", "b", "c", "d"]


def test_rows_are_read_shard_by_shard(folder):
    for ids in ("ab", "c"):
        write_shard(folder, rows(*ids))
    assert sorted(row["id"] for row in read_rows(folder, ["id"])) == ["a", "b", "c"]
    assert all(set(row) == {"id"} for row in read_rows(folder, ["id"]))
    assert {read_shard(folder, name).num_rows for name in folder.names(".parquet")} == {1, 2}


@pytest.fixture
def opened(monkeypatch):
    """How often each file was opened."""
    counts = Counter()
    own = Folder.open

    def counted(self, name):
        counts[name] += 1
        return own(self, name)

    monkeypatch.setattr(Folder, "open", counted)
    return counts


READINGS = {
    "stored_ids": stored_ids,
    "count_status": count_status,
    "failed_ids": failed_ids,
    "find_pending": lambda folder: find_pending(folder, {"i7"}),
    "forget_failed": forget_failed,
    "forget_repeats": forget_repeats,
    "read_rows": lambda folder: list(read_rows(folder, ["id", "status", "note", "seconds"])),
}


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    folder = Folder(str(tmp_path_factory.mktemp("thousand")))
    for n in range(1000):
        write_shard(folder, rows_to_table([{"id": f"i{n}", "status": "ok"}], MASKS_SCHEMA))
    stored_ids(folder)
    return folder


@pytest.mark.parametrize("reading", READINGS)
def test_a_second_reading_opens_one_file_for_1000_shards(thousand, opened, reading):
    READINGS[reading](thousand)
    assert opened == {"_index.pq": 1}


def test_stored_masks_open_the_index_and_one_shard_for_its_columns(thousand, opened):
    assert len(StoredMasks(thousand, 3).ids) == 1000
    assert sorted(opened.values()) == [1, 1]
    assert "_index.pq" in opened


def test_an_index_says_what_the_shards_say(folder):
    for ids in ("ab", "cd"):
        table = [{"id": i, "status": "ok", "note": i * 2, "seconds": 1.5} for i in ids]
        write_shard(folder, rows_to_table(table, MASKS_SCHEMA))
    for _ in range(2):
        found = read_index(folder).to_pylist()
        assert [line["shard"] for line in found] == sorted(2 * folder.names(".parquet"))
        assert {line["id"]: line["note"] for line in found} == {i: i * 2 for i in "abcd"}
        assert {line["seconds"] for line in found} == {1.5}
    assert pq.read_table(folder.path("_index.pq")).equals(read_index(folder))


def test_only_shards_that_are_new_are_read_again(folder, opened):
    for ids in ("ab", "cd"):
        write_shard(folder, rows(*ids))
    stored_ids(folder)
    new = write_shard(folder, rows("e"))
    opened.clear()
    assert stored_ids(folder) == set("abcde")
    assert {name for name in opened if name.startswith("part-")} == {new}
    opened.clear()
    assert stored_ids(folder) == set("abcde")
    assert opened == {"_index.pq": 1}


def test_a_shard_that_is_gone_is_out_of_the_index(folder):
    gone = write_shard(folder, rows("a", "b"))
    write_shard(folder, rows("c"))
    stored_ids(folder)
    folder.delete(gone)
    assert stored_ids(folder) == {"c"}
    for name in folder.names(".parquet"):
        folder.delete(name)
    assert stored_ids(folder) == set()
    assert count_status(folder) == {}


def test_a_shard_of_the_same_name_and_other_rows_is_read_again(folder):
    first = write_shard(folder, rows("a", status="error"))
    assert failed_ids(folder) == {"a"}
    assert write_shard(folder, rows("a")) == first
    assert failed_ids(folder) == frozenset()


def test_rows_that_are_tried_again_have_their_new_status_though_shards_keep_name_and_size(folder):
    old = write_shard(folder, rows("a", status="error"))
    size = folder.sizes()[old]
    forget_failed(folder)
    assert write_shard(folder, rows("a", status="empty")) == old
    assert folder.sizes()[old] == size
    assert count_status(folder) == {"empty": 1}


@pytest.mark.parametrize("data", [None, b"", b"PAR1 half", "other", "a list", "a hole"])
def test_an_index_that_is_missing_or_damaged_is_made_again(folder, data):
    write_shard(folder, rows("a"))
    stored_ids(folder)
    if data is None:
        folder.delete("_index.pq")
    elif data == "other":
        pq.write_table(pa.table({"id": ["z"]}), folder.path("_index.pq"))
    elif data in ("a list", "a hole"):
        index = pq.read_table(folder.path("_index.pq"))
        holed = index.set_column(0, "id", pa.array([None], pa.string()))
        changed = index.replace_schema_metadata({"shards": "[]"}) if data == "a list" else holed
        pq.write_table(changed, folder.path("_index.pq"))
    else:
        folder.write("_index.pq", data)
    assert stored_ids(folder) == {"a"}
    assert pq.read_table(folder.path("_index.pq")).column("id").to_pylist() == ["a"]


def test_an_empty_shard_does_no_harm(folder):
    write_shard(folder, rows())
    write_shard(folder, rows("a"))
    for _ in range(2):
        assert stored_ids(folder) == {"a"}


def test_a_missing_folder_has_no_rows_and_is_not_made(folder):
    assert (stored_ids(folder), count_status(folder), list(read_rows(folder))) == (set(), {}, [])
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_to_is_read(folder, monkeypatch):
    write_shard(folder, rows("a"))

    def refuse(self, name, data):
        raise OSError(f"cannot write {name}")

    monkeypatch.setattr(Folder, "write", refuse)
    assert stored_ids(folder) == {"a"}
    assert folder.names(".pq") == []


def test_a_shard_that_cannot_be_read_is_named(folder):
    shard = write_shard(folder, rows("a"))
    folder.write(shard, b"cat")
    with pytest.raises(ValueError, match=rf"{shard} cannot be read: ") as caught:
        stored_ids(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["id", "status"])
def test_a_shard_with_a_row_without_a_value_is_named(folder, name):
    shard = write_shard(folder, rows("a", "b"))
    table = read_shard(folder, shard)
    holed = pa.array(["ok", None], pa.string())
    pq.write_table(
        table.set_column(table.column_names.index(name), name, holed), folder.path(shard)
    )
    with pytest.raises(ValueError, match=rf"{shard} cannot be read: {name} without a value"):
        stored_ids(folder)


@pytest.mark.parametrize("kind", ["seeds", "masks", "box_maps", "instances", "analyses"])
def test_a_shard_that_lacks_a_column_of_its_kind_is_named(folder, kind):
    schema = KINDS[kind].schema
    write_run(folder, {"kind": kind})
    whole = rows_to_table([{"id": "a"}], schema)
    for name in [name for name in schema.names if name not in ("follows", "digest", "places")]:
        pq.write_table(whole.drop_columns(name), folder.path("part-1.parquet"))
        wrong = f"part-1.parquet cannot be read: column {name} must be .*, got none"
        with pytest.raises(ValueError, match=wrong):
            stored_ids(folder)


def test_the_index_is_no_shard_to_those_who_read_the_whole_folder(folder):
    write_shard(folder, rows("a"))
    stored_ids(folder)
    assert pq.read_table(folder.location).column("id").to_pylist() == ["a"]
    assert "_index.pq" not in folder.names(".parquet")
