"""One's own photographs: seen upright and small; boxes and masks follow them there."""

import json
from pathlib import Path

import numpy as np
import pytest

from rayseg.datasets import COCO, DatasetError, FolderDataset
from rayseg.datasets.tally import Tally
from rayseg.records.images import decode_image
from rayseg.records.palette import decode_labels, encode_labels
from tests.records.test_photos import QUARTERS, looked_at, quarters, stored

BOXES = "image,class,x1,y1,x2,y2\na.jpg,cat,300,0,600,200\n"
"""The upper right quarter of a photo of 400x600 as it is looked at."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "tags.csv").write_text("image,tags\na.jpg,cat\n")
    (tmp_path / "boxes.csv").write_text(BOXES)

    def make(orientation=6, **flags):
        (tmp_path / "photos" / "a.jpg").write_bytes(stored(looked_at(400, 600), orientation))
        given = {"tags": tmp_path / "tags.csv", "boxes": tmp_path / "boxes.csv"} | flags
        (sample,) = FolderDataset(tmp_path / "photos", **given).samples(tmp_path / "run", Tally())
        return sample

    return make


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_lies_on_the_same_thing_in_the_photo_as_it_is_seen(folder, orientation, tmp_path):
    sample = folder(orientation, max_side=120)
    assert (sample.height, sample.width, sample.photo_hw) == (80, 120, (400, 600))
    pixels = decode_image((tmp_path / "photos/a.jpg").read_bytes(), sample.seen_side).pixels
    assert pixels.shape == (80, 120, 3)
    x1, y1, x2, y2 = sample.boxes_xyxy[0].astype(int)
    inside = pixels[y1:y2, x1:x2].reshape(-1, 3)
    assert tuple(int(v > 128) * 255 for v in np.median(inside, 0)) == QUARTERS[1]
    assert sample.boxes_xyxy.tolist() == [[60, 0, 120, 40]]


def test_a_true_mask_of_the_upright_photo_is_made_as_small_as_it(folder, tmp_path):
    labels = np.zeros((400, 600), np.uint8)
    labels[:200, 300:] = 1
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(encode_labels(labels))
    sample = folder(6, max_side=120, masks=tmp_path / "masks")
    small = decode_labels(Path(sample.mask_path).read_bytes())
    assert np.array_equal(small, labels[2::5, 2::5])
    assert folder(1, max_side=0, masks=tmp_path / "masks").mask_path == str(
        tmp_path / "masks" / "a.png"
    )


@pytest.mark.parametrize(
    ("orientation", "max_side", "seen_side"), [(1, 640, 0), (1, 600, 0), (6, 640, 600), (6, 0, 600)]
)
def test_only_what_is_turned_or_made_smaller_is_not_as_it_is_stored(
    folder, orientation, max_side, seen_side
):
    """So the rows of earlier versions still follow from their photos."""
    sample = folder(orientation, max_side=max_side)
    assert (sample.height, sample.width, sample.seen_side) == (400, 600, seen_side)
    assert sample.photo_hw == ((400, 600) if seen_side else (0, 0))


@pytest.mark.parametrize("max_side", [-1, 31])
def test_a_side_that_is_too_short_to_see_anything_is_refused(max_side):
    with pytest.raises(ValueError, match="max_side must be 0 or"):
        FolderDataset(max_side=max_side)


def test_coco_s_photos_stay_as_they_are_stored(tmp_path):
    (tmp_path / "a.jpg").write_bytes(stored(looked_at(400, 600), 6))
    image = {"id": 1, "file_name": "a.jpg", "height": 600, "width": 400}
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 200, 300], "iscrowd": 0}
    content = {
        "images": [image],
        "annotations": [one | {"area": 60000, "segmentation": []}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    reader = COCO(images=tmp_path, annotations=tmp_path / "a.json")
    (sample,) = reader.samples(tmp_path / "run", Tally())
    assert (sample.height, sample.width, sample.seen_side) == (600, 400, 0)
    pixels = decode_image((tmp_path / "a.jpg").read_bytes(), sample.seen_side).pixels
    assert quarters(pixels) != QUARTERS


def test_negatives_of_a_folder_without_a_picture_are_an_error(folder, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="none holds no picture: expected negatives"):
        folder(negatives=tmp_path / "none")
