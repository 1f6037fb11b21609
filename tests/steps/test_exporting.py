"""Which of a run's masks are written in a foreign format; no Ray."""

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from rayseg.config import ExportConfig
from rayseg.datasets import FolderDataset
from rayseg.plain import PlainEngine
from rayseg.records import Sample
from rayseg.records.palette import encode_labels
from rayseg.steps.exporting import export
from rayseg.store import MASKS_SCHEMA, Folder, rows_to_table, write_manifest, write_shard
from tests.records.test_photos import looked_at, stored


@pytest.fixture
def run(tmp_path):
    """Masks of two train images and one of val; the manifest has a split without any."""
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    splits = {"a": "train", "b": "val", "c": "train", "d": "test"}
    samples = [Sample(id_, f"{id_}.png", 8, 8, (), *none, split) for id_, split in splits.items()]
    write_manifest(Folder(str(tmp_path)) / "manifest", samples, ["cow"])
    labels = encode_labels(np.zeros((8, 8), np.uint8))
    rows = [{"id": i, "status": "ok", "height": 8, "width": 8, "labels": labels} for i in "abc"]
    write_shard(Folder(str(tmp_path)) / "masks" / "cam", rows_to_table(rows, MASKS_SCHEMA))
    return tmp_path


def written(run, split):
    export(
        ExportConfig(run=str(run), masks="cam", out=str(run / "out"), split=split), PlainEngine()
    )
    return sorted(path.stem for path in (run / "out").rglob("*.png"))


@pytest.mark.parametrize(("split", "ids"), [("", "abc"), ("train", "ac"), ("val", "b")])
def test_only_images_of_the_split_are_written(run, split, ids):
    assert written(run, split) == list(ids)


@pytest.mark.parametrize(
    ("split", "said"),
    [("test", "masks/cam holds no image of split 'test'"), ("vall", "no image is left of split")],
)
def test_a_split_without_a_mask_is_refused(run, split, said):
    with pytest.raises(ValueError, match=said):
        written(run, split)


ROUNDED = 3
"""Pixels of a corner that are nearer to its outside, five times as large: 0.6 and 0.8 of a side."""


@pytest.fixture
def photo(tmp_path):
    """A run of one photo of 400x600 that lies on its side, seen at 80x120, with its mask."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(stored(looked_at(400, 600), 6))
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cow\n")
    reader = FolderDataset(tmp_path / "photos", tmp_path / "tags.csv", max_side=120)
    folder = Folder(str(tmp_path / "run"))
    write_manifest(folder / "manifest", reader.samples(tmp_path), reader.classes)
    labels = np.zeros((80, 120), np.uint8)
    labels[:40, 60:] = labels[60:70, 10:20] = 1  # the upper right quarter, and a second cow
    row = {"id": "a", "status": "ok", "height": 80, "width": 120, "labels": encode_labels(labels)}
    write_shard(folder / "masks" / "cam", rows_to_table([row], MASKS_SCHEMA))
    return tmp_path


def exported(photo, form):
    config = ExportConfig(run=str(photo / "run"), masks="cam", format=form, out=str(photo / form))
    return export(config, PlainEngine()).lines


@pytest.mark.parametrize("form", ["voc", "binary"])
def test_masks_leave_at_the_size_of_the_photo_and_lie_on_what_viewers_show(photo, form):
    exported(photo, form)
    (path,) = (photo / form).rglob("a.png")
    mask = np.array(Image.open(path)) > 0
    assert mask.shape == (400, 600)
    shown = np.array(ImageOps.exif_transpose(Image.open(photo / "photos" / "a.jpg")))
    assert np.median(shown[mask & (np.arange(400) < 200)[:, None]], 0).round(-2).tolist() == [
        0, 300, 0,
    ]  # fmt: skip
    assert mask.sum() == 200 * 300 - ROUNDED + 50 * 50 - 4 * ROUNDED


def test_objects_of_masks_from_tags_are_their_connected_parts_and_that_is_said(photo):
    lines = exported(photo, "coco")
    assert lines[-1].endswith("masks/cam holds no objects: each connected part of a class is one")
    content = json.loads((photo / "coco" / "instances_train.json").read_text())
    assert [(one["height"], one["width"]) for one in content["images"]] == [(400, 600)]
    found = sorted((one["bbox"], one["area"]) for one in content["annotations"])
    assert found == [([50, 300, 50, 50], 2500 - 4 * ROUNDED), ([300, 0, 300, 200], 60000 - ROUNDED)]


def test_outlines_of_yolo_fit_the_photo(photo):
    exported(photo, "yolo")
    lines = (photo / "yolo" / "labels" / "train" / "a.txt").read_text().splitlines()
    sides = [[float(number) for number in line.split()[1:]] for line in lines]
    assert sorted((max(one[::2]), max(one[1::2])) for one in sides) == [
        (pytest.approx(1 / 6, abs=0.004), pytest.approx(0.875, abs=0.004)),
        (pytest.approx(1, abs=0.004), pytest.approx(0.5, abs=0.004)),
    ]


def test_overlays_are_of_the_size_at_which_the_photo_was_seen(photo):
    assert exported(photo, "overlay") == [f"export: 1 pictures of 1 images in {photo}/overlay"]
    picture = np.array(Image.open(photo / "overlay" / "train" / "a.png")).astype(int)
    assert picture.shape == (80, 120, 3)
    assert np.abs(picture[20, 30] - (255, 0, 0)).max() < 12  # background stays as it was
    assert np.abs(picture[20, 90] - (0, 255, 0)).max() > 50


def test_a_photo_that_is_gone_costs_its_overlay_alone(photo):
    (photo / "photos" / "a.jpg").unlink()
    lines = exported(photo, "overlay")
    assert lines[1] == "export: left out 1 images: 1 whose photo cannot be read"
