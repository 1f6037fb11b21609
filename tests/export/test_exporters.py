import json

import numpy as np
import pytest

from rayseg.export import EXPORTERS, CocoPolygons, Export
from rayseg.records.palette import encode_labels
from rayseg.records.rle import encode_mask

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
}


@pytest.mark.parametrize("name", EXPORTERS)
def test_exporters_are_called_alike_and_need_only_their_columns(tmp_path, name):
    exporter = EXPORTERS[name]()
    row = {column: ROW[column] for column in ("id", "path", *exporter.columns)}
    written = exporter.write(Export(iter([row]), tmp_path, ("cat", "dog"), (3, 7), "val"))
    assert str(tmp_path) in str(written)
    assert "\n" not in str(written)
    assert any(path.is_file() and "val" in path.name for path in tmp_path.rglob("*"))


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
