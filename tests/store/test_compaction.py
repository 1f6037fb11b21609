"""Small shards put together: the same rows, in one order, whatever kills it and where."""

import logging
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayseg.labels import StoredMasks
from rayseg.store import (
    MASKS_SCHEMA,
    Folder,
    claim,
    compact,
    compaction,
    count_status,
    find_pending,
    forget_repeats,
    read_index,
    read_rows,
    read_shard,
    receipt_of_stored,
    receipts_of,
    rows_to_table,
    shard_names,
    store_rows,
    stored_ids,
    tidy,
    write_shard,
)
from tests.store.test_lock import remote  # noqa: F401 - a fixture

SIZES = ((4, 6), (6, 4), (3, 3))


def labels(number):
    return random.Random(number).randbytes(99)


def made(number):
    height, width = SIZES[number % 3]
    return {
        "id": f"i{number:03d}", "status": "ok", "height": height, "width": width,
        "note": f"note {number}", "labels": labels(number), "digest": f"{number:032x}",
    }  # fmt: skip


def fill(folder, numbers, rows=4):
    numbers = list(numbers)
    for start in range(0, len(numbers), rows):
        block = [made(number) for number in numbers[start : start + rows]]
        write_shard(folder, rows_to_table(block, MASKS_SCHEMA))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Large shards of 32 rows."""
    monkeypatch.setattr(compaction, "SHARD_ROWS", 32)


def contents(folder):
    return {name: folder.read(name) for name in shard_names(folder)}


def test_rows_are_as_they_were_and_in_one_order_whoever_made_them(folder):
    other = folder / "other"
    fill(folder, range(100))
    fill(other, random.Random(0).sample(range(100), 100), rows=3)
    before = {row["id"]: row for row in read_rows(folder)}
    for one in (folder, other):
        compact(one)
    assert contents(folder) == contents(other)
    assert len(shard_names(folder)) == 4
    after = [row for name in shard_names(folder) for row in read_shard(folder, name).to_pylist()]
    assert {row["id"]: row for row in after} == before
    assert len(after) == 100
    for name in shard_names(folder):
        rows = read_shard(folder, name).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["height"], row["width"], row["id"]))


def test_the_index_is_that_of_the_shards_without_reading_them(folder, monkeypatch):
    fill(folder, range(100))
    compact(folder)
    opened = []
    own = Folder.open
    monkeypatch.setattr(
        Folder, "open", lambda self, name: (opened.append(name), own(self, name))[1]
    )
    by_hand = read_index(folder)
    assert opened == ["_index.pq"]
    folder.delete("_index.pq")
    assert read_index(folder).replace_schema_metadata().equals(by_hand.replace_schema_metadata())


def test_a_few_shards_and_those_that_are_large_are_left_alone(folder):
    fill(folder, range(20))
    few = contents(folder)
    compact(folder)
    assert contents(folder) == few
    fill(folder, range(20, 100))
    compact(folder)
    large = contents(folder)
    compact(folder)
    assert contents(folder) == large


def test_shards_are_smaller_where_rows_are_large(folder, monkeypatch):
    fill(folder, range(100))
    monkeypatch.setattr(compaction, "SHARD_BYTES", sum(folder.sizes(".parquet").values()) // 10)
    compact(folder)
    assert len(shard_names(folder)) == 13  # of 8 rows, the largest power of two that fits


def test_rows_of_earlier_versions_get_the_columns_that_they_lack(folder):
    fill(folder, range(100))
    for name in folder.names(".parquet")[:5]:
        old = read_shard(folder, name).drop_columns(["follows", "digest"])
        pq.write_table(old, folder.path(name))
    old = {row["id"] for row in read_rows(folder) if "digest" not in row}
    compact(folder)
    rows = list(read_rows(folder))
    assert len(old) == 20
    assert {row["id"] for row in rows if row["digest"] == ""} == old
    assert all(row["follows"] == "" for row in rows)


class Killed(BaseException):
    """As a signal comes: anywhere."""


@pytest.mark.parametrize("call", range(0, 30, 2))
def test_a_kill_anywhere_loses_and_doubles_no_row(folder, monkeypatch, call):
    fill(folder, range(100))
    before = {row["id"]: row for row in read_rows(folder)}
    left = [call]

    def dying(own):
        def or_dies(*arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return own(*arguments, **named)

        return or_dies

    with monkeypatch.context() as deadly:
        for name in ("write", "delete"):
            deadly.setattr(Folder, name, dying(getattr(Folder, name)))
        with pytest.raises(Killed):
            compact(folder)
    assert stored_ids(folder) == before.keys()
    assert tidy(folder) == []
    rows = list(read_rows(folder))
    assert (len(rows), {row["id"]: row for row in rows}) == (100, before)
    assert len(shard_names(folder)) == 4


def test_a_shard_that_only_looks_sound_is_set_aside_and_the_others_stay(folder):
    fill(folder, range(100))
    stored_ids(folder)
    name = folder.names(".parquet")[7]
    lost = {row["id"] for row in read_shard(folder, name, ["id"]).to_pylist()}
    data = bytearray(folder.read(name))
    place = data.index(labels(int(min(lost)[1:]))[:50])
    data[place] ^= 1
    folder.write(name, bytes(data))
    (found,) = tidy(folder)
    assert found.ids == lost
    assert f"shard {folder.path(name)} is damaged (" in str(found)
    assert str(found).endswith("): its 4 images are made again")
    assert len(stored_ids(folder)) == 96
    fill(folder, (int(id_[1:]) for id_ in lost))
    assert tidy(folder) == []
    assert count_status(folder) == {"ok": 100}
    assert [one for one in folder.names() if one.startswith(".damaged-")]


def test_a_repeat_goes_out_of_the_small_shard_so_that_large_ones_stay(folder):
    fill(folder, range(100))
    compact(folder)
    large = contents(folder)
    fill(folder, range(10))
    forget_repeats(folder)
    assert contents(folder) == large


def test_a_row_of_a_large_shard_is_read_with_few_others(folder, monkeypatch):
    monkeypatch.setattr(compaction, "SHARD_ROWS", 2048)
    fill(folder, range(250), rows=10)
    compact(folder)
    (name,) = shard_names(folder)
    read = []
    own = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda *a, **k: (read.append(a[1]), own(*a, **k))[1]
    )
    masks = StoredMasks(folder, 3)
    assert masks.row("i249")["labels"] == labels(249)
    assert masks.row("i002")["labels"] == labels(2)
    assert len(read) == 2
    assert pq.ParquetFile(folder.path(name)).metadata.row_group(0).num_rows == 64


def test_what_waits_in_a_large_shard_is_known_row_by_row(folder):
    fill(folder, range(100))
    compact(folder)
    pending = find_pending(folder, {f"i{number:03d}" for number in range(99)})
    assert (len(pending.shards), pending.rows) == (1, 1)


def test_on_an_object_store_a_shard_costs_less_than_three_requests(remote, monkeypatch):  # noqa: F811
    requests = []
    log = logging.getLogger("werkzeug")
    handler = logging.Handler()
    handler.emit = requests.append
    log.addHandler(handler)
    monkeypatch.setattr(log, "level", logging.INFO)
    claim(remote, {"crf": {}})
    with receipts_of(remote) as receipts:
        order = sorted(range(400), key=lambda number: number % 3)  # as rows are made: by their size
        for start in range(0, 400, 4):
            block = [made(number) for number in order[start : start + 4]]
            receipts.take(store_rows(remote, rows_to_table(block, MASKS_SCHEMA)))
    with pytest.raises(ValueError, match="another configuration"):
        claim(remote, {"crf": {"iterations": 2}})
    requests.clear()
    assert len(stored_ids(remote)) == 400
    assert tidy(remote) == []
    assert count_status(remote) == {"ok": 400}
    assert len(requests) < 3 * 100
    log.removeHandler(handler)
    assert (len(shard_names(remote)), remote.folders()) == (13, [])
    assert sorted(row["id"] for row in read_rows(remote)) == [f"i{n:03d}" for n in range(400)]


def test_receipts_say_what_the_shards_say(folder):
    with receipts_of(folder) as receipts:
        for _ in range(2):  # a block that is computed twice
            for start in (0, 4):
                block = [made(number) for number in range(start, start + 4)]
                receipts.take(store_rows(folder, rows_to_table(block, MASKS_SCHEMA)))
    by_receipts = pq.read_table(folder.path("_index.pq"))
    folder.delete("_index.pq")
    assert by_receipts.equals(read_index(folder))
    assert isinstance(by_receipts, pa.Table)


@pytest.fixture
def stored(folder):
    """The receipt of four rows that lie in the folder, and what they were made of."""
    rows = [made(number) | {"follows": f"of {number}"} for number in range(4)]
    return store_rows(folder, rows_to_table(rows, MASKS_SCHEMA)), [
        {"id": row["id"], "digest": row["follows"]} for row in rows
    ]


def test_what_is_stored_already_has_its_receipt(folder, stored):
    receipt, sources = stored
    assert receipt_of_stored(folder, sources[::-1]) == receipt


def test_rows_that_are_not_stored_have_no_receipt(folder, stored):
    assert receipt_of_stored(folder, stored[1][:3]) is None


def test_rows_of_another_source_have_no_receipt(folder, stored):
    changed = [row | {"digest": "another"} for row in stored[1]]
    assert receipt_of_stored(folder, changed) is None


def test_a_damaged_shard_has_no_receipt(folder, stored):
    receipt, sources = stored
    folder.write(receipt["shard"], folder.read(receipt["shard"])[:-9])
    assert receipt_of_stored(folder, sources) is None


def test_receipts_of_a_job_that_fails_are_kept(folder):
    def fail():
        with receipts_of(folder) as receipts:
            receipts.take(store_rows(folder, rows_to_table([made(1)], MASKS_SCHEMA)))
            raise ChildProcessError

    with pytest.raises(ChildProcessError):
        fail()
    assert pq.read_table(folder.path("_index.pq")).column("id").to_pylist() == ["i001"]
