"""A small instances JSON to break, and what reads it."""

import json

import numpy as np
from PIL import Image

from rayseg.datasets import COCO
from rayseg.datasets.tally import Tally


def square(x, y, side):
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def entry(number, category, outline, box, image=7, **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": outline,
        "bbox": box,
        "iscrowd": 0,
        **more,
    }


def small_json():
    """Two images of 20 x 30 pixels and categories out of order; the crowd lies beneath all."""
    crowd = np.zeros((20, 30), np.uint8)
    crowd[:, 15:] = 1
    counts = [15 * 20, 15 * 20]
    return {
        "images": [
            {"id": 7, "file_name": "7.jpg", "height": 20, "width": 30},
            {"id": 123456, "file_name": "other.jpg", "height": 20, "width": 30},
        ],
        "annotations": [
            entry(1, 5, square(2, 2, 4), [2, 2, 4, 4]),
            entry(2, 90, square(0, 0, 10), [0, 0, 10, 10]),
            entry(
                3, 90, {"size": [20, 30], "counts": counts}, [15, 0, 15, 20], area=300, iscrowd=1
            ),
            entry(4, 5, square(20, 5, 3), [20, 5, 3, 3]),
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 5, "name": "airplane"}],
    }


def write(folder, content, **flags):
    """The reader of a JSON beside the first image, 7.jpg."""
    if not (folder / "7.jpg").exists():
        Image.new("RGB", (30, 20)).save(folder / "7.jpg")
    (folder / "a.json").write_text(json.dumps(content))
    return COCO(images=folder, annotations=folder / "a.json", **flags)


def read(folder, content, **flags):
    """The samples and the tally of a JSON."""
    tally = Tally()
    return list(write(folder, content, **flags).samples(folder / "w", tally)), tally


def reasons(tally):
    """What was left out, and why, by its count."""
    return {(one.what, one.text): count for one, count in tally.left_out.items()}
