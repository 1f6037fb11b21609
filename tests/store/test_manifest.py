"""The manifest: unique ids, all columns, true masks only where they are asked for."""

import io
import re
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayseg.store import (
    MANIFEST_SCHEMA,
    content_digest,
    manifest_rows_by_id,
    read_manifest,
    write_manifest,
)
from tests.store.tables import sample


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
    with pytest.raises(ValueError, match=r"manifest.parquet cannot be read: .*; `rayseg check "):
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
    with pytest.raises(ValueError, match=r"manifest.parquet cannot be read: Parquet magic"):
        read_manifest(folder)


def test_a_manifest_that_lacks_columns_names_them(folder):
    folder.write("manifest.parquet", parquet(pa.table({"id": ["a"], "path": ["a.jpg"]})))
    with pytest.raises(
        ValueError, match=r"must have columns .*, lacks \['height', 'width', 'tags'"
    ):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "manifest.parquet must have classes as a list in JSON, has b''"),
        ({"classes": '"cat"'}, "must have classes as a list in JSON, has b'\"cat\"'"),
        ({"classes": '["cat"]'}, "must have tags from 0 to 0, the last of its classes, has 0 to 1"),
        ({"classes": "[]"}, "must have tags from 0 to -1, the last of its classes, has 0 to 1"),
        ({"classes": '["cat", "dog"]', "category_ids": "[7]"}, "for each of its 2 classes, has 1"),
        ({"classes": '["cat", "dog"]', "category_ids": "7"}, "must have category_ids as a list"),
    ],
)
def test_facts_that_its_rows_do_not_fit_are_refused(folder, facts, message):
    write_manifest(folder, [sample("a")], ("cat", "dog"))
    with_facts(folder, facts)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_manifest(folder)


def test_a_manifest_without_category_ids_counts_from_1(folder):
    write_manifest(folder, [sample("a")], ("cat", "dog"))
    with_facts(folder, {"classes": '["cat", "dog"]'})
    assert read_manifest(folder).category_ids == (1, 2)


def with_facts(folder, facts):
    """Replaces what the file says beside its rows."""
    table = pq.read_table(io.BytesIO(folder.read("manifest.parquet")))
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(facts), sink)
    folder.write("manifest.parquet", sink.getvalue())


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


def test_rows_follow_from_the_size_at_which_a_photo_is_seen_and_others_as_before(folder):
    found = []
    for seen_side in (0, 120, 240):
        write_manifest(folder, [sample("a", seen_side=seen_side)], ("cat", "dog"))
        rows = read_manifest(folder).table.set_column(
            read_manifest(folder).table.column_names.index("image_digest"),
            "image_digest",
            pa.array(["0" * 32]),
        )
        found.append(replace(read_manifest(folder), table=rows).digests(("tags",))["a"])
    assert len(set(found)) == 3
    content = repr(
        [
            ("classes", [(0, "cat"), (1, "dog")]),
            ("id", ""),
            ("image_digest", "0" * 32),
            ("tags", [0, 1]),
        ]
    )
    assert found[0] == content_digest(content.encode())


def test_a_manifest_of_an_earlier_version_has_photos_as_they_are_stored(folder):
    write_manifest(folder, [sample("a", seen_side=9, photo_hw=(90, 60), negative=True)], ("c", "d"))
    (new,) = read_manifest(folder).samples()
    assert (new.seen_side, new.photo_hw, new.negative) == (9, (90, 60), True)
    table = pq.read_table(io.BytesIO(folder.read("manifest.parquet")))
    sink = io.BytesIO()
    pq.write_table(table.drop(["seen_side", "photo_hw", "negative"]), sink)
    folder.write("manifest.parquet", sink.getvalue())
    (old,) = read_manifest(folder).samples()
    assert (old.seen_side, old.photo_hw, old.negative) == (0, (0, 0), False)
