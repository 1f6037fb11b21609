"""Files of a run: whole or not there, plain Arrow, bound to the configuration that made them."""

import io
import json
import pickle
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayseg.records import Sample
from rayseg.store import (
    MANIFEST_SCHEMA,
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    RowsById,
    claim,
    count_status,
    failed_ids,
    find_pending,
    forget_failed,
    forget_repeats,
    local_copy,
    manifest_rows_by_id,
    pack_maps,
    read_file,
    read_manifest,
    read_rows,
    read_run,
    read_shard,
    rows_to_table,
    stored_ids,
    unpack_seeds,
    write_manifest,
    write_run,
    write_shard,
)


@pytest.fixture
def folder(tmp_path):
    return Folder(str(tmp_path / "out"))


def rows(*ids, status="ok"):
    return rows_to_table([{"id": id_, "status": status} for id_ in ids], SEEDS_SCHEMA)


def sample(id_, **changed):
    boxes, classes = np.array([[1, 2, 3, 4.5]], np.float32), np.array([1])
    return Sample(id_, f"/{id_}.jpg", 4, 5, (0, 1), boxes, classes, **changed)


# Files


def test_a_file_comes_back_as_it_was_written(folder):
    folder.write("a.bin", b"\0\1")
    assert folder.read("a.bin") == b"\0\1"
    assert folder.names() == ["a.bin"]


def test_a_write_that_fails_leaves_the_old_file(folder, monkeypatch):
    folder.write("a.bin", b"old")
    with pytest.raises(TypeError):
        folder.write("a.bin", [b"no bytes"])
    assert folder.read("a.bin") == b"old"


def test_half_a_file_is_not_seen(folder):
    write_shard(folder, rows("a"))
    (half,) = [folder.path(f".{name}.tmp") for name in folder.names()]
    with open(half, "wb") as file:
        file.write(b"PAR1")
    assert stored_ids(folder) == {"a"}


def test_two_writers_of_one_file_do_not_disturb_each_other(folder):
    errors = []

    def write():
        try:
            for _ in range(200):
                folder.write("a.bin", b"x" * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert folder.names() == ["a.bin"]


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot write .*file/sub/a.bin") as caught:
        Folder(str(tmp_path / "file" / "sub")).write("a.bin", b"")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(folder):
    with pytest.raises(FileNotFoundError, match=r"out/a.bin does not exist"):
        folder.read("a.bin")


def test_a_missing_folder_is_empty(folder):
    assert (folder.names(), folder.folders(), folder.exists()) == ([], [], False)


def test_a_file_uri_works_like_a_path(tmp_path):
    uri = Folder(f"file://{tmp_path}/run")
    write_shard(uri / "seeds", rows("a", "b"))
    assert stored_ids(Folder(str(tmp_path / "run" / "seeds"))) == {"a", "b"}
    assert uri.folders() == ["seeds"]
    assert uri == Folder(str(tmp_path / "run"))
    name = (uri / "seeds").names()[0]
    assert read_file(f"{uri}/seeds/{name}") == read_file((uri / "seeds").path(name))


def test_what_cannot_be_read_is_none(tmp_path):
    assert read_file(str(tmp_path / "missing.jpg")) is None
    assert read_file(str(tmp_path)) is None
    assert read_file("") is None
    assert read_file("nowhere://bucket/a.jpg") is None


def test_a_local_file_is_its_own_copy():
    assert local_copy("/run/w.bin") == "/run/w.bin"


def test_a_remote_file_is_fetched_once(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    copies = {local_copy(f"file://{tmp_path}/w.bin") for _ in range(2)}
    assert [Path(copy).read_bytes() for copy in copies] == [b"weights"]
    with pytest.raises(FileNotFoundError, match=r"nothing\.bin does not exist"):
        local_copy(f"file://{tmp_path}/nothing.bin")


def test_remote_files_of_one_name_are_told_apart_by_what_they_hold(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "w.bin").write_bytes(part.encode())
    copies = [local_copy(f"file://{tmp_path}/{part}/w.bin") for part in ("a", "b")]
    assert [Path(copy).read_bytes() for copy in copies] == [b"a", b"b"]
    (tmp_path / "a" / "w.bin").write_bytes(b"trained again")
    assert Path(local_copy(f"file://{tmp_path}/a/w.bin")).read_bytes() == b"trained again"


def test_a_relative_path_is_made_absolute_for_workers_that_start_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Folder("runs/a") == Folder(str(tmp_path / "runs" / "a"))


def test_a_removed_folder_is_gone_and_may_be_removed_again(folder):
    folder.write("a.bin", b"")
    folder.remove()
    folder.remove()
    assert not folder.exists()


# Shards


def test_a_shard_is_named_after_its_ids(folder):
    first = write_shard(folder, rows("a", "b"))
    assert write_shard(folder, rows("b", "a")) == first
    assert write_shard(folder, rows("a", "c")) != first
    assert len(folder.names()) == 2


def test_a_column_that_a_row_lacks_is_zero(folder):
    (row,) = rows_to_table([{"id": "a"}], MASKS_SCHEMA).to_pylist()
    assert row == {
        "id": "a", "status": "", "error": "", "note": "", "height": 0, "width": 0, "seconds": 0.0,
        "labels": b"", "ignored": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("schema", [MANIFEST_SCHEMA, SEEDS_SCHEMA, MASKS_SCHEMA])
def test_shards_are_of_plain_arrow_types(schema, folder):
    name = write_shard(folder, rows_to_table([{"id": "a"}], schema))
    back = pq.read_schema(io.BytesIO(folder.read(name)))
    assert back.equals(schema)
    assert not any(isinstance(field.type, pa.BaseExtensionType) for field in back)


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


# Maps


@pytest.mark.parametrize("k", [0, 1, 2])
def test_maps_come_back_to_within_half_a_grey_value(k):
    maps = np.random.default_rng(0).random((k, 5, 7), dtype=np.float32)
    row = {"id": "a", "height": 19, "width": 27, "classes": list(range(k)), "maps": pack_maps(maps)}
    back = unpack_seeds(row)
    assert back.maps.shape == (k, 5, 7)
    assert abs(back.maps - maps).max(initial=0) <= 1 / 510 + 1e-6


def test_the_ends_of_the_range_are_exact():
    maps = np.array([[[0, 1]]], np.float32)
    row = {"id": "a", "height": 1, "width": 5, "classes": [0], "maps": pack_maps(maps)}
    assert unpack_seeds(row).maps.tolist() == maps.tolist()


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


# The manifest


def test_a_manifest_comes_back_as_it_was_written(folder):
    assert write_manifest(folder, (sample(f"{n}") for n in range(2500)), ("cat", "dog")) == 2500
    manifest = read_manifest(folder)
    assert manifest.classes == ("cat", "dog")
    back = list(manifest.samples())
    assert [one.id for one in back] == [str(n) for n in range(2500)]
    assert back[7].boxes_xyxy.tolist() == [[1, 2, 3, 4.5]]
    assert back[7].tags == (0, 1)


def test_true_masks_are_read_only_if_that_is_asked_for(folder):
    write_manifest(folder, [sample("a", true_masks=(b"counts" * 9,))], ("cat", "dog"))
    damage(folder, "true_masks")
    (back,) = read_manifest(folder).samples()
    assert (back.id, back.true_masks) == ("a", ())
    with pytest.raises(OSError):  # noqa: PT011 - whatever pyarrow says
        read_manifest(folder, true_masks=True)


def damage(folder, column):
    """Overwrites the values of a column that has no dictionary."""
    chunks = pq.ParquetFile(io.BytesIO(folder.read("manifest.parquet"))).metadata.row_group(0)
    index = next(i for i in range(chunks.num_columns) if column in chunks.column(i).path_in_schema)
    chunk, data = chunks.column(index), bytearray(folder.read("manifest.parquet"))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    folder.write("manifest.parquet", bytes(data))


def test_rows_of_a_manifest_come_by_id_with_their_true_masks(folder):
    masks = {f"{n}": (f"counts of {n}".encode(),) for n in range(1500)}
    write_manifest(folder, (sample(id_, true_masks=own) for id_, own in masks.items()), "ab")
    rows = manifest_rows_by_id(folder, ["1400", "7"], ["true_masks"])
    assert list(rows) == ["1400", "7"]
    assert rows["7"] == {"id": "7", "true_masks": [b"counts of 7"]}
    assert rows["1400"]["true_masks"] == [b"counts of 1400"]
    assert rows.get("8") is None


def test_an_id_that_comes_twice_is_refused(folder):
    with pytest.raises(ValueError, match="ids must be unique, got 'a' twice"):
        write_manifest(folder, [sample("a"), sample("b"), sample("a")], ("cat", "dog"))
    assert not folder.exists("manifest.parquet")


def test_a_manifest_of_0_rows_is_refused(folder):
    with pytest.raises(ValueError, match="at least one image, got 0 rows"):
        write_manifest(folder, [], ("cat",))
    folder.write("manifest.parquet", parquet(MANIFEST_SCHEMA.empty_table()))
    with pytest.raises(ValueError, match="must have rows, got 0"):
        read_manifest(folder)


def test_a_missing_manifest_says_how_to_make_one(folder):
    with pytest.raises(FileNotFoundError, match="rayseg prepare"):
        read_manifest(folder)


def test_a_manifest_that_is_no_parquet_is_refused(folder):
    folder.write("manifest.parquet", b"id,path\n")
    with pytest.raises(ValueError, match=r"manifest.parquet is no Parquet file"):
        read_manifest(folder)


def test_a_manifest_that_lacks_columns_names_them(folder):
    folder.write("manifest.parquet", parquet(pa.table({"id": ["a"], "path": ["a.jpg"]})))
    with pytest.raises(
        ValueError, match=r"must have columns .*, lacks \['height', 'width', 'tags'"
    ):
        read_manifest(folder)


def test_selecting_an_unknown_split_says_which_there_are(folder):
    write_manifest(folder, [sample("a", split="train"), sample("b", split="val")], ("cat", "dog"))
    manifest = read_manifest(folder)
    assert [one.id for one in manifest.select("val").samples()] == ["b"]
    with pytest.raises(ValueError, match=r"split 'test'; the manifest has \['train', 'val'\]"):
        manifest.select("test")


def test_selecting_an_unknown_id_names_it(folder):
    write_manifest(folder, [sample("a"), sample("b")], ("cat", "dog"))
    manifest = read_manifest(folder)
    assert [one.id for one in manifest.select(ids=["b"]).samples()] == ["b"]
    with pytest.raises(ValueError, match="1 of 2 ids are not in the manifest, such as 'c'"):
        manifest.select(ids=["a", "c"])


def parquet(table):
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


# run.json


def test_a_folder_is_claimed_once_and_found_again(folder):
    claim(folder, {"cam": {"scales": (1.0, 0.5)}})
    claim(folder, {"cam": {"scales": (1.0, 0.5)}})
    assert read_run(folder)["config"] == {"cam": {"scales": [1.0, 0.5]}}


def test_another_configuration_is_refused_with_all_that_differs(folder):
    claim(folder, {"advcam": {"num_steps": 27, "flip": True}, "weights": "aa"})
    write_shard(folder, rows("a"))
    with pytest.raises(ValueError, match="another configuration") as caught:
        claim(folder, {"advcam": {"num_steps": 10, "flip": True}, "weights": "bb"})
    assert "advcam.num_steps is 27 there, 10 here" in str(caught.value)
    assert "weights is aa there, bb here" in str(caught.value)
    assert "flip" not in str(caught.value)


def test_a_claim_that_nothing_came_of_can_be_mended(folder):
    claim(folder, {"voc": {"root": "/nope"}})
    claim(folder, {"voc": {"root": "/data"}})
    assert read_run(folder)["config"] == {"voc": {"root": "/data"}}


def test_shards_that_nobody_claimed_are_refused(folder):
    write_shard(folder, rows("a"))
    with pytest.raises(ValueError, match=r"holds part-.* but no run.json"):
        claim(folder, {})


def test_run_json_keeps_what_is_not_written_anew_and_names_versions(folder):
    write_run(folder, {"a": 1, "b": 2})
    write_run(folder, {"b": 3})
    run = json.loads(folder.read("run.json"))
    assert (run["a"], run["b"]) == (1, 3)
    assert run["versions"]["pyarrow"] == pa.__version__


def test_rows_are_read_shard_by_shard(folder):
    for ids in ("ab", "c"):
        write_shard(folder, rows(*ids))
    assert sorted(row["id"] for row in read_rows(folder, ["id"])) == ["a", "b", "c"]
    assert all(set(row) == {"id"} for row in read_rows(folder, ["id"]))
    assert {read_shard(folder, name).num_rows for name in folder.names()} == {1, 2}
