import json

import numpy as np
import pytest
from PIL import Image

from rayseg.export import EXPORTERS, CocoPolygons, Export, at_full_size, connected_parts
from rayseg.records.palette import VOC_PALETTE, decode_labels, encode_labels
from rayseg.records.rle import decode_mask, encode_mask

LABELS = np.array([[0, 1, 1], [2, 2, 255]], np.uint8)
ROW = {
    "id": "a",
    "path": "/photos/a.jpg",
    "height": 2,
    "width": 3,
    "labels": encode_labels(LABELS),
    "classes": [0, 1],
    "foreground": [encode_mask(LABELS == 1), encode_mask(LABELS == 2)],
    "scores": [1.0, 0.5],
    "photo": np.full((2, 3, 3), 200, np.uint8),
}


@pytest.mark.parametrize("name", EXPORTERS)
def test_exporters_are_called_alike_and_need_only_their_columns(tmp_path, name):
    exporter = EXPORTERS[name]()
    row = {column: ROW[column] for column in ("id", "path", *exporter.columns)}
    written = exporter.write(Export(iter([row]), tmp_path, ("cat", "dog"), (3, 7), "val"))
    assert str(tmp_path) in str(written)
    assert "\n" not in str(written)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert any("val" in str(path) for path in files)


def test_formats_of_coco_differ_in_outlines_and_kind(tmp_path):
    for name in ("coco", "coco_polygons", "coco_results"):
        EXPORTERS[name]().write(Export([ROW], tmp_path / name, ("cat", "dog"), (3, 7), "val"))
    codes, outlines = (
        json.loads((tmp_path / name / "instances_val.json").read_text())["annotations"]
        for name in ("coco", "coco_polygons")
    )
    results = json.loads((tmp_path / "coco_results" / "results_val.json").read_text())
    assert [one["segmentation"] for one in codes] == [one["segmentation"] for one in results]
    assert [type(one["segmentation"]) for one in codes + outlines] == [dict, dict, list, list]


def test_a_tolerance_leaves_out_points_of_an_outline(tmp_path):
    y, x = np.mgrid[:40, :40]
    disc = encode_mask((y - 20) ** 2 + (x - 20) ** 2 < 200)
    row = ROW | {"height": 40, "width": 40, "classes": [0], "foreground": [disc], "scores": [1.0]}
    points = []
    for tolerance_px in (0.0, 2.0):
        folder = tmp_path / str(tolerance_px)
        CocoPolygons(tolerance_px).write(Export([row], folder, ("cat", "dog"), (3, 7), "val"))
        (one,) = json.loads((folder / "instances_val.json").read_text())["annotations"]
        points.append(len(one["segmentation"][0]))
    assert points[1] < points[0] / 2


def write(name, row, folder):
    return EXPORTERS[name]().write(Export([row], folder, ("cat", "a/b"), (3, 7), "val"))


def test_binary_pictures_are_255_where_the_class_is_and_nowhere_else(tmp_path):
    assert str(write("binary", ROW, tmp_path)) == f"2 pictures of 1 images in {tmp_path}"
    pictures = {path.parent.name: np.array(Image.open(path)) for path in tmp_path.rglob("*.png")}
    assert sorted(pictures) == ["a%5Cb", "cat"]
    for name, label in (("cat", 1), ("a%5Cb", 2)):
        assert np.array_equal(pictures[name], np.where(label == LABELS, 255, 0))


def test_an_overlay_leaves_background_and_colours_the_classes(tmp_path):
    labels = np.zeros((9, 12), np.uint8)
    labels[:, 6:] = 2
    photo = np.full((9, 12, 3), 200, np.uint8)
    write("overlay", ROW | {"labels": encode_labels(labels), "photo": photo}, tmp_path)
    picture = np.array(Image.open(tmp_path / "val" / "a.png")).astype(int)
    assert (picture[:, :6] == 200).all()
    mixed = 200 + (VOC_PALETTE[2].astype(int) - 200) * 150 / 255
    assert np.abs(picture[4, 9] - mixed).max() <= 1


def test_outlines_of_yolo_are_shares_of_the_sides_with_the_class_in_front(tmp_path):
    mask = np.zeros((20, 40), bool)
    mask[5:15, 10:20] = True
    row = ROW | {"height": 20, "width": 40, "classes": [1], "foreground": [encode_mask(mask)]}
    assert write("yolo", row, tmp_path).masks == 1
    (line,) = (tmp_path / "labels" / "val" / "a.txt").read_text().splitlines()
    number, *points = line.split()
    corners = {(float(x), float(y)) for x, y in zip(points[::2], points[1::2], strict=True)}
    assert number == "1"
    assert {min(x for x, _ in corners), max(x for x, _ in corners)} == {0.25, 0.5}
    assert {min(y for _, y in corners), max(y for _, y in corners)} == {0.25, 0.75}
    assert '  1: "a/b"' in (tmp_path / "data_val.yaml").read_text()


def test_an_object_in_two_pieces_is_two_lines_and_that_is_said(tmp_path):
    mask = np.zeros((20, 40), bool)
    mask[5:10, 5:10] = mask[5:10, 25:30] = True
    row = ROW | {"height": 20, "width": 40, "classes": [0], "foreground": [encode_mask(mask)]}
    told = str(write("yolo", row, tmp_path))
    assert "1 objects of 1 images" in told
    assert "2 outlines, as objects in pieces are several" in told
    assert len((tmp_path / "labels" / "val" / "a.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["yolo", "binary", "overlay"])
def test_what_lies_there_is_never_changed(tmp_path, name):
    write(name, ROW, tmp_path)
    write(name, ROW, tmp_path)
    path = next(one for one in tmp_path.rglob("a.*"))
    path.write_bytes(b"by hand")
    with pytest.raises(FileExistsError, match="holds something else"):
        write(name, ROW, tmp_path)
    assert path.read_bytes() == b"by hand"


def test_connected_parts_are_objects_and_what_is_ignored_is_none():
    labels = np.zeros((10, 20), np.uint8)
    labels[1:4, 1:4] = labels[4:6, 4:6] = 2  # they share a corner
    labels[1:4, 10:14] = 2
    labels[6:9, 1:4] = 1
    labels[6:9, 10:14] = 255
    found = connected_parts(encode_labels(labels))
    assert found["classes"] == [0, 1, 1]
    masks = [decode_mask(counts, labels.shape) for counts in found["foreground"]]
    assert [int(mask.sum()) for mask in masks] == [9, 13, 12]
    assert connected_parts(None) == {"classes": [], "foreground": [], "scores": []}


def test_results_leave_at_the_size_of_the_photo():
    row = at_full_size(ROW, (20, 30))
    assert (row["height"], row["width"]) == (20, 30)
    labels = decode_labels(row["labels"])
    assert labels.shape == (20, 30)
    assert np.array_equal(labels[5::10, 5::10], LABELS)
    assert decode_mask(row["foreground"][0], (20, 30))[5::10, 5::10].tolist() == [
        [False, True, True],
        [False, False, False],
    ]
