"""Masks of objects from their maps: instances and one semantic mask an image."""

import json

import numpy as np
import pytest
from PIL import Image

from rayseg.palette import decode_labels
from rayseg.records import Sample
from rayseg.refine import BoxThreshold, ProposalRefinement
from rayseg.rle import decode_mask, encode_mask
from rayseg.stages.box_masks import FolderProposals, RefineBoxMaps
from rayseg.store import INSTANCES_SCHEMA, Folder, pack_maps, rows_to_table, write_manifest
from tests.bad_images import picture

BOXES = [[2, 2, 20, 18], [10, 6, 38, 28]]
PLAIN = BoxThreshold(crf=False)


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture((30, 40))).save(path)
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    folder = Folder(str(tmp_path / "manifest"))
    write_manifest(folder, [Sample("a", str(path), 30, 40, (), *none)], ["x", "y"])
    return folder


def grid(row, column):
    """A map that says one cell of four by five."""
    cells = np.full((1, 4, 5), 0.1, np.float32)
    cells[0, row, column] = 1
    return pack_maps(cells)[0]


def row(**changed):
    made = {
        "id": "a", "status": "ok", "error": "", "note": "", "height": 30, "width": 40,
        "boxes_xyxy": BOXES, "classes": [0, 1], "object_status": ["ok", "ok"],
        "maps": [grid(1, 1), grid(2, 3)],
    }  # fmt: skip
    return made | changed


def masks(made, part="foreground"):
    return [decode_mask(counts, (30, 40)) for counts in made[part]]


def test_each_object_has_its_masks_inside_its_box_and_the_image_one_semantic_mask(manifest):
    (made,) = RefineBoxMaps(PLAIN, manifest)([row()])
    assert made["status"] == "ok"
    labels = decode_labels(made["labels"])
    for i, (sure, possible) in enumerate(zip(masks(made), masks(made, "possible"), strict=True)):
        x1, y1, x2, y2 = BOXES[i]
        assert sure.any()
        assert not (sure & ~possible).any()
        assert possible.sum() == possible[y1:y2, x1:x2].sum()
        assert set(np.unique(labels[sure])) <= {i + 1, 255}
    assert made["ignored"] == pytest.approx((labels == 255).mean())
    assert rows_to_table([made], INSTANCES_SCHEMA).num_rows == 1


def test_an_object_with_a_bad_box_has_no_mask_and_the_others_keep_theirs(manifest):
    status = "box must have x1 < x2 and y1 < y2, got (9, 9, 3, 3)"
    bad = row(boxes_xyxy=[[9, 9, 3, 3], BOXES[1]], object_status=[status, "ok"])
    (made,) = RefineBoxMaps(PLAIN, manifest)([bad])
    (clean,) = RefineBoxMaps(PLAIN, manifest)([row()])
    assert made["foreground"][0] == b""
    assert made["foreground"][1] == clean["foreground"][1]
    assert made["object_status"] == [status, "ok"]
    assert 1 not in decode_labels(made["labels"])


def test_rows_without_maps_keep_their_status(manifest):
    given = [row(status="empty", note="no boxes"), row(status="error", error="cut short")]
    made = RefineBoxMaps(PLAIN, manifest)(given)
    assert [(one["status"], one["error"]) for one in made] == [
        ("empty", ""),
        ("error", "cut short"),
    ]


def test_masks_follow_the_proposals_of_a_folder(manifest, tmp_path):
    proposal = np.zeros((30, 40), bool)
    proposal[8:26, 14:36] = True
    counts = {"size": [30, 40], "counts": encode_mask(proposal).decode()}
    (tmp_path / "a.json").write_text(json.dumps([counts]))
    folder = FolderProposals(Folder(str(tmp_path)))
    stage = RefineBoxMaps(PLAIN, manifest, folder, ProposalRefinement(min_side=0))
    one = {"boxes_xyxy": BOXES[1:], "classes": [1], "object_status": ["ok"], "maps": [grid(2, 3)]}
    (made,) = stage([row(**one)])
    np.testing.assert_array_equal(masks(made)[0], proposal)


def test_missing_proposals_are_the_images_error(manifest, tmp_path):
    stage = RefineBoxMaps(PLAIN, manifest, FolderProposals(Folder(str(tmp_path / "none"))))
    (made,) = stage([row()])
    assert made["status"] == "error"
    assert "mask proposals of 'a' must lie in" in made["error"]
