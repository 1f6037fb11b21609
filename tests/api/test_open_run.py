"""`rayseg.open_run`: a run is looked at, piece by piece, and nothing of it is written."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rayseg
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.store import (
    MASKS_SCHEMA,
    SEEDS_SCHEMA,
    Folder,
    pack_maps,
    rows_to_table,
    write_manifest,
    write_run,
    write_shard,
)

SIZE_HW = (20, 40)
LABELS = np.zeros(SIZE_HW, np.uint8)
LABELS[:, 20:] = 2


def sample(id_, path, tags=(1,), **photo):
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return Sample(id_, str(path), *SIZE_HW, tags, *none, file_name=f"{id_}.png", **photo)


def mask(id_, **given):
    row = {"id": id_, "status": "ok", "height": 20, "width": 40, "labels": encode_labels(LABELS)}
    return row | given


@pytest.fixture
def folder(tmp_path):
    """A run of a picture, a photo that was seen smaller, a negative and one that failed."""
    Image.new("RGB", SIZE_HW[::-1], (200, 200, 200)).save(tmp_path / "a.png")
    Image.new("RGB", (80, 40), (9, 9, 9)).save(tmp_path / "large.png")
    large = sample("large", tmp_path / "large.png", seen_side=40, photo_hw=(40, 80))
    samples = [sample("a", tmp_path / "a.png"), large, sample("none", tmp_path / "a.png", ())]
    run = Folder(str(tmp_path / "run"))
    write_manifest(run / "manifest", [*samples, sample("bad", "gone.png")], ["cow", "dog"])
    failed = {"id": "bad", "status": "error", "error": "file missing\nor unreadable"}
    empty = {"id": "none", "status": "empty", "height": 20, "width": 40}
    rows = [mask("a"), mask("large"), empty, failed]
    write_shard(run / "masks" / "cam+label_crf", rows_to_table(rows, MASKS_SCHEMA))
    write_run(run / "masks" / "cam+label_crf", {"kind": "masks", "counts": {"ok": 2}})
    maps = pack_maps(np.full((1, 5, 10), 0.6, np.float32))
    seeds = {"id": "a", "status": "ok", "height": 20, "width": 40, "classes": [1], "maps": maps}
    write_shard(run / "seeds" / "cam", rows_to_table([seeds, empty, failed], SEEDS_SCHEMA))
    run.write("scores.json", json.dumps({"masks/cam+label_crf": {"miou": 0.5}}).encode())
    return tmp_path / "run"


def test_a_run_gives_classes_images_masks_seeds_and_scores(folder):
    run = rayseg.open_run(folder)
    assert run.classes == ("cow", "dog")
    assert [*run.images] == ["a", "large", "none", "bad"]
    assert (run.images[0].id, run.images["large"].photo_hw) == ("a", (40, 80))
    masks = run.masks("cam+label_crf")
    assert [*masks] == ["a", "large", "none"]
    assert (masks["a"] == LABELS).all()
    assert masks["large"].shape == run.photo("large").shape[:2] == (40, 80)
    assert not masks["none"].any()
    assert masks.failed == {"bad": "file missing or unreadable"}
    (name, grown) = run.seeds("cam")["a"].popitem()
    assert (name, grown.shape) == ("dog", SIZE_HW)
    assert np.allclose(grown, 0.6)
    assert run.scores == {"masks/cam+label_crf": {"miou": 0.5}}
    assert run.overlay("large", masks).size == (80, 40)


def test_the_only_folder_of_its_kind_needs_no_name(folder):
    assert [*rayseg.open_run(folder).masks()] == ["a", "large", "none"]
    write_shard(Folder(str(folder)) / "masks" / "x", rows_to_table([mask("a")], MASKS_SCHEMA))
    with pytest.raises(ValueError, match=r"one of the run's masks, which are: cam\+label_crf, x"):
        rayseg.open_run(folder).masks()


def test_status_is_what_the_command_says(folder):
    said = rayseg.open_run(folder).status()
    assert said.startswith(f"{folder}: no job is at work")
    assert "4 of 4 images, 1 failed" in said


def test_looking_writes_nothing(folder):
    def files():
        return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*")}

    before = files()
    run = rayseg.open_run(folder)
    _ = [*run.masks("cam+label_crf").values()], run.seeds("cam")["a"], run.scores, run.status()
    assert files() == before


def test_what_is_not_there_is_named_with_what_there_is(folder, tmp_path):
    run = rayseg.open_run(folder)
    with pytest.raises(ValueError, match=rf"{tmp_path}/none holds no run; `rayseg run --run"):
        rayseg.open_run(tmp_path / "none")
    with pytest.raises(ValueError, match=r"the run has cam\+label_crf; did you mean 'cam"):
        run.masks("cam+label_cfr")
    with pytest.raises(ValueError, match="image 'larg' is none of the run; did you mean 'large'"):
        _ = run.images["larg"]
    with pytest.raises(ValueError, match="image 'b' has no row in masks/"):
        _ = run.masks()["b"]
    with pytest.raises(ValueError, match="image must be one of 3, got number 3"):
        _ = run.masks()[3]
    with pytest.raises(KeyError, match="file missing or unreadable"):
        _ = run.masks()["bad"]


def test_going_through_masks_holds_no_more_the_more_there_are(tmp_path):
    peaks = []
    for number in (300, 1200):
        run = Folder(str(tmp_path / str(number)))
        ids = [f"{n:05d}" for n in range(number)]
        write_manifest(run / "manifest", [sample(id_, "gone.png") for id_ in ids], ["cow", "dog"])
        large = np.ones((200, 200), np.uint8)  # 40 kB, some 100 stored
        rows = [mask(id_, labels=encode_labels(large)) for id_ in ids]
        for start in range(0, number, 100):
            shard = rows_to_table(rows[start : start + 100], MASKS_SCHEMA)
            write_shard(run / "masks" / "cam+label_crf", shard)
        masks = rayseg.open_run(run.location).masks()
        assert masks[0].shape == large.shape
        tracemalloc.start()
        assert sum(one.any() for one in masks.values()) == number
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20 * large.size  # what is held of 900 images more
