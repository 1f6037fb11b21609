"""Labels of both kinds have one shape and the same errors."""

import pickle
import re

import numpy as np
import pytest
from PIL import Image

from rayseg.labels import StoredMasks, Truths, read_trainable
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    rows_to_table,
    write_manifest,
    write_shard,
)
from tests.bad_images import encode

CLASSES = ("cat", "dog", "emu")
SIZE = (18, 22)


def true_masks(folder, masks):
    boxes = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    samples = []
    for id_, data in masks.items():
        path = folder / f"{id_}.png"
        if data is not None:
            path.write_bytes(data)
        samples.append(Sample(id_, f"{id_}.jpg", *SIZE, (), *boxes, mask_path=str(path)))
    samples.append(Sample("bare", "bare.jpg", *SIZE, (), *boxes))
    write_manifest(Folder(str(folder)), samples, CLASSES)
    return Truths(Folder(str(folder)))


def write_masks(folder, masks):
    """Writes one shard, whose mask that is None has failed."""
    rows = [
        {"id": id_, "status": "error" if data is None else "ok", "labels": data or b""}
        for id_, data in masks.items()
    ]
    return write_shard(folder, rows_to_table(rows, MASKS_SCHEMA))


def stored_masks(folder, masks):
    write_masks(Folder(str(folder)), {"bare": None, **masks})
    return StoredMasks(Folder(str(folder)), len(CLASSES))


@pytest.fixture(params=[true_masks, stored_masks])
def make(request, tmp_path):
    """Makes labels of either kind out of PNG bytes by id; ``bare`` has none."""
    return lambda masks: request.param(tmp_path, masks)


def drawn(seed=0, size_hw=SIZE):
    return np.random.default_rng(seed).choice(np.array([0, 1, 2, 3, 255], np.uint8), size_hw)


def grey(labels, mode="L"):
    return encode(Image.fromarray(labels).convert(mode))


def test_labels_are_read_by_id(make):
    labels = {id_: drawn(seed) for seed, id_ in enumerate("abc")}
    source = make({id_: encode_labels(mask) for id_, mask in labels.items()})
    assert set(source.ids) == {"a", "b", "c"}
    for id_ in "cab":
        read = source.read(id_, SIZE)
        assert read.dtype == np.uint8
        assert np.array_equal(read, labels[id_])
        assert np.array_equal(read_trainable(source, id_, SIZE), labels[id_])


def test_a_grey_mask_holds_labels(make):
    assert np.array_equal(make({"a": grey(drawn())}).read("a", SIZE), drawn())


def test_labels_come_the_same_after_a_journey(make):
    source = make({"a": encode_labels(drawn())})
    sent = pickle.dumps(source)
    before = source.read("a", SIZE)
    assert len(pickle.dumps(source)) == len(sent)  # nothing that was read travels
    assert np.array_equal(pickle.loads(sent).read("a", SIZE), before)


BAD = {
    "is missing": None,
    ": a mask must be a whole PNG, got 3 bytes": b"cat",
    ": a mask must be a whole PNG, got 60 bytes": encode_labels(drawn())[:60],
    ": .* got mode RGB of 8 bits": grey(drawn(), "RGB"),
    r"must be \(18, 22\) as its image, got \(22, 18\)": encode_labels(drawn(size_hw=(22, 18))),
    "must hold labels up to 3 classes, got 4": encode_labels(np.full(SIZE, 4, np.uint8)),
    "must hold labels up to 3 classes, got 254": encode_labels(np.full(SIZE, 254, np.uint8)),
}


@pytest.mark.parametrize("read", [lambda source, *args: source.read(*args), read_trainable])
@pytest.mark.parametrize(("reason", "data"), BAD.items())
def test_a_bad_mask_is_an_error_of_one_line_that_names_it(make, reason, data, read):
    source = make({"bad": data, "good": encode_labels(drawn())})
    with pytest.raises(ValueError, match=rf"^{re.escape(source.name('bad'))} ?{reason}") as caught:
        read(source, "bad", SIZE)
    assert "\n" not in str(caught.value)
    assert np.array_equal(source.read("good", SIZE), drawn())


def test_a_mask_that_there_never_was_is_missing(make):
    source = make({"a": encode_labels(drawn())})
    for id_ in ("bare", "strange"):
        with pytest.raises(ValueError, match=rf"^(true )?mask of '{id_}'.* is missing"):
            source.read(id_, SIZE)


def test_labels_that_are_all_ignored_count_but_do_not_train(make):
    ignored = np.full(SIZE, 255, np.uint8)
    source = make({"a": encode_labels(ignored)})
    assert np.array_equal(source.read("a", SIZE), ignored)
    with pytest.raises(ValueError, match=r"must have a pixel that is not ignored \(255\), got on"):
        read_trainable(source, "a", SIZE)


def test_one_pixel_is_enough_to_train(make):
    labels = np.full(SIZE, 255, np.uint8)
    labels[17, 21] = 0
    assert np.array_equal(read_trainable(make({"a": encode_labels(labels)}), "a", SIZE), labels)


# True masks


def test_a_true_mask_is_named_by_its_path(tmp_path):
    truths = true_masks(tmp_path, {"a": encode_labels(drawn())})
    assert truths.name("a") == f"true mask {tmp_path}/a.png"


def test_truths_are_those_of_the_split_that_have_a_mask(tmp_path):
    true_masks(tmp_path, {id_: encode_labels(drawn()) for id_ in "ab"})
    truths = Truths(Folder(str(tmp_path)), "train", ["a", "bare"])
    rows = [
        {"id": id_, "status": status, "height": 18, "width": 22}
        for id_, status in (("a", "ok"), ("a", "error"), ("b", "ok"), ("bare", "ok"))
    ]
    assert truths.num_classes == 3
    assert truths.rows(rows) == rows[:1]
    assert np.array_equal(truths.of(rows[0]), drawn())


def test_pixels_count_that_the_true_mask_does_not_ignore_and_all_with_crowds(tmp_path):
    labels = drawn()
    labels[3:5, 2:9] = 255
    truths = true_masks(tmp_path, {"a": encode_labels(labels)})
    np.testing.assert_array_equal(truths.counted("a", SIZE), labels != 255)
    for everything in (truths.counted("a", SIZE, crowds=(0,)), truths.counted("bare", SIZE)):
        assert everything.dtype == bool
        np.testing.assert_array_equal(everything, np.ones(SIZE, bool))


# Stored masks


@pytest.fixture
def shards(tmp_path):
    """Six shards of two masks; a mask's id is made of the shard's number and a or b."""
    folder = Folder(str(tmp_path / "masks"))
    made = [
        write_masks(folder, {f"{n}a": encode_labels(drawn(n)), f"{n}b": encode_labels(drawn(n))})
        for n in range(6)
    ]
    return folder, made


def test_a_stored_mask_is_named_by_its_shard(shards):
    folder, made = shards
    assert StoredMasks(folder, 3).name("4b") == f"mask of '4b' in {folder}/{made[4]}"


def test_reading_a_mask_reads_its_own_shard_only(shards):
    folder, made = shards
    masks = StoredMasks(folder, 3)
    for name in made[:4] + made[5:]:
        folder.delete(name)
    assert np.array_equal(masks.read("4a", SIZE), drawn(4))
    with pytest.raises(ValueError, match=r"mask of '3a' in .*parquet is missing"):
        masks.read("3a", SIZE)


def test_only_the_last_four_shards_are_kept(shards):
    folder, made = shards
    masks = StoredMasks(folder, 3)
    for n in range(6):
        masks.read(f"{n}a", SIZE)
    for name in made:
        folder.delete(name)
    for n in range(2, 6):
        assert np.array_equal(masks.read(f"{n}b", SIZE), drawn(n))
    for n in range(2):
        with pytest.raises(ValueError, match="is missing"):
            masks.read(f"{n}b", SIZE)


def test_a_mask_stored_twice_is_one(shards):
    folder, _ = shards
    write_masks(folder, {"1a": encode_labels(drawn(1)), "new": encode_labels(drawn())})
    masks = StoredMasks(folder, 3)
    assert len(masks.ids) == 13
    assert np.array_equal(masks.read("1a", SIZE), drawn(1))


def test_a_folder_without_masks_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds no masks"):
        StoredMasks(Folder(str(tmp_path / "nowhere")), 3)


def test_a_folder_of_seeds_is_refused(tmp_path):
    folder = Folder(str(tmp_path))
    write_shard(folder, rows_to_table([{"id": "a", "status": "ok"}], SEEDS_SCHEMA))
    with pytest.raises(ValueError, match=r"must hold masks, columns \['id', 'status', 'labels'\]"):
        StoredMasks(folder, 3)


def test_a_damaged_shard_is_named(shards):
    folder, made = shards
    masks = StoredMasks(folder, 3)
    folder.write(made[5], b"cat")
    with pytest.raises(ValueError, match=rf"^mask of '5a' in .*{made[5]} cannot be read: "):
        masks.read("5a", SIZE)
    for name in made:
        folder.write(name, b"cat")
    with pytest.raises(ValueError, match=r"part-.*parquet cannot be read: "):
        StoredMasks(folder, 3)
